"""What an adversary can rebuild, against the success that the claim allows."""
