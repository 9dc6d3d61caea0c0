"""How well features predict numbers: linear models from co-moments alone, boosting from rows.

Knows Grams of folds and how a linear model follows from them; knows nothing of
tables or of how rows were dealt. Scaling, principal components and penalties are
found anew in every training set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.metrics import r2_score
from threadpoolctl import threadpool_limits

from zonal.errors import InputError
from zonal.findings.evaluation.schema import FeatureSet
from zonal.findings.gram import BATCH, Gram
from zonal.findings.pca import Components, components_of
from zonal.findings.table import Floats

SETS: tuple[FeatureSet, ...] = ("all", "pca", "pca_raw")

RANK = 1e-10
"""A direction of the features that holds less than this share of the first one's variance does not count."""

ALPHAS = tuple(float(alpha) for alpha in np.logspace(-2, 6, 17))
"""Penalties that ridge chooses from; on standardised features, as scikit-learn's Ridge counts them."""

CONSTANT = 1e-26
"""A target whose variance is less than this share of its mean square varies by rounding alone."""

LEARNED = 200_000
"""Rows that boosting learns from at the most, drawn from the training set."""

RowNumbers = npt.NDArray[np.intp]
"""Numbers of rows, rising."""

Prepared = Callable[[RowNumbers], npt.NDArray[np.floating]]
"""Gives some rows' features as a model takes them."""


def grams(
    values: npt.NDArray[np.float32], targets: Sequence[Floats], cell: npt.NDArray[np.int64], cells: int
) -> list[Gram]:
    """Add up co-moments of features and targets for each cell of rows, in one pass.

    Parameters
    ----------
    values : float32 ndarray[row, feature]
    targets : sequence of float64 ndarray[row]
        NaN in rows of cell -1 only.
    cell : int64 ndarray[row]
        -1 for a row that counts for nothing.
    cells : int

    Returns
    -------
    list of Gram
        Of features, then targets; for each cell.
    """
    features = values.shape[1]
    width = features + len(targets)
    by_cell = [Gram.empty(width) for _ in range(cells)]
    for start in range(0, len(values), BATCH):
        batch = slice(start, start + BATCH)
        joined = np.empty((len(values[batch]), width))
        joined[:, :features] = values[batch]
        for at, target in enumerate(targets, features):
            joined[:, at] = target[batch]
        for number in np.unique(cell[batch][cell[batch] >= 0]):
            by_cell[number] += Gram.of(joined[cell[batch] == number])
    return by_cell


def total(parts: Sequence[Gram]) -> Gram:
    """Add up Grams. A training set is added up of its folds: taking one away from all would round."""
    return sum(parts[1:], parts[0])


@dataclass(frozen=True, slots=True)
class Linear:
    """Linear models of several targets.

    Parameters
    ----------
    slope : float64 ndarray[feature, target]
        Of the features as they are.
    intercept : float64 ndarray[target]
    """

    slope: Floats
    intercept: Floats

    def errors(self, gram: Gram) -> Floats:
        """Sum of squared errors of each target over the rows of a Gram: float64 ndarray[target]."""
        of = len(self.slope)
        offset = gram.mean[of:] - self.intercept - gram.mean[:of] @ self.slope
        inside, across = gram.scatter[:of, :of], gram.scatter[:of, of:]
        own = np.diag(gram.scatter)[of:]
        spread = (
            own - 2 * (self.slope * across).sum(axis=0) + (self.slope * (inside @ self.slope)).sum(axis=0)
        )
        errors: Floats = np.maximum(spread, 0.0) + gram.count * offset**2
        return errors

    def r2(self, gram: Gram) -> Floats:
        """Determine each target's R2 over the rows of a Gram, about their own mean; NaN of a constant."""
        of = len(self.slope)
        own, mean = np.diag(gram.scatter)[of:], gram.mean[of:]
        varies = own > CONSTANT * (own + gram.count * mean**2)
        r2: Floats = 1 - np.divide(self.errors(gram), own, out=np.full(len(own), np.nan), where=varies)
        return r2


@dataclass(frozen=True, slots=True)
class Training:
    """A training set: its Gram, and its features' principal components of both scalings.

    Parameters
    ----------
    gram : Gram
        Of features, then targets.
    whole, raw : Components
        All of them, of features with variance 1 and of features as they are.
    kept : int
        How many the reduced sets take.
    """

    gram: Gram
    whole: Components
    raw: Components
    kept: int

    @classmethod
    def of(cls, gram: Gram, features: int, kept: int) -> Training | None:
        """Find the components; None where no feature varies."""
        inside, names = gram.select(range(features)), [""] * features
        try:
            return cls(
                gram, components_of(inside, names), components_of(inside, names, standardize=False), kept
            )
        except InputError:
            return None

    def basis(self, features: FeatureSet) -> tuple[Floats, Floats]:
        """Return directions, float64 ndarray[feature, direction], and the scatter along each."""
        components = self.raw if features == "pca_raw" else self.whole
        strength = components.variance * (self.gram.count - 1)
        use = strength > RANK * strength[0]
        use[len(strength) if features == "all" else self.kept :] = False
        return (components.loadings[use] / components.scale).T, strength[use]

    def fitted(self, features: FeatureSet, alpha: float = 0.0) -> Linear:
        """Fit all targets at once: least squares (of least norm), or ridge.

        Along principal directions, of scatter s, a coefficient is the co-moment with the target over
        ``s + alpha``.
        """
        directions, strength = self.basis(features)
        of = len(directions)
        across = directions.T @ self.gram.scatter[:of, of:]
        slope = directions @ (across / (strength + alpha)[:, None])
        return Linear(slope, self.gram.mean[of:] - self.gram.mean[:of] @ slope)

    def terms(self, features: FeatureSet, alpha: float = 0.0) -> float:
        """Effective degrees of freedom, the intercept left out."""
        _, strength = self.basis(features)
        return float((strength / (strength + alpha)).sum())

    def prepared(self, values: npt.NDArray[np.float32], features: FeatureSet) -> Prepared:
        """Return what turns rows of float32 ndarray[row, feature] into standardised features, or scores.

        Scores are computed once and held, float64; standardised features are made as they are asked for.
        """
        whole = self.whole
        if features == "all":
            return lambda rows: (values[rows] - whole.mean) / whole.scale
        components = self.raw if features == "pca_raw" else whole
        scores = replace(components, loadings=components.loadings[: self.kept]).scores(values)
        return lambda rows: scores[rows]


def trainings(folds: Sequence[Gram], features: int, kept: int) -> list[Training | None]:
    """Make the training set of each fold: all others.

    Parameters
    ----------
    folds : sequence of Gram
        Of each fold's rows.
    features : int
        Columns of the Grams that are features; the rest are targets.
    kept : int
        Principal components of the reduced sets.
    """
    return [_without(folds, {at}, features, kept) for at in range(len(folds))]


def _without(folds: Sequence[Gram], left_out: set[int], features: int, kept: int) -> Training | None:
    rest = [fold for at, fold in enumerate(folds) if at not in left_out]
    return Training.of(total(rest), features, kept) if rest else None


def ols(trained: Sequence[Training | None], folds: Sequence[Gram], features: int) -> dict[FeatureSet, Floats]:
    """Determine held-out R2 of least squares.

    Parameters
    ----------
    trained : sequence of Training or None
        Of each fold.
    folds : sequence of Gram
    features : int
        Columns of the Grams that are features.

    Returns
    -------
    dict
        For each set of features float64 ndarray[fold, target]; NaN where it is not defined.
    """
    r2 = _unknown(folds, features)
    for at, (training, held) in enumerate(zip(trained, folds, strict=True)):
        if training and held.count:
            for name in SETS:
                r2[name][at] = training.fitted(name).r2(held)
    return r2


def ridge(
    trained: Sequence[Training | None], folds: Sequence[Gram], features: int, kept: int
) -> tuple[dict[FeatureSet, Floats], dict[FeatureSet, Floats]]:
    """Determine held-out R2 of ridge, as `ols` does, and the penalties, of the same shape.

    In each training set the penalty is that of `ALPHAS` with the least squared error in a cross-validation by
    the folds that are left; of equal ones the smallest.
    """
    r2, alphas = _unknown(folds, features), _unknown(folds, features)
    for at, (training, held) in enumerate(zip(trained, folds, strict=True)):
        if training and held.count:
            chosen = penalties(folds, {at}, features, kept)
            for name in SETS:
                alphas[name][at] = chosen[name]
                for alpha in np.unique(chosen[name]):
                    to = chosen[name] == alpha
                    r2[name][at, to] = training.fitted(name, alpha).r2(held)[to]
    return r2, alphas


def _unknown(folds: Sequence[Gram], features: int) -> dict[FeatureSet, Floats]:
    return {name: np.full((len(folds), len(folds[0].mean) - features), np.nan) for name in SETS}


def penalties(
    folds: Sequence[Gram], left_out: set[int], features: int, kept: int
) -> dict[FeatureSet, Floats]:
    """Choose a penalty for each target by cross-validation over the folds that are not left out."""
    errors = {name: np.zeros((len(ALPHAS), len(folds[0].mean) - features)) for name in SETS}
    for at, held in enumerate(folds):
        if at in left_out or not held.count:
            continue
        if training := _without(folds, {*left_out, at}, features, kept):
            for name in SETS:
                for row, alpha in enumerate(ALPHAS):
                    errors[name][row] += training.fitted(name, alpha).errors(held)
    return {name: np.array(ALPHAS)[errors[name].argmin(axis=0)] for name in SETS}


# ------------------------------------------------------------------ boosting


def boosted(
    prepare: Callable[[int], Prepared],
    observed: Floats,
    labels: npt.NDArray[np.int64],
    folds: int,
    seed: int,
) -> list[float]:
    """Determine held-out R2 of gradient boosting for each fold; NaN where it is not defined.

    Parameters
    ----------
    prepare : callable
        From the number of a fold to what prepares rows as its training set does.
    observed : float64 ndarray[row]
    labels : int64 ndarray[row]
        Fold of each row; -1 for none.
    folds, seed : int
    """

    def r2(fold: int) -> float:
        trained, held = np.flatnonzero((labels >= 0) & (labels != fold)), np.flatnonzero(labels == fold)
        if len(held) < 2 or np.ptp(observed[held]) == 0:
            return float("nan")
        predicted = boost(prepare(fold), observed, learned(trained, seed), held, seed)
        return float(r2_score(observed[held], predicted))

    return [r2(fold) for fold in range(folds)]


def boost(ready: Prepared, observed: Floats, trained: RowNumbers, held: RowNumbers, seed: int) -> Floats:
    """Fit scikit-learn's histogram gradient boosting to some rows; predict others: float64 ndarray[held]."""
    with growing(trained):
        model = HistGradientBoostingRegressor(random_state=seed).fit(ready(trained), observed[trained])
        return np.concatenate([model.predict(ready(rows)) for rows in batches(held)])


def growing(trained: RowNumbers) -> threadpool_limits:
    """Grow trees of few rows on one thread: several would wait for each other longer than they work."""
    return threadpool_limits(1 if len(trained) < BATCH else None, "openmp")


def learned(trained: RowNumbers, seed: int) -> RowNumbers:
    """Draw the rows that boosting learns from: all, or `LEARNED` of them, in their order."""
    if len(trained) <= LEARNED:
        return trained
    return np.sort(np.random.default_rng(seed).choice(trained, LEARNED, replace=False))


def batches(rows: RowNumbers, size: int = BATCH) -> Iterator[RowNumbers]:
    """Cut rows into batches."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
