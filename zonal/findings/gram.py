"""Count, means and co-moments of many columns: mergeable, and enough for every linear model.

Knows matrices; knows nothing of what the columns mean. One pass over the rows
gives ordinary least squares, ridge and principal components of any union of
folds, in float64 and without another look at the rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zonal.findings.table import Floats

BATCH = 65_536
"""Rows turned into float64 at once."""


@dataclass(frozen=True, slots=True)
class Gram:
    """Count, means and centred co-moments of columns.

    Parameters
    ----------
    count : int
        Rows.
    mean : float64 ndarray[column]
    scatter : float64 ndarray[column, column]
        ``sum (x - mean) (x - mean)^T``; symmetric.

    Notes
    -----
    Merging is Chan, Golub and LeVeque's (1979): ``S = S1 + S2 + n1 n2 / n d d^T`` with d the difference of
    the means.
    """

    count: int
    mean: Floats
    scatter: Floats

    @classmethod
    def empty(cls, columns: int) -> Gram:
        """Of no rows."""
        return cls(0, np.zeros(columns), np.zeros((columns, columns)))

    @classmethod
    def of(cls, values: npt.NDArray[np.floating]) -> Gram:
        """Of ndarray[row, column], finite."""
        total = cls.empty(values.shape[1])
        for start in range(0, len(values), BATCH):
            batch = np.asarray(values[start : start + BATCH], float)
            mean = batch.mean(axis=0)
            centred = batch - mean
            total += cls(len(batch), mean, centred.T @ centred)
        return total

    def __add__(self, other: Gram) -> Gram:
        """Of the rows of both."""
        if not self.count or not other.count:
            return other if other.count else self
        count = self.count + other.count
        gap = other.mean - self.mean
        mean = self.mean + gap * (other.count / count)
        between = np.outer(gap, gap) * (self.count * other.count / count)
        return Gram(count, mean, self.scatter + other.scatter + between)

    def select(self, columns: npt.ArrayLike) -> Gram:
        """Of some of the columns, in that order."""
        kept = np.asarray(columns, np.intp)
        return Gram(self.count, self.mean[kept], self.scatter[kept[:, None], kept])

    @property
    def variance(self) -> Floats:
        """Population variance of each column."""
        return np.maximum(np.diag(self.scatter), 0.0) / max(self.count, 1)
