"""Scores that are learned from outputs: a linear one and boosted trees, written down as plain numbers.

scikit-learn fits them; what is kept is arrays, so that a score can be stored as JSON and computed again
without loading any model.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dpaudit.attacks.event_search.features import Feature, matrix, side_by_side
from dpaudit.check import FloatArray, IntArray
from dpaudit.errors import UsageError
from dpaudit.outputs import Outputs

_ROWS = 20_000
_TREES, _DEPTH = 40, 3
_LARGEST = 1e6
_STEP_ROWS = 100_000
_AT_ONCE = 16_384
"""Rows that are scored at once: all steps of a million would each go through main memory."""
_STEPS = 8
"""Pieces of each feature: the leaves of a tree of the depth above."""
_SPREAD = 0.2
"""Prior standard deviation of a step of log odds: leaks that are larger show in spite of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A regression tree; node 0 is its root.

    Attributes:
        column: (nodes,) that is compared; negative at a leaf.
        threshold: (nodes,) at most which one goes left.
        left: (nodes,) next node.
        right: (nodes,) next node.
        value: (nodes,) of a leaf.
    """

    column: tuple[int, ...]
    threshold: tuple[float, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]
    value: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse nodes that do not exist."""
        nodes = len(self.value)
        lengths = {len(each) for each in (self.column, self.threshold, self.left, self.right, self.value)}
        inner = [i for i in range(nodes) if lengths == {nodes} and self.column[i] >= 0]
        if (
            not nodes
            or lengths != {nodes}
            or not all(0 <= side[i] < nodes for i in inner for side in (self.left, self.right))
        ):
            raise UsageError("Expected a tree whose nodes exist, found none. Restore the file.")


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedScore:
    """A number of each output that is higher where the first data set is likelier.

    Attributes:
        base: features that it is computed from; what is not finite is replaced by `fill`.
        fill: (k,) one for each.
        centre: (k,) is subtracted.
        scale: (k,) is divided by.
        weights: (k,) of the linear score; empty for trees.
        trees: are summed; empty for a linear score.
    """

    base: tuple[Feature, ...]
    fill: tuple[float, ...]
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...] = ()
    trees: tuple[Tree, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what does not fit together, such as in a file that somebody changed."""
        k = len(self.base)
        fit = all(len(each) == k for each in (self.fill, self.centre, self.scale, self.weights or self.fill))
        if not k or not fit or any(max(tree.column) >= k for tree in self.trees):
            raise UsageError(f"Expected a score of {k} features throughout, found another number of them.")

    def values(self, outputs: Outputs) -> FloatArray:
        """(n,) scores."""
        return self.of(matrix(outputs, self.base))

    def of(self, table: FloatArray) -> FloatArray:
        """(n,) scores from (n, k) values of the base."""
        if len(table) <= _AT_ONCE:
            return self._scored(table)
        starts = range(0, len(table), _AT_ONCE)
        return np.concatenate([self._scored(table[start : start + _AT_ONCE]) for start in starts])

    def _scored(self, table: FloatArray) -> FloatArray:
        table = _prepared(self, table)
        total = np.zeros(len(table))
        if self.weights:
            total += table @ np.array(self.weights)
        for tree in self.trees:
            total += _grown(tree, table)
        return total


def columns_of(outputs: Outputs, columns: Sequence[Feature | LearnedScore]) -> list[FloatArray]:
    """(n,) values of each; a feature that several of them are made of is computed once."""
    known: dict[Feature, FloatArray] = {}

    def of(feature: Feature) -> FloatArray:
        if feature not in known:
            known[feature] = feature.values(outputs)
        return known[feature]

    return [
        column.of(side_by_side([of(feature) for feature in column.base], outputs.size))
        if isinstance(column, LearnedScore)
        else of(column)
        for column in columns
    ]


def fit_linear(
    base: Sequence[Feature], first: FloatArray, second: FloatArray, rng: np.random.Generator
) -> LearnedScore:
    """Logistic regression of the data set on the features.

    Args:
        base: of the columns.
        first: (n, k) feature values on the one data set.
        second: (m, k) on the other.
        rng: chooses the rows that are learned from, at most 20,000.
    """
    from sklearn.linear_model import LogisticRegression

    table, labels, empty = _training(base, first, second, rng)
    model = LogisticRegression(C=1.0, max_iter=200)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a score that has not converged is a score all the same
        model.fit(table, labels)
    return replace(empty, weights=tuple(float(w) for w in model.coef_[0]))


def fit_steps(
    base: Sequence[Feature], first: FloatArray, second: FloatArray, rng: np.random.Generator
) -> LearnedScore:
    """Sum of one step function of each feature: logistic regression on its octiles; as for `fit_linear`.

    The log ratio of two shifted Laplace distributions is such a function, and is not linear. Learns from
    at most 100,000 rows.
    """
    from scipy.sparse import csr_array
    from sklearn.linear_model import LogisticRegression

    table, labels, empty = _training(base, first, second, rng, _STEP_ROWS)
    cuts = np.quantile(table, np.arange(1, _STEPS) / _STEPS, axis=0, method="lower")
    codes = np.stack([np.searchsorted(cuts[:, j], column) for j, column in enumerate(table.T)], axis=1)
    rows, k = codes.shape
    places = (codes + _STEPS * np.arange(k)).ravel()
    coded = csr_array((np.ones(rows * k), places, np.arange(0, rows * k + 1, k)), shape=(rows, k * _STEPS))
    model = LogisticRegression(C=_SPREAD**2, max_iter=100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(coded, labels)
    steps = model.coef_[0].reshape(k, _STEPS)
    return replace(empty, trees=tuple(_staircase(j, cuts[:, j], steps[j]) for j in range(k)))


def _staircase(column: int, cuts: FloatArray, steps: FloatArray) -> Tree:
    """A balanced tree over seven cuts of one column: inner nodes 0 to 6 as in a heap, then eight leaves."""
    inner = np.arange(_STEPS - 1)
    return Tree(
        column=(column,) * (_STEPS - 1) + (-2,) * _STEPS,
        threshold=_floats(np.concatenate([cuts[[3, 1, 5, 0, 2, 4, 6]], np.zeros(_STEPS)])),
        left=(*(2 * inner + 1).tolist(), *(-1,) * _STEPS),
        right=(*(2 * inner + 2).tolist(), *(-1,) * _STEPS),
        value=_floats(np.concatenate([np.zeros(_STEPS - 1), steps])),
    )


def fit_trees(
    base: Sequence[Feature], first: FloatArray, second: FloatArray, rng: np.random.Generator
) -> LearnedScore:
    """Gradient-boosted trees of the data set on the features; arguments as for `fit_linear`."""
    from sklearn.ensemble import GradientBoostingClassifier

    table, labels, empty = _training(base, first, second, rng)
    seed = int(rng.integers(2**31))
    leaf = max(10, len(labels) // 400)
    model = GradientBoostingClassifier(
        n_estimators=_TREES, max_depth=_DEPTH, min_samples_leaf=leaf, subsample=0.7, random_state=seed
    )
    model.fit(table, labels)
    return replace(empty, trees=tuple(_written(each.tree_) for each in model.estimators_[:, 0]))


def _training(
    base: Sequence[Feature],
    first: FloatArray,
    second: FloatArray,
    rng: np.random.Generator,
    most: int = _ROWS,
) -> tuple[FloatArray, IntArray, LearnedScore]:
    rows = np.concatenate([first, second])
    labels = np.repeat([1, 0], [len(first), len(second)])
    chosen = rng.permutation(len(rows))[:most]
    rows, labels = rows[chosen], labels[chosen]
    known = np.where(np.isfinite(rows), rows, np.nan)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        low, centre, scale = np.nanmin(known, axis=0), np.nanmean(known, axis=0), np.nanstd(known, axis=0)
    scale = np.where((scale > 0) & np.isfinite(scale), scale, 1.0)
    empty = LearnedScore(
        base=tuple(base),
        fill=_floats(np.nan_to_num(low) - scale),
        centre=_floats(np.where(np.isfinite(centre), centre, 0.0)),
        scale=_floats(scale),
    )
    return _prepared(empty, rows), labels, empty


def _floats(values: FloatArray) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _prepared(score: LearnedScore, table: FloatArray) -> FloatArray:
    with np.errstate(over="ignore", invalid="ignore"):
        standard = np.where(np.isfinite(table), table, np.array(score.fill))
        standard -= np.array(score.centre)
        standard /= np.array(score.scale)
        # Trees compare in single precision, and a linear score is to stay finite.
        np.clip(np.nan_to_num(standard, copy=False), -_LARGEST, _LARGEST, out=standard)
    return np.asarray(standard.astype(np.float32), dtype=np.float64)


def _written(tree: Any) -> Tree:
    return Tree(
        column=tuple(int(v) for v in tree.feature),
        threshold=_floats(tree.threshold),
        left=tuple(int(v) for v in tree.children_left),
        right=tuple(int(v) for v in tree.children_right),
        value=_floats(tree.value[:, 0, 0]),
    )


def _grown(tree: Tree, table: FloatArray, node: int = 0, depth: int = _DEPTH) -> FloatArray | float:
    """(n,) value of the leaf that each row ends in, one number for all where no more is compared.

    Both sides of each comparison are worked out for all rows: to follow each by itself reads in no order.
    """
    column = tree.column[node]
    if column < 0 or not depth:
        return tree.value[node]
    left, right = (_grown(tree, table, side[node], depth - 1) for side in (tree.left, tree.right))
    return np.where(table[:, column] <= tree.threshold[node], left, right)
