"""Whether what is in batches decided which of them were used."""

from __future__ import annotations

import numpy as np
from scipy.stats import hypergeom

from dpaudit.check import BoolArray, IntArray

_CUTS = (0.25, 0.5, 0.75)


def chosen_by(features: IntArray, used: BoolArray) -> tuple[float, int]:
    """P-value of "batches were chosen without regard to their features", and the feature that tells most.

    Batches of equal law that were chosen blindly can change places. So the number of used ones above a
    quartile of a feature is hypergeometric; both tails, and Bonferroni over features and quartiles.

    Args:
        features: (batches, k).
        used: (batches,).
    """
    total, chosen = len(used), int(used.sum())
    if not features.size or chosen in (0, total):
        return 1.0, 0
    cuts = np.quantile(features, _CUTS, axis=0)
    above = np.concatenate([features > cut for cut in cuts], axis=1)
    high, both = above.sum(axis=0), (above & used[:, None]).sum(axis=0)
    most = hypergeom.sf(both - 1, total, high, chosen)
    fewest = hypergeom.cdf(both, total, high, chosen)
    tails = np.minimum(most, fewest)
    return min(1.0, 2 * tails.size * float(tails.min())), int(tails.argmin()) % features.shape[1]
