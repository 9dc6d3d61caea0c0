"""GeoParquet 1.1: geometry columns, their covering and the file's `geo` metadata.

Knows Arrow, WKB and the specification (geoparquet.org, version 1.1.0); knows
nothing of zones or statistics.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyproj
import shapely

from zonal.errors import InputError

PARQUET = (".parquet", ".geoparquet", ".pq")
"""Ends of the names of Parquet files."""

SIDES = ("xmin", "ymin", "xmax", "ymax")
SMALL, QUICK = "zstd", "lz4"
"""Compression of files that stay, and of those that are soon read again and gone."""

SLICE = 1_000
"""Polygons turned into WKB at once."""

DEEPEST = 64
"""Levels of collections in collections; GEOS overflows its stack at some ten thousand."""

BBOX = pa.struct([(side, pa.float64()) for side in SIDES])


@dataclass(frozen=True)
class GeometryColumn:
    """What a file's `geo` metadata say of its primary geometry column.

    Parameters
    ----------
    name : str
    version : str
        Of GeoParquet.
    encoding : str
        ``"WKB"``, or another that zonal does not read.
    kinds : frozenset of str
        Geometry types, e.g. ``{"Polygon", "MultiPolygon"}``; empty where they are not known.
    bounds : tuple of float or None
        Of the whole file.
    covering : frozenset of str
        Columns that only repeat where the geometry lies.
    """

    name: str
    version: str
    encoding: str
    kinds: frozenset[str]
    bounds: tuple[float, ...] | None
    covering: frozenset[str]
    _crs: Any = field(repr=False)

    @property
    def crs(self) -> pyproj.CRS | None:
        """Its CRS, None where the file says that nobody knows; pyproj.exceptions.CRSError if it is none."""
        return None if self._crs is None else pyproj.CRS.from_user_input(self._crs)


def geometry_column(meta: Mapping[bytes, bytes] | None) -> GeometryColumn | None:
    """Read `geo` metadata; None where there are none, or not what the specification has them to be."""
    try:
        geo = json.loads((meta or {})[b"geo"])
        name = geo.get("primary_column", "geometry")
        column = geo["columns"][name]
        covering = (column.get("covering") or {}).get("bbox") or {}
        return GeometryColumn(
            name=name,
            version=str(geo.get("version")),
            encoding=str(column.get("encoding", "WKB")),
            kinds=frozenset(map(str, column.get("geometry_types") or ())),
            bounds=tuple(column.get("bbox") or ()) or None,
            covering=frozenset(str(path[0]) for path in covering.values()),
            _crs=column.get("crs", "OGC:CRS84"),  # absent has a meaning, null another
        )
    except (LookupError, ValueError, TypeError, AttributeError, RecursionError):  # all the ways to be wrong
        return None


def expect_geometry(schema: pa.Schema, name: str) -> GeometryColumn:
    """Read `geo` metadata, or raise InputError with what is wrong with them.

    Parameters
    ----------
    schema : pyarrow.Schema
        Of the file, with its metadata.
    name : str
        For messages.
    """
    if b"geo" not in (schema.metadata or {}):
        raise InputError(f"{name} is Parquet without `geo` metadata, expected GeoParquet; write it anew")
    column = geometry_column(schema.metadata)
    if column is None or column.name not in schema.names:
        raise InputError(f"{name}: its `geo` metadata name no geometry column of the file; write it anew")
    if column.version.split(".")[0] not in ("0", "1"):
        raise InputError(
            f"{name}: GeoParquet {column.version[:20]!r}, expected 1.x; write it as an older version"
        )
    return column


def geometry_columns(polygons: npt.NDArray[np.object_]) -> tuple[pa.Array, pa.Array]:
    """Return (bbox struct, WKB binary); the bbox of an empty geometry is null."""
    bounds = shapely.bounds(polygons)
    sides = [pa.array(side) for side in bounds.T]
    bbox = pa.StructArray.from_arrays(sides, fields=list(BBOX), mask=pa.array(np.isnan(bounds[:, 0])))
    return bbox, wkb(polygons)


def wkb(polygons: npt.NDArray[np.object_]) -> pa.Array:
    """Return polygons as WKB, some at a time: other threads wait for the interpreter meanwhile."""
    slices = [polygons[start : start + SLICE] for start in range(0, len(polygons), SLICE)]
    return pa.chunked_array([pa.array(shapely.to_wkb(few), pa.binary()) for few in slices], pa.binary())


def metadata(
    crs: pyproj.CRS, kinds: Iterable[str], bounds: npt.NDArray[np.float64] | None
) -> dict[bytes, bytes]:
    """Build the file's `geo` entry for a column `geometry` with covering `bbox`.

    Parameters
    ----------
    crs : pyproj.CRS
    kinds : iterable of str
        Geometry types, e.g. ``{"Polygon", "MultiPolygon"}``.
    bounds : float64 ndarray[4] or None
        Of the whole file; None where all geometries are empty.
    """
    column: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": sorted(kinds),
        "crs": crs.to_json_dict(),
        "edges": "planar",
        "covering": {"bbox": {side: ["bbox", side] for side in SIDES}},
    }
    if bounds is not None:
        column["bbox"] = [float(value) for value in bounds]
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    return {b"geo": json.dumps(geo).encode()}


def extent(tables: Iterable[pa.Table]) -> tuple[set[str], npt.NDArray[np.float64] | None]:
    """Geometry types and joint bounds of tables with columns `bbox` and `geometry`."""
    kinds: set[str] = set()
    sides = []
    for table in tables:
        for head in pc.unique(pc.binary_slice(table["geometry"], 0, 5)).to_pylist():
            (kind,) = struct.unpack("<I" if head[0] else ">I", head[1:])
            kinds.add({3: "Polygon", 6: "MultiPolygon"}[kind])
        boxes = table["bbox"].combine_chunks()
        sides.append([_side(boxes, side) for side in SIDES])
    values = np.array(sides, float).reshape(-1, 4)
    values = values[~np.isnan(values).any(axis=1)]
    if not len(values):
        return kinds, None
    return kinds, np.array([*values[:, :2].min(axis=0), *values[:, 2:].max(axis=0)])


def _side(boxes: Any, side: str) -> float:
    values = boxes.field(side).to_numpy(zero_copy_only=False)[np.asarray(boxes.is_valid())]
    if not len(values):
        return float("nan")
    return float(values.min() if side.endswith("min") else values.max())


def joint_extent(metas: Iterable[Mapping[bytes, bytes]]) -> tuple[set[str], npt.NDArray[np.float64] | None]:
    """Geometry types and joint bounds of files, from their `metadata`."""
    columns = [column for meta in metas if (column := geometry_column(meta)) is not None]
    kinds = {kind for column in columns for kind in column.kinds}
    boxes = np.array([column.bounds for column in columns if column.bounds is not None])
    if not len(boxes):
        return kinds, None
    return kinds, np.array([*boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0)])


def writer(
    path: Path, schema: pa.Schema, meta: Mapping[bytes, bytes], compression: str = SMALL
) -> pq.ParquetWriter:
    """Open a Parquet writer with the settings that all of zonal's files share."""
    return pq.ParquetWriter(
        path,
        schema.with_metadata(dict(meta)),
        compression=compression,
        # Measured numbers and shapes hardly ever repeat: a dictionary of them takes half of the time
        # that writing takes, and room.
        use_dictionary=[f.name for f in schema if not _unlike(f.type)],
        write_statistics=True,
    )


def _unlike(kind: pa.DataType) -> bool:
    """Whether the values of a column are expected to be all different."""
    return bool(pa.types.is_floating(kind) or pa.types.is_binary(kind) or pa.types.is_struct(kind))


def check_parquet(path: Path, name: str) -> None:
    """Raise InputError for GeoParquet whose metadata or geometries are not fit to be read.

    What is wrong in other ways, pyarrow and GeoPandas say.

    Parameters
    ----------
    path : Path
        The file.
    name : str
        For messages.
    """
    with pq.ParquetFile(path) as file:
        column = expect_geometry(file.schema_arrow, name)
        if column.encoding != "WKB":
            return  # what else there is cannot nest
        kind = file.schema_arrow.field(column.name).type
        if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            raise InputError(f"{name}: column {column.name!r} holds {kind}, expected geometries as WKB")
        if any(deep(batch[column.name]) for batch in file.iter_batches(columns=[column.name])):
            raise too_deep(name)


def too_deep(name: str) -> InputError:
    """Build the error for geometries that `deep` finds."""
    return InputError(f"{name}: a geometry is made of collections nested over {DEEPEST} deep; flatten it")


def deep(values: pa.Array) -> bool:
    """Whether some WKB nests collections deeper than `DEEPEST`: GEOS would follow it to the process's end."""
    heads = pc.binary_slice(values, 0, 5)
    several = [head for head in pc.unique(heads).to_pylist() if head and _kind(head)[0] in _NESTING]
    long = pc.greater(pc.binary_length(values), 9 * DEEPEST)
    rows = pc.and_(long, pc.is_in(heads, pa.array(several, heads.type)))
    return any(_is_deep(wkb) for wkb in values.filter(rows).to_pylist())


_NESTING = frozenset({4, 5, 6, 7, 9, 10, 11, 12})  # collections, and curves made of curves
_POINT, _LINES = 1, (2, 8)


def _kind(head: bytes) -> tuple[int, int, int, Literal["little", "big"]]:
    """Return (type, bytes of a point, bytes of an SRID, byte order), as GEOS reads 5 bytes."""
    order: Literal["little", "big"] = "little" if head[0] else "big"
    word = int.from_bytes(head[1:5], order)
    iso = (word & 0xFFFF) // 1000
    z, m = bool(word & 0x80000000) or iso in (1, 3), bool(word & 0x40000000) or iso in (2, 3)
    return (word & 0xFFFF) % 1000, 8 * (2 + z + m), 4 * bool(word & 0x20000000), order


def _is_deep(wkb: bytes) -> bool:
    """Walk over WKB without following it; bytes that are none are left to GEOS, which says so."""
    at, left = 0, [1]  # geometries that are still to come on each level
    while left:
        if not left[-1]:
            left.pop()
            continue
        if at + 5 > len(wkb):
            return False
        left[-1] -= 1
        kind, point, srid, order = _kind(wkb[at : at + 5])
        at += 5 + srid
        count = int.from_bytes(wkb[at : at + 4], order)
        if kind in _NESTING:
            left.append(count)
            if len(left) > DEEPEST + 1:
                return True
        elif kind in _LINES:
            at += count * point
        elif kind == _POINT:
            at += point - 4
        else:  # a polygon: rings, each with its own count
            for _ in range(count):
                if at > len(wkb):
                    return False
                at += 4 + point * int.from_bytes(wkb[at + 4 : at + 8], order)
        at += 4
    return False
