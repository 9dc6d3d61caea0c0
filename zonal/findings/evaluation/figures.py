"""Figures with their 95 % intervals: shares, correlations, R2, scores over folds and their differences.

Knows formulas and where they come from; knows nothing of tables, models or files.
Every interval but those over whole groups takes rows as independent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import optimize, stats

from zonal.findings.evaluation.schema import Figure, Score
from zonal.findings.table import Floats

LEVEL = 0.95
"""Of every interval."""

_TAIL = (1 + LEVEL) / 2
_NORMAL = float(stats.norm.ppf(_TAIL))


def finite(value: float) -> float | None:
    """Return a number as JSON has it: None where it is NaN or infinite."""
    return float(value) if math.isfinite(value) else None


def share(count: int, of: int) -> Figure:
    """Give a share of rows its interval: Wilson's (1927)."""
    interval = stats.binomtest(count, of).proportion_ci(LEVEL, "wilson")
    return Figure(value=count / of, low=float(interval.low), high=float(interval.high))


def correlation(r: float, rows: int) -> Figure:
    """Give Pearson's r its interval: Fisher's z (1921), of standard error ``1 / sqrt(rows - 3)``."""
    if not math.isfinite(r):
        return Figure(value=None)
    r = min(max(r, -1.0), 1.0)
    if rows <= 3 or abs(r) == 1:
        return Figure(value=r)
    z, wide = math.atanh(r), _NORMAL / math.sqrt(rows - 3)
    return Figure(value=r, low=math.tanh(z - wide), high=math.tanh(z + wide))


def in_sample_r2(r2: float, rows: int, terms: float) -> Figure:
    """Give an in-sample R2 the interval of the population's R2.

    Parameters
    ----------
    r2 : float
        Of a linear model on the rows it was fitted to.
    rows : int
    terms : float
        Degrees of freedom of the model, the intercept left out.

    Notes
    -----
    With p terms, n rows, w = n - 1 - p and t = rho2 / (1 - rho2) of the population, of jointly normal
    variables ``R2 / (1 - R2)`` is nearly ``(p + (n - 1) t) / w`` times an F of v and w degrees of freedom,
    ``v = (p + (n - 1) t)^2 / (p + 2 (n - 1) t + (n - 1) t^2)``: two moments are matched (Gurland 1968,
    Journal of the Royal Statistical Society B 30; Lee 1971, the same journal 33; Helland 1987, Biometrics
    43). The ends are the rho2 under which a larger, and a smaller, R2 has a chance of 2.5 %. The in-sample
    R2 of many features lies above the population's: it may lie above its interval.
    """
    free = rows - 1 - terms
    if not (math.isfinite(r2) and free > 0 and terms > 0):
        return Figure(value=finite(r2))
    if r2 >= 1:
        return Figure(value=float(r2), low=1.0, high=1.0)
    ratio = max(r2, 0.0) / (1 - max(r2, 0.0))

    def below(rho2: float) -> float:
        """Chance of a smaller R2."""
        t = rho2 / (1 - rho2)
        top = terms + (rows - 1) * t
        v = top**2 / (terms + 2 * (rows - 1) * t + (rows - 1) * t**2)
        return float(stats.f.cdf(ratio * free / top, v, free))

    def end(chance: float) -> float:
        if below(0.0) <= chance:
            return 0.0
        return float(optimize.brentq(lambda rho2: below(rho2) - chance, 0.0, 1 - 1e-12, xtol=1e-12))

    return Figure(value=float(r2), low=end(_TAIL), high=end(1 - _TAIL))


def r2_of_rows(observed: Floats, predicted: Floats) -> Figure:
    """Give the R2 of predictions its interval, the model taken as given.

    By the delta method: R2 is ``1 - mean(e^2) / var(y)``, and a row of error e and distance d from the mean
    moves it by ``((1 - R2) d^2 - e^2) / var(y)``.
    """
    square = (observed - predicted) ** 2
    distance = (observed - observed.mean()) ** 2
    spread = distance.mean()
    if not spread > 0:
        return Figure(value=None)
    r2 = 1 - float(square.mean() / spread)
    moved = ((1 - r2) * distance - square) / spread
    wide = _NORMAL * float(moved.std()) / math.sqrt(len(moved))
    return Figure(value=r2, low=r2 - wide, high=min(r2 + wide, 1.0))


def score(folds: Sequence[float], sizes: Sequence[int], least: float = -math.inf) -> Score:
    """Put a measure's values on the folds together.

    Parameters
    ----------
    folds : sequence of float
        NaN where it is not defined; such folds count for nothing.
    sizes : sequence of int
        Rows of each fold.
    least : float
        That the measure can be; it is 1 at the most. The interval ends there.

    Notes
    -----
    The interval is Nadeau and Bengio's (2003, Machine Learning 52): the variance of the mean of K folds is
    ``(1 / K + held / trained) sd^2``, for training sets overlap; held / trained is the mean over the folds,
    ``1 / (K - 1)`` of equal ones. t has K - 1 degrees of freedom.
    """
    known = np.array([value for value in folds if math.isfinite(value)])
    values = tuple(finite(value) for value in folds)
    if len(known) < 2:
        mean = float(known[0]) if len(known) else None
        return Score(mean=mean, sd=None, low=None, high=None, folds=values)
    mean, sd = float(known.mean()), float(known.std(ddof=1))
    wide = float(stats.t.ppf(_TAIL, len(known) - 1)) * math.sqrt(_inflation(len(known), sizes)) * sd
    return Score(mean=mean, sd=sd, low=max(mean - wide, least), high=min(mean + wide, 1.0), folds=values)


def _inflation(known: int, sizes: Sequence[int]) -> float:
    """Variance of the mean of so many folds, as a share of their own."""
    held = np.array(sizes, float)
    return 1 / known + float(np.mean(held / (held.sum() - held)))


def gap(
    random: Score | None, spatial: Score | None, sizes: tuple[Sequence[int], Sequence[int]]
) -> Figure | None:
    """Subtract a spatial score from a random one.

    Parameters
    ----------
    random, spatial : Score, optional
        None where there are no such folds: then there is no gap.
    sizes : tuple of sequence of int
        Rows of the folds of each.

    Notes
    -----
    The interval is Welch's (1947): the variances of the two means, each as `score` has it, add up; degrees of
    freedom are Satterthwaite's. Both are measured on the same rows, so they rise and fall together a little,
    and the interval is rather too wide.
    """
    if random is None or spatial is None or random.mean is None or spatial.mean is None:
        return None
    value = random.mean - spatial.mean
    if random.sd is None or spatial.sd is None:
        return Figure(value=value)
    parts, freedoms = [], []
    for side, rows in zip((random, spatial), sizes, strict=True):
        known = sum(fold is not None for fold in side.folds)
        parts.append(_inflation(known, rows) * (side.sd or 0.0) ** 2)
        freedoms.append(known - 1)
    total = sum(parts)
    if total == 0:
        return Figure(value=value, low=value, high=value)
    freedom = total**2 / sum(part**2 / free for part, free in zip(parts, freedoms, strict=True))
    wide = float(stats.t.ppf(_TAIL, freedom)) * math.sqrt(total)
    return Figure(value=value, low=value - wide, high=value + wide)


def jackknife(whole: float, without: Sequence[float]) -> tuple[float | None, float | None]:
    """Return the interval of a figure from its values without one of K equal parts of the rows each.

    The delete-a-group jackknife (Shao and Tu 1995, The Jackknife and Bootstrap): the variance is
    ``(K - 1) / K sum (value - mean)^2``; t has K - 1 degrees of freedom.
    """
    count = len(without)
    if count < 2:
        return None, None
    wide = float(stats.t.ppf(_TAIL, count - 1)) * math.sqrt((count - 1) * float(np.var(without)))
    return max(whole - wide, 0.0), min(whole + wide, 1.0)
