"""Whether members can be told from others by the records alone: then an attack measures the split.

Das, Zhang and Tramer 2024 (arXiv:2406.16201) call a classifier that never sees the model a blind baseline.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpaudit.canary import Canaries
from dpaudit.check import BoolArray, FloatArray
from dpaudit.stats import roc

LEVEL = 0.01
"""Share of random splits about which an alarm is raised."""
_FEWEST = 20
_MOST_RECORDS, _MOST_FEATURES, _MOST_CLASSES = 10_000, 1_000, 50
_STREAM = 240_616_201


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """What a classifier makes of the records alone.

    Attributes:
        auc: on records that it was not trained on.
        lower: end of the interval (DeLong) at `LEVEL`.
        upper: likewise.
        p_value: of "the split is random", one-sided.
        n: records that were held out.
    """

    auc: float
    lower: float
    upper: float
    p_value: float
    n: int


def blind_baseline(canaries: Canaries) -> Baseline | None:
    """Train on half of the records to tell members from others, and judge on the other half.

    Two classifiers, logistic regression and gradient-boosted trees, and the mean of their ranks. Given the
    half that they were trained on, a random split makes the members of the other half exchangeable with its
    non-members, so that the Mann-Whitney test of their ranks has its level whatever the classifiers learnt.
    Cross-validation would have more records and no level: its folds share them.

    Returns:
        None with fewer than 20 members or others in either half. Cost: one fit of each, on at most 10,000
        records and 1,000 features.
    """
    from scipy.stats import mannwhitneyu

    rng = np.random.default_rng(_STREAM)
    x, member = _features(canaries, rng)
    trained = np.zeros(len(member), dtype=np.bool_)
    for side in (True, False):
        rows = rng.permutation(np.flatnonzero(member == side))
        if len(rows) < 2 * _FEWEST:
            return None
        trained[rows[: len(rows) // 2]] = True
    score = _ranks(x[trained], member[trained], x[~trained])
    inside = member[~trained]
    p_value = float(mannwhitneyu(score[inside], score[~inside], alternative="greater").pvalue)
    auc, lower, upper = roc.auc(score, inside, alpha=LEVEL)
    # Scores that are all equal tell nobody apart, and their test has no answer.
    return Baseline(
        auc=auc, lower=lower, upper=upper, p_value=1.0 if np.isnan(p_value) else p_value, n=len(inside)
    )


def _features(canaries: Canaries, rng: np.random.Generator) -> tuple[FloatArray, BoolArray]:
    """Standardised features and label of at most so many records and features, and who was in."""
    rows = np.sort(rng.permutation(len(canaries.y))[:_MOST_RECORDS])
    x = canaries.x[rows].reshape(len(rows), -1)
    x = x[:, np.sort(rng.permutation(x.shape[1])[:_MOST_FEATURES])]
    spread = x.std(axis=0) if len(x) else np.ones(x.shape[1])
    x = (x - x.mean(axis=0)) / np.where(spread > 0, spread, 1.0) if len(x) else x
    labels = np.unique(canaries.y)[:_MOST_CLASSES]
    return np.concatenate([x, canaries.y[rows][:, None] == labels], axis=1), canaries.member[rows]


def _ranks(x: FloatArray, member: BoolArray, other: FloatArray) -> FloatArray:
    """Mean rank of each of `other` by two classifiers trained on (x, member)."""
    from scipy.stats import rankdata
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression

    models = (
        LogisticRegression(C=0.1, max_iter=300),
        HistGradientBoostingClassifier(max_iter=40, max_leaf_nodes=15, early_stopping=False, random_state=0),
    )
    made = [rankdata(model.fit(x, member).predict_proba(other)[:, 1]) for model in models]
    mean: FloatArray = np.mean(made, axis=0)
    return mean
