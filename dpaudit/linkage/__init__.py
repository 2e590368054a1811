"""Linkage: who can be found again in a table without names, by what others know of them."""
