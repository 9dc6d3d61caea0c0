"""Parts and the final table: columns in their order, types, and the files' own metadata.

Knows the columns of an output and how parts become one file or a dataset;
gets finished numbers and never computes one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj

from zonal.errors import InputError
from zonal.io.store.folder import Folder
from zonal.io.store.seekable import Seekable
from zonal.io.table import geoparquet

SCHEMA_VERSION = 1
"""Of the table's columns and metadata; goes up when a reader must know."""

TABLE_ROW_GROUP = 50_000
"""Zones of a row group of the one-file table."""

AREA = "zonal_area"
"""Staged column, not in the table: a zone's area in the CRS of its pieces, CRS units squared."""

OWN = ("year", "pixel_count", "valid_fraction", "tile_count")
"""Columns that every table has, whatever its bands."""


@dataclass(frozen=True, slots=True)
class TableColumns:
    """The statistic columns of a table.

    Parameters
    ----------
    zone_id : str
    bands, stats : tuple of str
        ``{band}_{stat}``, all bands of one statistic after the other.
    narrow : bool
        float32 for mean, std, min and max (AEF), else float64 for all.
    """

    zone_id: str
    bands: tuple[str, ...]
    stats: tuple[str, ...]
    narrow: bool

    def type_of(self, stat: str) -> pa.DataType:
        """Arrow type of a statistic's columns."""
        return pa.float32() if self.narrow and stat not in ("sum", "count") else pa.float64()

    @property
    def added(self) -> list[str]:
        """Names that zonal adds to a zone's attributes."""
        return [*OWN, *self._of_bands, "bbox", "geometry"]

    @property
    def _of_bands(self) -> list[str]:
        stats = self.stats if "count" in self.stats else ("count", *self.stats)
        return [f"{band}_{stat}" for stat in stats for band in self.bands]

    def check(self, names: Sequence[str], source: str) -> None:
        """Raise InputError if two columns of the table would have one name.

        Parameters
        ----------
        names : sequence of str
            Of the zones' columns: the id and the attributes, without the geometry.
        source : str
            Where they are from.
        """
        twice = _twice(self.bands)
        if twice is not None:
            raise InputError(
                f"the raster has two bands named {twice!r}; give each a name of its own (its description)"
            )
        twice = _twice([*OWN, *self._of_bands])
        if twice is not None:
            raise InputError(
                f"the raster's bands give two columns {twice!r}, or one that zonal has already; "
                "rename the bands (their descriptions)"
            )
        twice = _twice(names)
        if twice is not None:
            raise InputError(f"{source}: two columns are named {twice!r}; rename one")
        taken = sorted({*names} & {*self.added, AREA})
        if taken:
            raise InputError(f"{source}: column {taken[0]!r} has the name of one that zonal adds; rename it")


def _twice(names: Sequence[str]) -> str | None:
    """First name that comes again."""
    return next((name for at, name in enumerate(names) if name in names[:at]), None)


def part_table(
    zones: pa.Table,
    columns: TableColumns,
    *,
    year: int | None,
    pixel_count: npt.NDArray[np.float64],
    valid_fraction: npt.NDArray[np.float64],
    tile_count: npt.NDArray[np.int32],
    statistics: Mapping[str, npt.NDArray[np.float64]],
    band_count: npt.NDArray[np.float64] | None,
) -> pa.Table:
    """Join attributes and statistics of some zones.

    Parameters
    ----------
    zones : pyarrow.Table
        Attributes, `bbox` and `geometry` (WKB), as staged.
    pixel_count, valid_fraction, tile_count : ndarray[zone]
        NaN becomes null.
    statistics : mapping of name to float64 ndarray[zone, band]
        NaN becomes null.
    band_count : float64 ndarray[zone, band] or None
        Given where bands may differ in nodata.

    Raises
    ------
    InputError
        If two columns would have one name.
    """
    attributes = [name for name in zones.column_names if name not in (columns.zone_id, "bbox", "geometry")]
    columns.check([columns.zone_id, *attributes], "the zones")
    data: dict[str, Any] = {columns.zone_id: zones[columns.zone_id]}
    data |= {name: zones[name] for name in attributes}
    data["year"] = pa.repeat(pa.scalar(year, pa.int32()), len(zones))
    data["pixel_count"] = pa.array(pixel_count)
    data["valid_fraction"] = _nullable(valid_fraction, pa.float64())
    data["tile_count"] = pa.array(tile_count)
    if band_count is not None and "count" not in columns.stats:
        data |= {f"{band}_count": pa.array(band_count[:, b]) for b, band in enumerate(columns.bands)}
    for stat in columns.stats:
        kind = columns.type_of(stat)
        by_band = np.ascontiguousarray(statistics[stat].T, kind.to_pandas_dtype())
        for band, values in zip(columns.bands, by_band, strict=True):
            data[f"{band}_{stat}"] = _nullable(values, kind)
    data["bbox"], data["geometry"] = zones["bbox"], zones["geometry"]
    return pa.table(data)


def _nullable(values: npt.NDArray[Any], kind: pa.DataType) -> pa.Array:
    return pa.array(values, kind, from_pandas=True)  # NaN becomes null


def write_part(
    folder: Folder,
    name: str,
    table: pa.Table,
    crs: pyproj.CRS,
    about: Mapping[str, Any],
    *,
    published: bool = True,
) -> None:
    """Write one part: a GeoParquet file of a single row group, atomically.

    A part that will be `published` as it is, in a dataset, is packed like a table; the others are
    soon read again and gone, so they are packed quickly.
    """
    meta = geoparquet.metadata(crs, *geoparquet.extent([table])) | _about(about)
    packing = geoparquet.SMALL if published else geoparquet.QUICK
    with folder.create(name) as path, geoparquet.writer(path, table.schema, meta, packing) as out:
        out.write_table(table, row_group_size=max(1, len(table)))


def merge_parts(
    folder: Folder,
    parts: Sequence[str],
    target: Folder,
    name: str,
    crs: pyproj.CRS,
    about: Mapping[str, Any],
    columns: TableColumns,
) -> None:
    """Write parts as one GeoParquet file with larger row groups.

    Columns ``{band}_count`` are left out where they say no more than
    `pixel_count` in any row. Memory: one row group and one part.
    """
    counts = {f"{band}_count" for band in columns.bands if "count" not in columns.stats}
    schemas = [_schema(folder, part) for part in parts]
    differ = False
    for part, names in zip(parts, (schema.names for schema in schemas), strict=True):
        if present := [name for name in names if name in counts]:
            table = _read(folder, part, [*present, "pixel_count"])
            differ |= any(not table[name].equals(table["pixel_count"]) for name in present)
    schema = pa.schema([f for f in schemas[-1] if differ or f.name not in counts])
    meta = geoparquet.metadata(crs, *geoparquet.joint_extent(s.metadata for s in schemas)) | _about(about)
    with target.create(name) as path, geoparquet.writer(path, schema, meta) as out:
        for table in _regrouped((_read(folder, part, schema.names) for part in parts), TABLE_ROW_GROUP):
            out.write_table(table, row_group_size=TABLE_ROW_GROUP)


def _regrouped(tables: Iterator[pa.Table], size: int) -> Iterator[pa.Table]:
    """Rows in the same order, `size` at a time (the last ones fewer)."""
    waiting: list[pa.Table] = []
    rows = 0
    for table in tables:
        waiting.append(table)
        rows += len(table)
        while rows >= size:
            joined = pa.concat_tables(waiting)
            yield joined.slice(0, size).combine_chunks()
            waiting, rows = [joined.slice(size)], rows - size
    if rows:
        yield pa.concat_tables(waiting).combine_chunks()


def _schema(folder: Folder, name: str) -> pa.Schema:
    with _open(folder, name) as file:
        return file.schema_arrow


def _read(folder: Folder, name: str, columns: Sequence[str]) -> pa.Table:
    with _open(folder, name) as file:
        return file.read(columns).select(columns).replace_schema_metadata(None)


def _open(folder: Folder, name: str) -> Any:
    blob = folder.blob(name)
    return pq.ParquetFile(Seekable(blob, blob.stat().size), pre_buffer=True)


def covered_zones(folder: Folder, parts: Sequence[str]) -> dict[str, int]:
    """Count zones by fate: ``covered`` (any valid pixel), ``without_pixels``, ``outside_tiles``."""
    covered = without = outside = 0
    for part in parts:
        table = _read(folder, part, ["pixel_count", "tile_count"])
        pixels, tiles = (table[c].to_numpy() for c in ("pixel_count", "tile_count"))
        covered += int((pixels > 0).sum())
        without += int(((pixels == 0) & (tiles > 0)).sum())
        outside += int((tiles == 0).sum())
    return {"covered": covered, "without_pixels": without, "outside_tiles": outside}


def _about(about: Mapping[str, Any]) -> dict[bytes, bytes]:
    return {b"zonal": json.dumps({"schema_version": SCHEMA_VERSION, **about}, sort_keys=True).encode()}
