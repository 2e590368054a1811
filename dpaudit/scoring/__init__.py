"""Scores that were made elsewhere: read, understood, and made evidence of what their design allows."""
