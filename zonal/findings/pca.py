"""Principal components of a table's features, and the colours that show three of them.

Knows matrices and percentiles; knows neither files, maps nor clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zonal.errors import UnfitError
from zonal.findings.gram import BATCH, Gram
from zonal.findings.table import Floats

NEGLIGIBLE = 1e-12
"""A feature whose variance is less than this share of its mean square varies by rounding alone."""


@dataclass(frozen=True, slots=True)
class Components:
    """Principal components.

    Parameters
    ----------
    features : tuple of str
    standardized : bool
    mean, scale : float64 ndarray[feature]
        A feature enters as ``(x - mean) / scale``; scale is its standard deviation (ddof 0), or 1.
    loadings : float64 ndarray[component, feature]
        Rows of length 1, by descending variance. The sign of each is such that its largest loading by
        absolute value (the first of equal ones) is positive: scikit-learn's rule.
    variance : float64 ndarray[component]
        Of the scores (ddof 1).
    explained : float64 ndarray[component]
        Share of the whole variance.
    """

    features: tuple[str, ...]
    standardized: bool
    mean: Floats
    scale: Floats
    loadings: Floats
    variance: Floats
    explained: Floats

    def scores(self, values: npt.NDArray[np.floating]) -> Floats:
        """Project ndarray[row, feature] on the components: float64 ndarray[row, component]."""
        scores = np.empty((len(values), len(self.loadings)))
        for start in range(0, len(values), BATCH):
            batch = np.asarray(values[start : start + BATCH], float)
            scores[start : start + BATCH] = ((batch - self.mean) / self.scale) @ self.loadings.T
        return scores


def components_of(
    gram: Gram, features: Sequence[str], *, components: int | None = None, standardize: bool = True
) -> Components:
    """Find principal components from co-moments.

    Parameters
    ----------
    gram : Gram
        Of the features, over at least two rows.
    features : sequence of str
        Their names.
    components : int, optional
        How many to keep; None for all. Never more than there are features, or rows less one.
    standardize : bool
        Divide each feature by its standard deviation. One that does not vary counts for nothing.

    Raises
    ------
    UnfitError
        If there are too few rows, or no feature varies.
    """
    if gram.count < 2:
        raise UnfitError(f"principal components need two zones with statistics; there are {gram.count}")
    variance = gram.variance
    varies = variance > NEGLIGIBLE * (variance + gram.mean**2)
    if not varies.any():
        raise UnfitError(f"none of the {len(features)} features varies: there are no principal components")
    scale = np.where(varies & standardize, np.sqrt(np.where(varies, variance, 1.0)), 1.0)
    weight = np.where(varies, 1.0 / scale, 0.0)
    values, vectors = np.linalg.eigh(gram.scatter * np.outer(weight, weight))
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1].T
    most = min(len(features), gram.count - 1)
    kept = most if components is None else min(components, most)
    loadings = vectors[:kept]
    largest = loadings[np.arange(kept), np.abs(loadings).argmax(axis=1)]
    return Components(
        tuple(features),
        standardize,
        gram.mean,
        scale,
        loadings * np.sign(largest)[:, None],
        values[:kept] / (gram.count - 1),
        values[:kept] / values.sum(),
    )


@dataclass(frozen=True, slots=True)
class Stretch:
    """What becomes the darkest and the brightest of each colour.

    Parameters
    ----------
    low, high : float64 ndarray[channel]
        Scores of the first components: red, green, blue.
    """

    low: Floats
    high: Floats

    @classmethod
    def of(cls, scores: Floats, percentiles: tuple[float, float]) -> Stretch:
        """Take percentiles of the first three components' scores: float64 ndarray[row, component]."""
        low, high = np.percentile(scores[:, :3], percentiles, axis=0)
        return cls(low, high)

    def colours(self, scores: Floats) -> npt.NDArray[np.uint8]:
        """Turn scores into colours, uint8 ndarray[row, 3]; one component is grey, of two blue is 0."""
        width = np.where(self.high > self.low, self.high - self.low, 1.0)
        shown = np.rint(np.clip((scores[:, : len(self.low)] - self.low) / width, 0, 1) * 255).astype(np.uint8)
        if shown.shape[1] == 1:
            return np.repeat(shown, 3, axis=1)
        return np.pad(shown, ((0, 0), (0, 3 - shown.shape[1])))
