"""GeoParquet 1.1: geometry columns, their covering and the file's `geo` metadata.

Knows Arrow, WKB and the specification (geoparquet.org, version 1.1.0); knows
nothing of zones or statistics.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import shapely

PARQUET = (".parquet", ".geoparquet", ".pq")
"""Ends of the names of Parquet files."""

SIDES = ("xmin", "ymin", "xmax", "ymax")
BBOX = pa.struct([(side, pa.float64()) for side in SIDES])


def geometry_columns(wkb: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return (bbox struct, WKB binary); the bbox of an empty geometry is null."""
    bounds = shapely.bounds(shapely.from_wkb(np.asarray(wkb)))
    empty = np.isnan(bounds).any(axis=1)
    sides = [pa.array(bounds[:, i]) for i in range(4)]
    bbox = pa.StructArray.from_arrays(sides, fields=list(BBOX), mask=pa.array(empty))
    return bbox, wkb.cast(pa.binary())


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
        types = np.unique(shapely.get_type_id(shapely.from_wkb(np.asarray(table["geometry"]))))
        kinds |= {{3: "Polygon", 6: "MultiPolygon"}[int(kind)] for kind in types}
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


def writer(path: Path, schema: pa.Schema, meta: Mapping[bytes, bytes]) -> pq.ParquetWriter:
    """Open a Parquet writer with the settings that all of zonal's files share."""
    return pq.ParquetWriter(path, schema.with_metadata(dict(meta)), compression="zstd", write_statistics=True)
