"""What an evaluation should say, from scikit-learn, NumPy and SciPy alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import BaseCrossValidator, KFold, StratifiedKFold, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

Floats = NDArray[np.float64]
Splits = list[tuple[NDArray[np.intp], NDArray[np.intp]]]


def pipeline(features: str, model: Any, components: int = 10) -> Pipeline:
    """Scaler and components in front of a model, fitted inside each training fold."""
    steps: dict[str, list[Any]] = {
        "all": [StandardScaler()],
        "pca": [StandardScaler(), PCA(components, svd_solver="full")],
        "pca_raw": [PCA(components, svd_solver="full")],
    }
    return make_pipeline(*steps[features], model)


def splits(labels: NDArray[np.integer]) -> Splits:
    """Turn folds' numbers into indices; -1 is in none."""
    return [
        (np.flatnonzero((labels >= 0) & (labels != fold)), np.flatnonzero(labels == fold))
        for fold in range(labels.max() + 1)
    ]


def shuffled(rows: int, folds: int = 5, seed: int = 0) -> Splits:
    splitter: BaseCrossValidator = KFold(folds, shuffle=True, random_state=seed)
    return list(splitter.split(np.zeros(rows)))


def stratified(classes: Floats, folds: int = 5, seed: int = 0) -> Splits:
    return list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(classes, classes))


def dealt(groups: list[Any], folds: int = 5) -> NDArray[np.int64]:
    """Whole groups, the largest first onto the emptiest fold; of equal ones the first by name."""
    names, codes = np.unique(np.asarray(groups), return_inverse=True)
    loads, fold_of = [0] * folds, {}
    sizes = np.bincount(codes)
    for code in sorted(range(len(names)), key=lambda code: (-sizes[code], code)):
        fold_of[code] = loads.index(min(loads))
        loads[fold_of[code]] += int(sizes[code])
    return np.array([fold_of[code] for code in codes])


def in_sample(features: str, x: Floats, y: Floats) -> float:
    return float(pipeline(features, LinearRegression()).fit(x, y).score(x, y))


def held_out(features: str, x: Floats, y: Floats, cv: Splits, model: Any = None) -> Floats:
    return np.asarray(
        cross_val_score(pipeline(features, model or LinearRegression()), x, y, cv=cv, scoring="r2")
    )


def logistic() -> LogisticRegression:
    return LogisticRegression(tol=1e-10, max_iter=20000)


def ridge_penalty(features: str, x: Floats, y: Floats, inner: Splits, alphas: list[float]) -> float:
    """Of the least squared error over inner folds."""
    errors = []
    for alpha in alphas:
        error = 0.0
        for train, test in inner:
            model = pipeline(features, Ridge(alpha)).fit(x[train], y[train])
            error += float(((model.predict(x[test]) - y[test]) ** 2).sum())
        errors.append(error)
    return alphas[int(np.argmin(errors))]


def corrected(values: Floats, sizes: list[int]) -> tuple[float, float]:
    """Nadeau and Bengio's interval of the mean."""
    k, total = len(values), sum(sizes)
    ratio = np.mean([size / (total - size) for size in sizes])
    error = np.sqrt((1 / k + ratio) * np.var(values, ddof=1))
    low, high = stats.t.interval(0.95, k - 1, loc=np.mean(values), scale=error)
    return float(low), float(high)
