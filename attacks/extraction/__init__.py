"""Extraction of planted secrets from language models."""
