"""Charts as plain values: where bars, whiskers, ticks and curves stand, in per cent of their box.

Knows numbers and scales; knows neither HTML nor what is measured. The page's
templates draw them, and write the numbers beside or behind them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from zonal.findings.table import Floats

BINS = 48
"""Columns of a histogram."""

LOWEST = -1.0
"""Where an axis of R2 ends at the left, whatever the figures: below it a model is worthless anyhow."""


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear axis.

    Parameters
    ----------
    low, high : float
    """

    low: float
    high: float

    @classmethod
    def of_scores(cls, values: Sequence[float | None]) -> Scale:
        """From 0, or the lowest value in quarters, to 1."""
        lowest = min((value for value in values if value is not None), default=0.0)
        return cls(max(LOWEST, np.floor(min(lowest, 0.0) * 4) / 4), 1.0)

    def at(self, value: float) -> float:
        """Per cent of the box's width; what lies outside is put at its edge."""
        share = (value - self.low) / (self.high - self.low)
        return round(100 * min(max(share, 0.0), 1.0), 2)

    @property
    def zero(self) -> float:
        """Where 0 is, per cent."""
        return self.at(0.0)

    @property
    def quarters(self) -> tuple[tuple[float, float], ...]:
        """Ticks of an axis of scores: each quarter and where it is, per cent."""
        first, last = round(4 * self.low), round(4 * self.high)
        return tuple((step / 4, self.at(step / 4)) for step in range(first, last + 1))


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar from 0 to a value, with its interval.

    Parameters
    ----------
    label, kind : str
        What it is; ``kind`` names its colour.
    value, low, high : float or None
    left, width : float
        Per cent.
    whisker : (float, float) or None
        Left and width, per cent.
    mark : float or None
        Where another figure stands, to compare with, per cent.
    """

    label: str
    kind: str
    value: float | None
    low: float | None
    high: float | None
    left: float
    width: float
    whisker: tuple[float, float] | None
    mark: float | None


def bar(
    scale: Scale,
    label: str,
    kind: str,
    value: float | None,
    low: float | None = None,
    high: float | None = None,
    mark: float | None = None,
) -> Bar:
    """Place a bar; one without a value has no width. `mark` is another value on the same scale."""
    ends = sorted((scale.zero, scale.at(value))) if value is not None else [scale.zero, scale.zero]
    whisker = None
    if low is not None and high is not None:
        whisker = (scale.at(low), round(scale.at(high) - scale.at(low), 2))
    width = round(ends[1] - ends[0], 2)
    return Bar(
        label, kind, value, low, high, ends[0], width, whisker, None if mark is None else scale.at(mark)
    )


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts in equal columns.

    Parameters
    ----------
    name, kind : str
        What is counted; ``kind`` names its colour.
    rows : int
        Finite values.
    edges : tuple of float
        Of the columns, one more than there are; values beyond the ends are counted in the outer columns.
    logarithmic : bool
        Whether columns are equal in the logarithm.
    counts : tuple of int
    median : float
    """

    name: str
    kind: str
    rows: int
    edges: tuple[float, ...]
    logarithmic: bool
    counts: tuple[int, ...]
    median: float

    @property
    def columns(self) -> str:
        """The columns as an SVG path, in a box of 100 by 100, y down."""
        wide, most = 100 / len(self.counts), max(self.counts)
        return "".join(
            f"M{at * wide:.2f} 100V{100 - 100 * count / most:.2f}h{0.86 * wide:.2f}V100z"
            for at, count in enumerate(self.counts)
            if count
        )

    @property
    def median_at(self) -> float:
        """Where the median is, per cent."""
        return self._at(self.median)

    @property
    def ticks(self) -> tuple[tuple[float, float], ...]:
        """Round values inside the axis and where they are, per cent."""
        low, high = self.edges[0], self.edges[-1]
        values = powers(low, high) if self.logarithmic else steps(low, high)
        return tuple((value, self._at(value)) for value in values)

    def _at(self, value: float) -> float:
        scale = math.log if self.logarithmic else float
        low, high, middle = (scale(value) for value in (self.edges[0], self.edges[-1], value))
        return round(100 * min(max((middle - low) / (high - low), 0.0), 1.0), 2)


def histogram(
    name: str,
    values: Floats,
    *,
    kind: str = "plain",
    logarithmic: bool = False,
    ends: tuple[float, float] | None = None,
) -> Histogram | None:
    """Count values in columns; None where there is none to count.

    Parameters
    ----------
    name, kind : str
    values : float64 ndarray[row]
        What is not finite counts for nothing; nor does what is not positive, if `logarithmic`.
    logarithmic : bool
    ends : tuple of float, optional
        Of the axis; None for the smallest and largest value.
    """
    values = values[np.isfinite(values) & ((values > 0) | (not logarithmic))]
    if not len(values):
        return None
    low, high = ends or (float(values.min()), float(values.max()))
    if low == high:
        low, high = (low / 2, low * 2) if logarithmic else (low - 0.5, low + 0.5)
    edges = np.geomspace(low, high, BINS + 1) if logarithmic else np.linspace(low, high, BINS + 1)
    edges[0], edges[-1] = low, high
    counts, _ = np.histogram(np.clip(values, low, high), edges)
    median = float(np.median(values))
    return Histogram(
        name, kind, len(values), tuple(edges.tolist()), logarithmic, tuple(counts.tolist()), median
    )


def steps(low: float, high: float) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten from `low` to `high`: two to six of them."""
    step = nice_length((high - low) / 2)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{number * step:.12g}") for number in range(first, last + 1)]


def powers(low: float, high: float) -> list[float]:
    """Powers of ten from `low` to `high`, at most six; where there are few, more values between them."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    tens = [float(f"1e{power}") for power in exponents if low <= float(f"1e{power}") <= high]
    if len(tens) > 2:
        return tens[:: math.ceil(len(tens) / 6)]
    finer = [float(f"{step}e{power}") for power in exponents for step in (1, 2, 5)]
    inside = [value for value in finer if low <= value <= high]
    return inside if len(inside) > 1 else steps(low, high)


@dataclass(frozen=True, slots=True)
class Scree:
    """Shares of the variance, component by component.

    Parameters
    ----------
    shares : tuple of float
        Of the first components.
    marked : int
        How many of them the models take.
    """

    shares: tuple[float, ...]
    marked: int

    @property
    def rows(self) -> tuple[tuple[int, float, float], ...]:
        """Number from 1, share, and share so far."""
        return tuple(
            (number, share, together)
            for number, (share, together) in enumerate(
                zip(self.shares, accumulate(self.shares), strict=True), 1
            )
        )

    @property
    def columns(self) -> tuple[str, str]:
        """Two SVG paths in a box of 100 by 100, y down: the components marked, and the others."""
        wide = 100 / len(self.shares)
        drawn = [
            f"M{(at + 0.15) * wide:.2f} 100V{100 - 100 * share:.2f}h{0.7 * wide:.2f}V100z"
            for at, share in enumerate(self.shares)
        ]
        return "".join(drawn[: self.marked]), "".join(drawn[self.marked :])

    @property
    def together(self) -> str:
        """The shares so far as points of an SVG polyline in the same box."""
        wide = 100 / len(self.shares)
        return " ".join(
            f"{(number - 0.5) * wide:.2f},{100 - 100 * together:.2f}" for number, _, together in self.rows
        )


def nice_length(longest: float) -> float:
    """Find the longest of 1, 2, 5, 10, ... (and 0.1, 0.2, ...) that is at most `longest`."""
    power = 10.0 ** np.floor(np.log10(longest))
    return float(max(step * power for step in (1, 2, 5) if step * power <= longest * (1 + 1e-9)))


RAMP = ("#440154", "#3b528b", "#21918c", "#5ec962", "#fde725")
"""Viridis in five steps, from 0 to 1: even in lightness, and told apart by the colour-blind."""


def ramp(values: Floats) -> npt.NDArray[np.uint8]:
    """Colours, uint8 ndarray[..., 4], of values from 0 to 1, float64 ndarray[...]; NaN is transparent."""
    stops = np.array([[int(text[at : at + 2], 16) for at in (1, 3, 5)] for text in RAMP], float)
    places = np.linspace(0, 1, len(stops))
    known = np.clip(np.nan_to_num(values), 0, 1)
    channels = [np.interp(known, places, stops[:, channel]) for channel in range(3)]
    alpha = np.where(np.isfinite(values), 255.0, 0.0)
    return np.asarray(np.rint(np.stack([*channels, alpha], axis=-1)), np.uint8)
