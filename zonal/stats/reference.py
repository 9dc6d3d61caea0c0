"""Coverage as exactextract sees it: the other provider, and the oracle of the tests.

Knows that library's habits and limits; gives the same spans and edge pixels as
the native sweeps, in float32 precision.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from zonal.geo.grid import Grid
from zonal.stats.rows import Edges, Offsets, Spans, no_edges, no_spans
from zonal.stats.scanline import TINY


def ask_exactextract(geometries: npt.NDArray[Any], kept: Offsets, grid: Grid) -> tuple[Spans, Edges]:
    """Build spans and edge pixels from exactextract's ``cell_id`` and ``coverage``.

    Version 0.3 can crash the process on parts of a multipolygon that lie along the raster's
    border or beyond it. So it gets single polygons, cut half a pixel outside the chunk, and
    a raster with a margin of one pixel, which is dropped from its answer.
    """
    from exactextract import exact_extract
    from exactextract.feature import JSONFeatureSource
    from exactextract.raster import NumPyRasterSource

    west, south, east, north = grid.bounds
    margin_x, margin_y = grid.dx / 2, abs(grid.dy) / 2
    frame = shapely.box(west - margin_x, south - margin_y, east + margin_x, north + margin_y)
    polygons, of = shapely.get_parts(shapely.intersection(geometries[kept], frame), return_index=True)
    flat = (shapely.get_type_id(polygons) == 3) & ~shapely.is_empty(polygons)
    # In pixels, north-up, as it wants it; vertices that miss a grid line by rounding are put on it.
    corner, steps = (grid.x0, grid.y0), (grid.dx, -grid.dy)
    polygons = shapely.transform(
        polygons[flat], lambda xy: np.rint((xy - corner) / steps * 2.0**30) / 2.0**30 + (0, grid.height)
    )
    zones = JSONFeatureSource(
        [
            {"type": "Feature", "properties": {"zone": int(k)}, "geometry": json.loads(shape)}
            for k, shape in zip(kept[of[flat]], shapely.to_geojson(polygons), strict=True)
        ]
    )
    width, height = grid.width + 2, grid.height + 2
    blank = np.zeros((height, width), dtype=np.int8)
    raster = NumPyRasterSource(blank, xmin=-1, ymin=-1, xmax=grid.width + 1, ymax=grid.height + 1)
    answer = exact_extract(raster, zones, ["cell_id", "coverage"], include_cols=["zone"], output="pandas")
    if len(answer) == 0:
        return no_spans(), no_edges()
    cells = [np.asarray(cell, dtype=np.int64) for cell in answer["cell_id"]]
    of_cell = np.repeat(answer["zone"].to_numpy(dtype=np.int64), [cell.size for cell in cells])
    row, col = np.divmod(np.concatenate(cells), width)
    fractions = np.concatenate([np.asarray(fraction, dtype=np.float64) for fraction in answer["coverage"]])
    inside = (row > 0) & (row < height - 1) & (col > 0) & (col < width - 1)
    size = grid.width * grid.height
    key = (of_cell * size + (row - 1) * grid.width + col - 1)[inside]
    # A pixel shared by several parts of a zone has the sum of their shares.
    key, same = np.unique(key, return_inverse=True)
    weight = np.bincount(same, fractions[inside], len(key)).astype(np.float64)
    zone, pixel = (key // size).astype(np.int32), (key % size).astype(np.int32)
    full = weight > 1 - TINY
    edge = ~full & (weight >= TINY)
    # A span ends where adjacency, which holds inside one zone only, or the row breaks.
    key = key[full]
    breaks = (np.diff(key) != 1) | (key[1:] % grid.width == 0)
    first = np.flatnonzero(np.concatenate([np.ones(min(1, key.size), dtype=bool), breaks]))
    length = np.diff(np.append(first, key.size)).astype(np.int32)
    span_at, edge_at = np.flatnonzero(full)[first], np.flatnonzero(edge)
    # Both come zone by zone so far; a row's zones keep that order.
    row = np.argsort(pixel[span_at] // grid.width, kind="stable")
    span_at, length = span_at[row], length[row]
    edge_at = edge_at[np.argsort(pixel[edge_at] // grid.width, kind="stable")]
    return (zone[span_at], pixel[span_at], length), (zone[edge_at], pixel[edge_at], weight[edge_at])
