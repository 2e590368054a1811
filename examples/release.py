"""A release function: the mean of values in [0, 10], said to be 1-differentially private."""

import numpy as np


def noisy_mean(data, rng):
    """Release the mean; `data` is a list of numbers, `rng` a numpy generator."""
    values = np.clip(np.nan_to_num(data, nan=0.0), 0, 10)
    count = max(len(values), 1)
    return round(values.sum() / count + rng.laplace(scale=10 / count), 2)
