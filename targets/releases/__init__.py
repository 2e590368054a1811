"""Releases of the user's own mechanism: how it is called, and what came out."""
