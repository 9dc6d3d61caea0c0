"""Rows of a table merged into larger areas: statistics by moments, counts and amounts by addition.

Knows statistic columns and arithmetic in the order of the rows; knows nothing of
files or geometry. One pass over the rows; what is held is one row an area.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from zonal.errors import InputError, UsageError, first_line
from zonal.findings.areas.membership import Areas, Groups
from zonal.findings.table import KINDS, Floats, Table, floats, is_number
from zonal.text import did_you_mean

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

EXTREMES = {"min": np.fmin, "max": np.fmax}
"""How extremes merge; NaN counts for nothing."""

BOOKKEEPING = ("pixel_count", "valid_fraction", "tile_count", "zone_count", "bbox", "geometry")
"""Columns that say how a table was made; of these, an area's are computed or left out."""

ADDITIVE = (
    *(name + end for end in ("20", "10", "") for name in ("ALAND", "AWATER", "POP", "HOUSING")),
    *("POP100", "HU100"),
)
"""Census columns that are amounts: an area's is the sum of its zones'."""


@dataclass(frozen=True, slots=True)
class ColumnRoles:
    """What is done with each column of a table.

    Parameters
    ----------
    own : tuple of str
        Those of `pixel_count`, `valid_fraction` and `zone_count` that are there.
    bands : dict of str to tuple of str
        The statistics of each band, named ``{band}_{kind}``.
    statistics, sums, others : tuple of str
        In the table's order. `others` are kept where they say the same of a whole area.
    """

    own: tuple[str, ...]
    bands: dict[str, tuple[str, ...]]
    statistics: tuple[str, ...]
    sums: tuple[str, ...]
    others: tuple[str, ...]

    @classmethod
    def of(cls, table: Table, without: Collection[str], sums: Sequence[str], *, ours: bool) -> ColumnRoles:
        """Tell the columns of a table apart.

        Parameters
        ----------
        table : Table
        without : collection of str
            Columns to leave alone: the areas' ids, the geometry and what covers it.
        sums : sequence of str
            Columns to add up, beside `ADDITIVE`.
        ours : bool
            Whether zonal wrote the table. Then statistics come after `pixel_count`, and an attribute of the
            zones that is named like one is none.

        Raises
        ------
        UsageError
            If a column to add up is absent, no number, or merged in another way.
        InputError
            If the table has no statistics, or lacks what merging them needs.
        """
        names = table.schema.names
        numeric = {field.name for field in table.schema if is_number(field.type)}
        own = tuple(name for name in ("pixel_count", "valid_fraction", "zone_count") if name in numeric)
        first = names.index("pixel_count") if ours and "pixel_count" in own else 0
        alone = {*BOOKKEEPING, *without}
        bands: dict[str, tuple[str, ...]] = {}
        statistics = []
        for name in names[first:]:
            band, _, kind = name.rpartition("_")
            if band and kind in KINDS and name in numeric and name not in alone:
                bands[band] = (*bands.get(band, ()), kind)
                statistics.append(name)
        left = [name for name in names if name not in alone and name not in statistics]
        for name in sums:
            if name not in names:
                raise UsageError(f"--sum {name}: {table.name} has no such column{did_you_mean(name, left)}")
            if name not in left:
                raise UsageError(f"--sum {name}: this column is merged in its own way; leave it out")
            if name not in numeric:
                raise UsageError(f"--sum {name}: it holds {table.schema.field(name).type}, expected numbers")
        added = [name for name in left if name in sums or (name in ADDITIVE and name in numeric)]
        others = [name for name in left if name not in added]
        columns = cls(own, bands, tuple(statistics), tuple(added), tuple(others))
        columns._check(table.name)
        return columns

    def _check(self, table: str) -> None:
        if not self.bands:
            raise InputError(
                f"{table}: no column is a statistic, expected names such as A00_mean and A00_std"
            )
        for band, kinds in self.bands.items():
            if "std" in kinds and "mean" not in kinds:
                raise InputError(
                    f"{table}: {band}_std cannot be merged without {band}_mean, which is not there; "
                    "make the table with --stats mean,std"
                )
            if "mean" in kinds and "count" not in kinds and "pixel_count" not in self.own:
                raise InputError(
                    f"{table}: {band}_mean cannot be merged without weights; "
                    f"expected a column pixel_count or {band}_count"
                )


@dataclass(frozen=True, slots=True)
class Total:
    """A sum for each area; what is missing counts for nothing.

    Parameters
    ----------
    value : int64 or float64 ndarray[area]
    numbers : int64 ndarray[area]
        How many values it is the sum of.
    """

    value: npt.NDArray[Any]
    numbers: Ints

    @classmethod
    def of(cls, areas: int, kind: npt.DTypeLike = float) -> Total:
        """Of nothing yet."""
        return cls(np.zeros(areas, kind), np.zeros(areas, np.int64))

    def add(self, groups: Groups, values: npt.NDArray[Any], there: Flags) -> None:
        """Add an ndarray[row of the batch], where it is there."""
        self.value[groups.area] += groups.reduce(np.add, np.where(there, values, 0))
        self.numbers[groups.area] += groups.reduce(np.add, there.astype(np.int64))


@dataclass(frozen=True, slots=True)
class AreaMoments:
    """Weight, mean and scatter of a band in each area: rows merge as if their pixels did.

    Parameters
    ----------
    weight, mean, scatter : float64 ndarray[area]
        ``sum w``, ``sum w v / sum w`` and ``sum w (v - mean)^2`` over pixels of value v and weight w.

    Notes
    -----
    A row of weight w and standard deviation s has the scatter ``w s^2``. Merging is Chan, Golub and LeVeque's
    (1979, 1983), for weights as West's (1979): ``S = S1 + S2 + d^2 w1 w2 / (w1 + w2)``, d the difference of
    the means. Squares of means are never subtracted: of values stored as float32 nothing would be left.
    """

    weight: Floats
    mean: Floats
    scatter: Floats

    @classmethod
    def of(cls, areas: int) -> AreaMoments:
        """Of nothing yet."""
        return cls(np.zeros(areas), np.zeros(areas), np.zeros(areas))

    def add(self, groups: Groups, weight: Floats, mean: Floats, std: Floats) -> None:
        """Merge rows, each an ndarray[row of the batch].

        Rows of weight 0 or without a mean count for nothing; one with a mean and no std leaves its area
        without std.
        """
        there = (weight > 0) & ~np.isnan(mean)
        weight, mean, std = (np.where(there, values, 0.0) for values in (weight, mean, std))
        total = groups.reduce(np.add, weight)
        middle = _ratio(groups.reduce(np.add, weight * mean), total)
        at, before = groups.area, self.weight[groups.area]
        share = _ratio(total, before + total)
        # Around an infinite mean there is no spread.
        with np.errstate(invalid="ignore"):
            gap = mean - groups.spread(middle, len(mean))
            apart = middle - self.mean[at]
            self.scatter[at] += groups.reduce(np.add, weight * (std**2 + gap**2)) + apart**2 * before * share
            self.mean[at] += apart * share
        self.weight[at] += total

    def finish(self, kind: str) -> Floats:
        """Return ``mean`` or ``std`` (population) of each area, NaN where there is no weight."""
        values = self.mean if kind == "mean" else np.sqrt(_ratio(self.scatter, self.weight))
        return np.where(self.weight > 0, values, np.nan)


@dataclass(frozen=True, slots=True)
class Merged:
    """What the rows of each area are together.

    Parameters
    ----------
    statistics : dict of str to float64 ndarray[area]
        By column; NaN where no row has any.
    sums : dict of str to Total
        By column.
    zone_count : int64 ndarray[area]
        Rows; of a table that was aggregated itself, rows of the first one.
    pixel_count : Total
    ground : Total
        Area in pixels, ``pixel_count / valid_fraction``, of the rows that have pixels; others do not tell.
    """

    statistics: dict[str, Floats]
    sums: dict[str, Total]
    zone_count: Ints
    pixel_count: Total
    ground: Total

    def valid_fraction(self, silent: Flags, whole: Floats) -> Floats:
        """Share of each area that valid pixels cover; NaN where it is not known.

        Parameters
        ----------
        silent : bool ndarray[area]
            Where some rows have no pixels, and so do not say how large they are.
        whole : float64 ndarray[area]
            There, the measured area of all rows over that of the rows that have pixels; NaN: not measured.
        """
        pixels = np.where(silent, self.ground.value * whole, self.ground.value)
        known = np.where(pixels > 0, pixels, np.nan)
        return np.where(self.pixel_count.value > 0, self.pixel_count.value / known, 0.0)


def has_pixels(count: Floats, fraction: Floats) -> Flags:
    """Tell the rows that say how large they are: ``pixel_count / valid_fraction`` pixels."""
    return (count > 0) & (fraction > 0)


def merge(table: Table, areas: Areas, columns: ColumnRoles) -> Merged:
    """Merge the rows of each area, in one pass over the table.

    Raises
    ------
    InputError
        If a weight is negative or infinite, or a whole number to add up does not fit into int64.
    """
    size = len(areas.ids)
    bands = {band: _Band.of(size, kinds) for band, kinds in columns.bands.items()}
    sums = {
        name: Total.of(size, np.int64 if pa.types.is_integer(table.schema.field(name).type) else float)
        for name in columns.sums
    }
    pixels, ground, zones = Total.of(size), Total.of(size), Total.of(size, np.int64)
    for code, batch in areas.batches(table, [*columns.own, *columns.statistics, *columns.sums]):
        groups, every = Groups.of(code), np.ones(len(batch), bool)
        count = None
        if "pixel_count" in columns.own:
            count = _weights(batch, "pixel_count", table.name)
            pixels.add(groups, count, every)
            if "valid_fraction" in columns.own:
                fraction = floats(batch["valid_fraction"])
                ground.add(groups, _ratio(count, fraction), has_pixels(count, fraction))
        merged = _integers(batch, "zone_count", table.name) if "zone_count" in columns.own else every
        zones.add(groups, merged, every)
        for name, total in sums.items():
            if total.value.dtype == np.int64:
                there = batch[name].is_valid().to_numpy(zero_copy_only=False)
                total.add(groups, _integers(batch, name, table.name), there)
            else:
                values = floats(batch[name])
                total.add(groups, values, ~np.isnan(values))
        for name, band in bands.items():
            weight = count
            if "count" in band.kinds:
                weight = _weights(batch, f"{name}_count", table.name)
            values_of = {kind: floats(batch[f"{name}_{kind}"]) for kind in band.kinds}
            band.add(groups, np.ones(len(batch)) if weight is None else weight, values_of)
    statistics = {
        name: bands[name.rpartition("_")[0]].finish(name.rpartition("_")[2]) for name in columns.statistics
    }
    return Merged(statistics, sums, zones.value, pixels, ground)


@dataclass(frozen=True, slots=True)
class _Band:
    """The statistics of one band, growing."""

    kinds: tuple[str, ...]
    moments: AreaMoments
    extremes: dict[str, Floats]
    totals: dict[str, Total]

    @classmethod
    def of(cls, areas: int, kinds: tuple[str, ...]) -> _Band:
        return cls(
            kinds,
            AreaMoments.of(areas if "mean" in kinds else 0),
            {kind: np.full(areas, np.nan) for kind in kinds if kind in EXTREMES},
            {kind: Total.of(areas) for kind in kinds if kind in ("sum", "count")},
        )

    def add(self, groups: Groups, weight: Floats, values: dict[str, Floats]) -> None:
        if "mean" in values:
            self.moments.add(groups, weight, values["mean"], values.get("std", np.zeros(len(weight))))
        for kind, extreme in self.extremes.items():
            ufunc = EXTREMES[kind]
            batch_extreme = groups.reduce(ufunc, np.where(weight > 0, values[kind], np.nan))
            extreme[groups.area] = ufunc(extreme[groups.area], batch_extreme)
        for kind, total in self.totals.items():
            total.add(groups, values[kind], ~np.isnan(values[kind]) & ((weight > 0) | (kind == "count")))

    def finish(self, kind: str) -> Floats:
        if kind in self.extremes:
            return self.extremes[kind]
        if kind in self.totals:
            return np.where(self.totals[kind].numbers > 0, self.totals[kind].value, np.nan)
        return self.moments.finish(kind)


def _ratio(a: Floats, b: Floats) -> Floats:
    """Divide; by nothing it gives 0."""
    return np.divide(a, b, out=np.zeros(len(a)), where=b > 0)


def _weights(batch: pa.RecordBatch, name: str, table: str) -> Floats:
    """Read counts of pixels, 0 for null."""
    weights = floats(batch[name])
    weights = np.where(np.isnan(weights), 0.0, weights)
    wrong = weights[(weights < 0) | np.isinf(weights)]
    if len(wrong):
        raise InputError(f"{table}: {name} holds {wrong[0]:g}, which is no count of pixels")
    return weights


def _integers(batch: pa.RecordBatch, name: str, table: str) -> Ints:
    """Whole numbers as int64, 0 for null."""
    try:
        return np.asarray(pc.cast(pc.fill_null(batch[name], 0), pa.int64()))
    except pa.ArrowException as error:
        raise InputError(f"{table}: {name} cannot be added up: {first_line(error)}") from None
