"""dpaudit: checks a claimed (epsilon, delta) of a PyTorch model before release."""

__version__ = "0.1.0"
