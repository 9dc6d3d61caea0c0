"""GeoParquet 1.1: geometry columns, their covering and the file's `geo` metadata.

Knows Arrow, WKB and the specification (geoparquet.org, version 1.1.0); knows
nothing of zones or statistics.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyproj
import shapely

PARQUET = (".parquet", ".geoparquet", ".pq")
"""Ends of the names of Parquet files."""

SIDES = ("xmin", "ymin", "xmax", "ymax")
SMALL, QUICK = "zstd", "lz4"
"""Compression of files that stay, and of those that are soon read again and gone."""

SLICE = 1_000
"""Polygons turned into WKB at once."""

BBOX = pa.struct([(side, pa.float64()) for side in SIDES])


def geometry_columns(polygons: npt.NDArray[np.object_]) -> tuple[pa.Array, pa.Array]:
    """Return (bbox struct, WKB binary); the bbox of an empty geometry is null."""
    bounds = shapely.bounds(polygons)
    sides = [pa.array(side) for side in bounds.T]
    bbox = pa.StructArray.from_arrays(sides, fields=list(BBOX), mask=pa.array(np.isnan(bounds[:, 0])))
    return bbox, wkb(polygons)


def wkb(polygons: npt.NDArray[np.object_]) -> pa.Array:
    """Return polygons as WKB, some at a time: other threads wait for the interpreter meanwhile."""
    slices = [polygons[start : start + SLICE] for start in range(0, len(polygons), SLICE)]
    return pa.chunked_array([pa.array(shapely.to_wkb(some), pa.binary()) for some in slices], pa.binary())


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
    columns = [json.loads(meta[b"geo"])["columns"]["geometry"] for meta in metas]
    kinds = {kind for column in columns for kind in column["geometry_types"]}
    boxes = np.array([column["bbox"] for column in columns if "bbox" in column])
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
