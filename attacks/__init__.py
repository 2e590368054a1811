"""What an adversary does with what it is given. Strangers to the targets."""
