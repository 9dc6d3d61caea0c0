"""The polygons of a map: projected, put aside on the driver's disk, and taken back window by window.

Knows polygons as WKB and how many bytes may be held at once; knows neither colours
nor files of maps.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import shapely

from zonal.findings.map.canvas import Boxes
from zonal.findings.places import Geometry, project
from zonal.findings.table import Table

HELD = 64 * 2**20
"""Bytes of polygons handed out together, at most, unless a single window has more."""


class Spool:
    """Byte strings in a temporary file, for more of them than fit into memory.

    Parameters
    ----------
    folder : Path
        Where the file lies until the spool is left.
    """

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by __exit__
        self._ends = [0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, values: Iterable[bytes]) -> None:
        """Put some aside; they are numbered from 0 in the order in which they come."""
        for value in values:
            self._file.write(value)
            self._ends.append(self._ends[-1] + len(value))

    def sizes(self) -> npt.NDArray[np.int64]:
        """Give the number of bytes of each."""
        ends = np.array(self._ends, np.int64)
        return ends[1:] - ends[:-1]

    def take(self, numbers: Iterable[int]) -> list[bytes]:
        """Get some back."""
        values = []
        for number in numbers:
            self._file.seek(self._ends[number])
            values.append(self._file.read(self._ends[number + 1] - self._ends[number]))
        return values


@dataclass(frozen=True, slots=True)
class Shapes:
    """Zones that lie somewhere in a map's CRS, in a spool as WKB.

    Parameters
    ----------
    row : intp ndarray[zone]
        Which of the coloured rows each is.
    boxes : float64 ndarray[zone, 4]
        West, south, east, north.
    lost : int
        Zones that have a polygon and no place in the CRS.
    """

    row: npt.NDArray[np.intp]
    boxes: Boxes
    lost: int


def put_aside(table: Table, kept: npt.NDArray[np.bool_], crs: str, spool: Spool) -> Shapes:
    """Project the polygons of the rows that have a colour."""
    geometry = Geometry.of(table)
    rows, boxes = [np.empty(0, np.intp)], [np.empty((0, 4))]
    read = coloured = lost = 0
    for batch, _ in geometry.polygons(table):
        polygons = batch[kept[read : read + len(batch)]]
        projected = project(polygons, geometry.crs, crs)
        box = shapely.bounds(projected)
        # NaN if empty, as is what the projection does not reach.
        there = np.isfinite(box).all(axis=1)
        lost += int((~there & ~shapely.is_empty(polygons)).sum())
        spool.add(shapely.to_wkb(projected[there]))
        rows.append(coloured + np.flatnonzero(there))
        boxes.append(box[there])
        read, coloured = read + len(batch), coloured + len(polygons)
    return Shapes(np.concatenate(rows), np.concatenate(boxes), lost)


def batches(
    touched: Mapping[int, npt.NDArray[np.intp]], sizes: npt.NDArray[np.int64], most: int
) -> Iterator[list[int]]:
    """Share windows out: at most so many at once, and with at most `HELD` bytes of polygons."""
    batch: list[int] = []
    held = 0
    for window, zones in touched.items():
        size = int(sizes[zones].sum())
        if batch and (len(batch) == most or held + size > HELD):
            yield batch
            batch, held = [], 0
        batch.append(window)
        held += size
    if batch:
        yield batch
