"""Folds of a cross-validation: at random, by class, or of whole places.

Knows how rows are dealt into folds and what makes a place; knows nothing of what
is learned from them.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from sklearn.model_selection import KFold, StratifiedKFold

from zonal.config.analysis import SPATIAL
from zonal.errors import InputError
from zonal.findings.areas.membership import Areas, find_areas
from zonal.findings.evaluation.schema import Folds
from zonal.findings.join import Joined
from zonal.findings.places import EQUAL_AREA, read_points
from zonal.findings.table import Floats
from zonal.geo.crs import WGS84, operation
from zonal.text import did_you_mean

Labels = npt.NDArray[np.int64]
"""For each row the number of its group or fold, from 0; -1 for none."""

BLOCK_KM = 10.0
"""Side of a grid cell where nobody says it."""

HALVINGS = 5
"""How often it is halved at most: to 0.31 km."""

CELLS_A_FOLD = 4
"""Cells of the grid that each fold has at least, where nobody says their size."""

LOPSIDED = 2.0
"""`auto` takes no counties if the largest fold has more than so many times the rows of the smallest."""


@dataclass(frozen=True)
class Deal:
    """How some rows are dealt into folds.

    Parameters
    ----------
    labels : int64 ndarray[row]
        Fold of each row, from 0; -1 for a row without a place, which no fold has.
    about : Folds
        As the evaluation tells it.
    """

    labels: Labels
    about: Folds

    @property
    def possible(self) -> bool:
        """Whether there are folds."""
        return self.about.skipped is None


@dataclass(frozen=True)
class Places:
    """What whole places can be made of, for all rows.

    Parameters
    ----------
    by : str
        What was asked: auto, county, tract, grid, or a column.
    groups : int64 ndarray[row], optional
        Counties, tracts, or the column's values; None where there are none.
    metres : float64 ndarray[row, 2], optional
        Points in `EQUAL_AREA`; None where there are none, or none are needed.
    block_km : float, optional
        Side of a grid cell as asked.
    """

    by: str
    groups: Labels | None
    metres: Floats | None
    block_km: float | None = None

    @classmethod
    def of(cls, joined: Joined, kept: npt.NDArray[np.bool_], by: str, block_km: float | None) -> Places:
        """Find what the folds are to be made of.

        Parameters
        ----------
        joined : Joined
        kept : bool ndarray[row of the table]
            The rows that are used.
        by : str
            ``auto``, ``county``, ``tract``, ``grid``, or a column's name.
        block_km : float, optional
            Side of a grid cell; with ``auto`` it asks for a grid.

        Raises
        ------
        InputError
            If the table lacks what was asked for.
        """
        if by == "auto" and block_km is not None:
            by = "grid"
        groups = metres = None
        if by not in (*SPATIAL, "auto"):
            if by not in joined.names:
                raise InputError(
                    f"spatial folds by {by!r}: expected {', '.join(SPATIAL)} or a column"
                    f"{did_you_mean(by, (*SPATIAL, *joined.names))}"
                )
            values = joined.read(by)
            if pa.types.is_nested(values.type):
                raise InputError(f"spatial {by!r}: this column holds {values.type}, which names no group")
            groups = Areas.of(by, values).code[kept].astype(np.int64)
        elif by != "grid":
            try:
                groups = (
                    find_areas(joined.table, "county" if by == "auto" else by).code[kept].astype(np.int64)
                )
            except InputError:
                if by != "auto":
                    raise InputError(
                        f"{joined.table.name}: nothing tells a row's {by}: expected census ids as text in "
                        "GEOID20, or codes in STATEFP20, COUNTYFP20, ...; name a column with --spatial, or "
                        "take a grid"
                    ) from None
        if by in ("auto", "grid"):
            points = read_points(joined.table)
            if points is None and by == "grid":
                raise InputError(
                    f"{joined.table.name}: spatial folds by grid take a geometry, or longitude and latitude"
                )
            metres = None if points is None else to_metres(points[kept])
        return cls(by, groups, metres, block_km)

    def deal(self, rows: npt.NDArray[np.bool_], folds: int) -> Deal:
        """Deal some of the rows into folds of whole places.

        Parameters
        ----------
        rows : bool ndarray[row]
        folds : int
        """
        groups = None if self.groups is None else self.groups[rows]
        if self.by not in ("auto", "grid"):
            assert groups is not None
            return _dealt(groups, folds, self.by)
        if groups is not None:
            by_county = _dealt(groups, folds, "county")
            if by_county.possible and max(by_county.about.rows) <= LOPSIDED * min(by_county.about.rows):
                return by_county
        if self.metres is None:
            why = "the table has neither enough counties nor geometry nor longitude and latitude"
            return _none(int(rows.sum()), Folds(kind="spatial", folds=folds, skipped=why))
        metres = self.metres[rows]
        if self.block_km is not None:
            return _dealt(cells(metres, self.block_km), folds, "grid", self.block_km)
        for halving in range(HALVINGS + 1):
            size = BLOCK_KM / 2**halving
            labels = cells(metres, size)
            if labels.max(initial=-1) + 1 >= CELLS_A_FOLD * folds:
                return _dealt(labels, folds, "grid", size)
        why = f"rows lie in fewer than {CELLS_A_FOLD * folds} cells of {size:.2g} km"
        return _none(len(metres), Folds(kind="spatial", folds=folds, by="grid", block_km=size, skipped=why))


def to_metres(points: Floats) -> Floats:
    """Project longitude and latitude, degrees, to metres in `EQUAL_AREA`; NaN stays."""
    metres = np.full(points.shape, np.nan)
    known = np.isfinite(points).all(axis=1)
    metres[known] = np.column_stack(operation(WGS84, EQUAL_AREA).transform(*points[known].T))
    return metres


def cells(metres: Floats, block_km: float) -> Labels:
    """Give numbers to the cells of a grid that hold points, from float64 ndarray[row, 2] in `EQUAL_AREA`."""
    labels = np.full(len(metres), -1)
    known = np.isfinite(metres).all(axis=1)
    column, row = np.floor(metres[known] / (1000 * block_km)).astype(np.int64).T
    labels[known] = np.unique(column * 2**32 + row, return_inverse=True)[1]
    return labels


def random_folds(rows: int, folds: int, seed: int) -> Deal:
    """Deal rows at random, as scikit-learn's KFold does with `shuffle` and the seed."""
    return _split(KFold(folds, shuffle=True, random_state=seed), np.zeros(rows, int), folds, seed)


def stratified_folds(classes: npt.NDArray[np.integer], folds: int, seed: int) -> Deal:
    """Deal rows at random, with equal shares of both classes, as scikit-learn's StratifiedKFold does.

    Parameters
    ----------
    classes : ndarray[row]
        0 or 1.
    folds, seed : int
    """
    return _split(
        StratifiedKFold(folds, shuffle=True, random_state=seed), classes, folds, seed, stratified=True
    )


def group_folds(groups: Labels, folds: int) -> Labels:
    """Deal whole groups into folds of nearly equal rows: the largest first, onto the emptiest fold.

    scikit-learn's GroupKFold does the same; among equal groups here the first comes first, whatever the
    processor. Rows of group -1 are in no fold.
    """
    sizes = np.bincount(groups[groups >= 0])
    fold_of = np.full(len(sizes) + 1, -1)
    heap = [(0, fold) for fold in range(folds)]
    for group in np.argsort(-sizes, kind="stable"):
        load, fold = heapq.heappop(heap)
        fold_of[group] = fold
        heapq.heappush(heap, (load + int(sizes[group]), fold))
    # Group -1 takes the last fold of the list, which is none.
    return fold_of[groups]


def _split(
    splitter: Any, classes: npt.NDArray[np.integer], folds: int, seed: int, stratified: bool = False
) -> Deal:
    about = Folds(kind="random", folds=folds, seed=seed, stratified=stratified)
    fewest = int(np.bincount(classes).min()) if len(classes) else 0
    if fewest < folds:
        what = "rows of one class" if stratified else "rows"
        return _none(
            len(classes), about.model_copy(update={"skipped": f"{fewest:,} {what} for {folds} folds"})
        )
    labels = np.empty(len(classes), np.int64)
    for fold, (_, held) in enumerate(splitter.split(classes, classes)):
        labels[held] = fold
    return Deal(labels, about.model_copy(update={"rows": tuple(np.bincount(labels).tolist())}))


def _dealt(groups: Labels, folds: int, by: str, block_km: float | None = None) -> Deal:
    numbered = np.unique(groups[groups >= 0], return_inverse=True)[1]
    count = int(numbered.max(initial=-1)) + 1
    about = Folds(kind="spatial", folds=folds, by=by, groups=count, block_km=block_km)
    if count < folds:
        why = f"{count:,} {'cells of the grid' if by == 'grid' else f'groups by {by}'} for {folds} folds"
        return _none(len(groups), about.model_copy(update={"skipped": why}))
    present = groups.copy()
    present[groups >= 0] = numbered
    labels = group_folds(present, folds)
    rows = np.bincount(labels[labels >= 0], minlength=folds)
    return Deal(labels, about.model_copy(update={"rows": tuple(rows.tolist())}))


def _none(rows: int, about: Folds) -> Deal:
    return Deal(np.full(rows, -1), about)
