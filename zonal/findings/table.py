"""What findings ask of a table: its columns, and a way to read some of them.

Knows Arrow's types; knows neither files nor clusters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from zonal.io.table.geoparquet import GeometryColumn

Floats = npt.NDArray[np.float64]

KINDS = ("mean", "std", "min", "max", "sum", "count")
"""Ends of the names of statistic columns: ``A00_mean``."""


class Table(Protocol):
    """A table: its name, its columns, and ways to read some of them."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def schema(self) -> pa.Schema:
        """Columns and types."""

    @property
    def zone_id(self) -> str | None:
        """Name of the id column, where the table says it."""

    @property
    def geo(self) -> GeometryColumn | None:
        """What GeoParquet metadata say of the geometry, where there is one."""

    @property
    def rows(self) -> int:
        """Number of rows."""

    def read(self, columns: Sequence[str]) -> pa.Table:
        """Read some columns of all rows."""

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Read some columns, some rows at a time, in the same order."""


def is_number(kind: pa.DataType) -> bool:
    """Whether a type is a number."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def floats(values: pa.Array | pa.ChunkedArray) -> Floats:
    """Read numbers as float64, NaN for null."""
    return np.asarray(pc.cast(values, pa.float64(), safe=False).to_numpy(zero_copy_only=False), float)


def base_name(place: str) -> str:
    """Name a table's file or folder, without where it is and without what a URL asks with."""
    return place.rstrip("/").rsplit("/", 1)[-1].split("?")[0]
