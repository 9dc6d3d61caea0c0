"""Mergeable moments of zones and bands, and the statistics they finish into.

Knows pixels (as arrays), coverage and arithmetic in a fixed order; knows no
file, no geometry and no task. A new statistic is one entry in `STATISTICS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt

from zonal.stats import kernels
from zonal.stats.coverage import Coverage

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

AEF_SCALE = 1.0 / 127.5**2
"""AEF codes q stand for v = sign(q) (q / 127.5)^2 = u * AEF_SCALE with the integer u = q |q|."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What merged moments offer to a statistic, for z zones and b bands, in value units.

    Parameters
    ----------
    weight, mean, variance : float64 ndarray[zone, band]
        Sum of coverage over valid pixels; weighted mean; population variance.
    low, high : float64 ndarray[zone, band] or None
        Extremes over pixels of any positive coverage, where they were asked for.
    """

    weight: Floats
    mean: Floats
    variance: Floats
    low: Floats | None
    high: Floats | None


STATISTICS: dict[str, Callable[[Summary], Floats]] = {
    "mean": lambda s: s.mean,
    "std": lambda s: np.sqrt(s.variance),
    "min": lambda s: _asked(s.low),
    "max": lambda s: _asked(s.high),
    "sum": lambda s: s.mean * s.weight,
    "count": lambda s: s.weight,
}
"""Name -> finishing formula. Zones of weight 0 become null afterwards, whatever it gives."""

EXTREMES = frozenset({"min", "max"})
"""Statistics that need `low` and `high`."""


def _asked(extreme: Floats | None) -> Floats:
    if extreme is None:
        raise ValueError("moments were accumulated without extremes")
    return extreme


@dataclass(frozen=True, slots=True)
class Statistics:
    """Finished statistics of a run of zones.

    Parameters
    ----------
    pixel_count : float64 ndarray[zone]
        Sum of coverage over pixels valid in any band.
    tile_count : int32 ndarray[zone]
        Distinct tiles that hold some of the zone, whether or not its pixels are valid.
    columns : dict of str to float64 ndarray[zone, band]
        One array for each statistic asked for; NaN where the weight is 0
        (counts and sums are then 0 and NaN).
    band_count : float64 ndarray[zone, band] or None
        Sum of coverage over each band's valid pixels, where bands differ in nodata.
    """

    pixel_count: Floats
    tile_count: npt.NDArray[np.int32]
    columns: dict[str, Floats]
    band_count: Floats | None


@dataclass(frozen=True, slots=True)
class Moments(ABC):
    """Partial moments: one row for each (zone, tile, chunk, piece); rows only ever merge.

    Parameters
    ----------
    zone, tile, chunk, piece : int64 ndarray[k]
        Where the row is from: the key of the merge order.
    """

    zone: Ints
    tile: Ints
    chunk: Ints
    piece: Ints

    def take(self, rows: npt.NDArray[Any]) -> Self:
        """Return some rows (indices or mask); these moments themselves where a mask keeps them all."""
        if rows.dtype == np.bool_:
            if rows.all():
                return self
            rows = np.flatnonzero(rows)
        values: list[Any] = [getattr(self, f.name) for f in fields(self)]
        taken: list[Any] = [None if v is None else v.take(rows, axis=0) for v in values]
        return type(self)(*taken)

    def __len__(self) -> int:
        return len(self.zone)

    def of_zones(self, start: int, stop: int) -> Self:
        """Return the rows of zones start..stop."""
        return self.take((self.zone >= start) & (self.zone < stop))

    def order(self) -> Ints:
        """Return the rows' numbers sorted by (zone, tile, chunk, piece).

        Tiles are numbered by (EPSG, path), so this is the order in which the
        contract merges, whatever order the rows arrived in.
        """
        return np.lexsort((self.piece, self.chunk, self.tile, self.zone))

    def slots(self, start: int, stop: int) -> Ints:
        """Return the zone of each row counted from `start`; ValueError if one lies outside start..stop."""
        slots = self.zone - start
        # The loops that merge index memory by these numbers.
        if ((slots < 0) | (slots >= stop - start)).any():
            raise ValueError(f"moments of zones outside {start}..{stop}: were they split by part?")
        return slots

    @abstractmethod
    def statistics(self, start: int, stop: int, stats: Sequence[str]) -> Statistics:
        """Merge the rows of zones start..stop in the contract's order and finish them."""


M = TypeVar("M", bound=Moments)


def concat(moments: Sequence[M]) -> M:
    """Join partial moments of one kind into one; their order does not matter later."""
    kind = type(moments[0])
    columns: list[Any] = []
    for f in fields(kind):
        arrays = [getattr(some, f.name) for some in moments]
        columns.append(None if arrays[0] is None else np.concatenate(arrays))
    return kind(*columns)


@dataclass(frozen=True, slots=True)
class CodeMoments(Moments):
    """Exact moments of AEF codes, in units of u = q |q|; k rows, b bands.

    Parameters
    ----------
    count : int64 ndarray[k]
        Fully covered valid pixels.
    full : int64 ndarray[k, 2, b]
        Sums of u and of u^2 over them: exact.
    weight : float64 ndarray[k]
        Sum of coverage over valid edge pixels.
    edge : float64 ndarray[k, 2, b]
        Coverage-weighted sums of u and of u^2 over them, row by row.
    low, high : int8 ndarray[k, b] or None
        Extreme codes over all of them.
    """

    count: Ints
    full: Ints
    weight: Floats
    edge: Floats
    low: npt.NDArray[np.int8] | None
    high: npt.NDArray[np.int8] | None

    def statistics(self, start: int, stop: int, stats: Sequence[str]) -> Statistics:
        """Merge the rows of zones start..stop in the contract's order and finish them."""
        order, at = self.order(), self.slots(start, stop)
        zones, bands = stop - start, self.full.shape[2]
        count, weight = np.zeros(zones, np.int64), np.zeros(zones)
        full, edge = np.zeros((zones, 2, bands), np.int64), np.zeros((zones, 2, bands))
        kernels.merge_codes(
            order, at, self.count, self.full, self.weight, self.edge, count, full, weight, edge
        )
        total = count + weight
        mean, variance = np.empty((2, zones, bands))
        kernels.finish_codes(total, full, edge, AEF_SCALE, AEF_SCALE**2, mean, variance)
        low = high = None
        if self.low is not None and self.high is not None:
            lows, highs = np.full((zones, bands), 127, np.int8), np.full((zones, bands), -128, np.int8)
            kernels.merge_extremes(order, at, self.low, self.high, lows, highs)
            low, high = dequantise(lows), dequantise(highs)
        summary = Summary(
            weight=np.broadcast_to(total[:, None], mean.shape),
            mean=mean,
            variance=variance,
            low=low,
            high=high,
        )
        return Statistics(
            pixel_count=total,
            tile_count=_tile_count(at[order], self.tile[order], zones),
            columns=_finish(summary, stats),
            band_count=None,
        )


@dataclass(frozen=True, slots=True)
class ValueMoments(Moments):
    """Moments of any values, in float64, merged by Chan's formula; k rows, b bands.

    Parameters
    ----------
    pixels : float64 ndarray[k]
        Sum of coverage over pixels valid in any band.
    weight, mean, squares : float64 ndarray[k, b]
        Of each band's valid pixels: sum of coverage, weighted mean, weighted
        sum of squared deviations from it.
    low, high : float64 ndarray[k, b] or None
        Extremes.
    """

    pixels: Floats
    weight: Floats
    mean: Floats
    squares: Floats
    low: Floats | None
    high: Floats | None

    def statistics(self, start: int, stop: int, stats: Sequence[str]) -> Statistics:
        """Merge the rows of zones start..stop in the contract's order and finish them."""
        order, at = self.order(), self.slots(start, stop)
        zones, bands = stop - start, self.weight.shape[1]
        pixels = np.zeros(zones)
        weight, mean, squares = np.zeros((3, zones, bands))
        # ufunc.at adds in the order of its indices.
        np.add.at(pixels, at[order], self.pixels[order])
        kernels.merge_values(order, at, self.weight, self.mean, self.squares, weight, mean, squares)
        low = high = None
        if self.low is not None and self.high is not None:
            low, high = np.full((zones, bands), np.inf), np.full((zones, bands), -np.inf)
            kernels.merge_extremes(order, at, self.low, self.high, low, high)
        variance = np.maximum(_divide(squares, weight), 0.0)
        return Statistics(
            pixel_count=pixels,
            tile_count=_tile_count(at[order], self.tile[order], zones),
            columns=_finish(Summary(weight, np.where(weight > 0, mean, np.nan), variance, low, high), stats),
            band_count=weight,
        )


def nothing(zones: int, bands: int, stats: Sequence[str], *, by_band: bool) -> Statistics:
    """Statistics of zones of which no chunk holds a pixel; `by_band` as value moments would have it."""
    weight = np.zeros((zones, bands))
    blank = np.full((zones, bands), np.nan)
    return Statistics(
        pixel_count=np.zeros(zones),
        tile_count=np.zeros(zones, np.int32),
        columns=_finish(Summary(weight, blank, blank, blank, blank), stats),
        band_count=weight if by_band else None,
    )


def dequantise(codes: npt.NDArray[np.int8]) -> Floats:
    """AEF codes to values: v = sign(q) (q / 127.5)^2 (AEF v1 product description)."""
    q = codes.astype(np.float64)
    return q * np.abs(q) * AEF_SCALE


def accumulate(
    values: npt.NDArray[Any],
    valid: npt.NDArray[np.bool_],
    coverage: Coverage,
    *,
    zone: Ints,
    piece: Ints,
    tile: int,
    chunk: int,
    extremes: bool = False,
    kept: npt.NDArray[np.bool_] | None = None,
) -> Moments:
    """Reduce one chunk to the moments of the pieces on it.

    Parameters
    ----------
    values : ndarray[band, y, x]
        int8 AEF codes (exact integer moments) or float64 values.
    valid : bool ndarray[y, x] or bool ndarray[band, y, x]
        False at nodata; by band only for float64 values.
    coverage : Coverage
        Of the chunk's pieces.
    zone, piece : int64 ndarray[slot]
        Keys of the pieces, by slot of the coverage.
    tile, chunk : int
        Keys of the chunk.
    extremes : bool
        Whether minimum and maximum are wanted: they cost a quarter more for codes, a second pass for values.
    kept : bool ndarray[slot], optional
        Pieces that get a row; those that cover any pixel, valid or not, if None.
        A row without pixels only says that the tile holds some of the zone.

    Returns
    -------
    Moments
        `CodeMoments` or `ValueMoments`, one row for each piece kept.
    """
    reduce = _code_moments if values.dtype == np.int8 else _value_moments
    slots = coverage.zones
    keys = (zone, np.full(slots, tile, np.int64), np.full(slots, chunk, np.int64), piece)
    kept = coverage.covering if kept is None else kept
    return reduce(values, valid, coverage, keys, extremes).take(kept)


Keys = tuple[Ints, Ints, Ints, Ints]


def _code_moments(
    codes: npt.NDArray[np.int8], valid: npt.NDArray[np.bool_], coverage: Coverage, keys: Keys, extremes: bool
) -> Moments:
    zones, bands = coverage.zones, codes.shape[0]
    count, weight = np.zeros(zones, np.int64), np.zeros(zones)
    full, edge = np.zeros((zones, 2, bands), np.int64), np.zeros((zones, 2, bands))
    shape = (zones if extremes else 0), bands
    low, high = np.full(shape, 127, np.int8), np.full(shape, -128, np.int8)
    kernels.sum_codes(
        *(_words(codes), np.require(valid, requirements=["C", "W"])),
        *(*_spans(coverage), *_edges(coverage)),
        *(count, full, weight, edge, low, high),
    )
    extreme = (low, high) if extremes else (None, None)
    return CodeMoments(*keys, count, full, weight, edge, *extreme)


def _words(codes: npt.NDArray[np.int8]) -> npt.NDArray[np.uint64]:
    """Return the codes eight at a time: a view where rows are whole words, else of a copy filled up."""
    short = -codes.shape[2] % 8
    if short:
        codes = np.pad(codes, ((0, 0), (0, 0), (0, short)))
    # What is compiled for one kind of array is compiled anew for another: strided, unaligned, read-only.
    return np.require(np.ascontiguousarray(codes).view(np.uint64), requirements=["A", "W"])


def _value_moments(
    values: Floats, valid: npt.NDArray[np.bool_], coverage: Coverage, keys: Keys, extremes: bool
) -> Moments:
    shape = coverage.zones, values.shape[0]
    by_band = valid if valid.ndim == 3 else valid[None]
    pixels = np.zeros(shape[0])
    weight, mean, squares = np.zeros((3, *shape))
    low = high = None
    kernels.sum_pixels(by_band.any(axis=0), *_spans(coverage), *_edges(coverage), pixels)
    kernels.sum_values(values, by_band, *_spans(coverage), *_edges(coverage), weight, mean, squares)
    if extremes:
        low, high = np.full(shape, np.inf), np.full(shape, -np.inf)
        kernels.extremes(values, by_band, *_spans(coverage), *_edges(coverage)[:2], low, high)
    return ValueMoments(*keys, pixels, weight, mean, squares, low, high)


def _spans(coverage: Coverage) -> tuple[npt.NDArray[Any], ...]:
    return coverage.span_zone, coverage.span_start, coverage.span_length


def _edges(coverage: Coverage) -> tuple[npt.NDArray[Any], ...]:
    return coverage.edge_zone, coverage.edge_pixel, coverage.edge_weight


def _finish(summary: Summary, stats: Sequence[str]) -> dict[str, Floats]:
    """Each statistic asked for, NaN where nothing valid was covered (a count is then 0)."""
    columns = {}
    with np.errstate(invalid="ignore"):
        for name in stats:
            column = STATISTICS[name](summary)
            columns[name] = column if name == "count" else np.where(summary.weight > 0, column, np.nan)
    return columns


def _divide(sums: npt.NDArray[Any], weights: Floats) -> Floats:
    quotient: Floats = np.divide(sums, weights, out=np.full(sums.shape, np.nan), where=weights > 0)
    return quotient


def _tile_count(zone: Ints, tile: Ints, zones: int) -> npt.NDArray[np.int32]:
    """Count each zone's tiles, rows being in order."""
    first = np.ones(len(zone), np.bool_)
    first[1:] = (np.diff(zone) != 0) | (np.diff(tile) != 0)
    return np.bincount(zone[first], minlength=zones).astype(np.int32)
