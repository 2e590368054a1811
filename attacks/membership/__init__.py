"""Membership inference on the final model: scores, higher = member, in float64 log-odds."""
