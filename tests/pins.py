"""Short records with a secret number each: two digits, five digits that are secret, and an end."""

import numpy as np

from dpaudit.canary import Canaries, make_pool
from dpaudit.secret import Format, Secrets

DIGITS = tuple((token,) for token in range(10))
PIN = Format(name="pin", slots=(DIGITS,) * 5)


def load(n: int = 90):
    """Records (n, 9) of 12 tokens, labels, no groups, and where the secrets stand."""
    rng = np.random.default_rng(0)
    said = rng.integers(0, 10, (n, 7))
    x = np.column_stack([np.full(n, 10), said, np.full(n, 11)]).astype(float)
    places = Secrets.at((PIN,), np.zeros(n), np.full(n, 3), np.full(n, 8))
    return x, said[:, 0] % 2, None, places


def canaries() -> Canaries:
    """A draw of them with 20 canaries."""
    x, y, _, secrets = load()
    rng = np.random.default_rng(1)
    return make_pool(x, y, n_canaries=20, test_fraction=0.1, rng=rng, kind="secret", secrets=secrets).draw(
        rng
    )
