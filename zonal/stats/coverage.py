"""Which pixels of a chunk a zone covers, and by how much.

Knows polygons and one chunk's grid; knows no pixel values, no bands, no files
and no ownership of ground. Everything downstream is a walk over what `cover` returns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import shapely

from zonal.geo.grid import Grid
from zonal.stats import centres, reference, rows, scanline
from zonal.stats.centres import Axis
from zonal.stats.rows import Floats, Ints, Offsets, Rings
from zonal.stats.scanline import GRAIN

Rule = Literal["fractional", "center"]
Engine = Literal["native", "exactextract"]

_FARTHEST = 1e12  # pixels from the chunk that a vertex may lie


@dataclass(frozen=True, slots=True)
class Coverage:
    """Zones x one chunk. Pixels are flat offsets ``row * width + col`` inside the chunk.

    Spans and edge pixels each come row by row; in a row zone by zone, in a zone from
    column to column. A zone that misses the chunk has no entries.

    Parameters
    ----------
    zones : int
        Number of geometries given; they are numbered from 0 in their order.
    span_zone, span_start, span_length : int32[s]
        Runs of pixels of weight exactly 1, none longer than its pixel row.
    edge_zone, edge_pixel : int32[e]
        Pixels that a zone covers in part.
    edge_weight : float64[e]
        Fraction of the pixel's area inside the zone, 0 < weight < 1.
    """

    zones: int
    span_zone: Ints
    span_start: Ints
    span_length: Ints
    edge_zone: Ints
    edge_pixel: Ints
    edge_weight: Floats

    @property
    def covering(self) -> npt.NDArray[np.bool_]:
        """bool[zones]: which of them cover any pixel, in full or in part."""
        covering = np.zeros(self.zones, bool)
        covering[self.span_zone] = True
        covering[self.edge_zone] = True
        return covering


def cover(
    geometries: npt.NDArray[Any], grid: Grid, rule: Rule = "fractional", engine: Engine = "native"
) -> Coverage:
    """Cover one chunk's pixels with zones.

    ``fractional`` is the exact share of each pixel's area, found by adding up every
    edge's signed area and height ("cover") cell by cell and summing along pixel rows,
    as anti-aliasing font rasterisers do (R. Levien, font-rs; D. Turner, FreeType
    ``ftgrays.c``). Shares under 1e-9 are 0 and over 1 - 1e-9 are 1.

    ``center`` is 1 where a pixel's centre is inside, else 0. Ties are half-open, east
    and north: a centre exactly on a zone's border is inside if the zone lies on the
    border's eastern side or, where the border runs east-west, on its northern side.
    So a zone owns its western and southern borders, and a partition of the plane counts
    each centre once. The rule looks at ground coordinates, not at rows: north-up and
    south-up rasters agree.

    Parameters
    ----------
    geometries : object ndarray[zone] of shapely Polygon or MultiPolygon
        Valid, in the grid's CRS; rings may run either way. None and empty cover nothing.
    grid : Grid
        Of one chunk; ``chunk_width`` and ``chunk_height`` are not looked at.
    rule : {"fractional", "center"}
        See above.
    engine : {"native", "exactextract"}
        ``exactextract`` asks that library for the fractions, which it gives in float32;
        the same thresholds hold, and differences stay near 1e-7.

    Returns
    -------
    Coverage
        The same bytes for the same input.

    Raises
    ------
    ValueError
        Rule ``center`` with engine ``exactextract``; a geometry that is no polygon, or
        has coordinates that are not finite or absurdly far away; an unknown word.
    """
    if rule not in ("fractional", "center") or engine not in ("native", "exactextract"):
        raise ValueError(f"unknown coverage {rule=} or {engine=}")
    if rule == "center" and engine == "exactextract":
        raise ValueError(
            "engine 'exactextract' knows only rule 'fractional'; use engine 'native' for 'center'"
        )
    if grid.width * grid.height > np.iinfo(np.int32).max:
        raise ValueError(f"a chunk of {grid.width} x {grid.height} pixels is too large: offsets are int32")
    width, height = int(grid.width), int(grid.height)
    kept = _touching(geometries, grid)
    spans, edges = rows.no_spans(), rows.no_edges()
    if kept.size and engine == "exactextract":
        spans, edges = reference.ask_exactextract(geometries, kept, grid)
    elif kept.size and rule == "center":
        across = Axis(float(grid.x0), float(grid.dx), width)
        along = Axis(float(grid.y0), float(grid.dy), height)
        spans = centres.center(_flatten(geometries, kept, grid), across, along)
    elif kept.size:
        rings = _flatten(geometries, kept, grid)
        # In pixels from the chunk's corner; near the chunk the subtraction is exact.
        x = (rings.x - grid.x0) / grid.dx
        # Multiples of 2^-44 pixel (6e-14): why, says _add_edge.
        y = np.rint((rings.y - grid.y0) / grid.dy * GRAIN) / GRAIN
        spans, edges = scanline.fractional(rings._replace(x=x, y=y), width, height)
    return Coverage(len(geometries), *spans, *edges)


def _touching(geometries: npt.NDArray[Any], grid: Grid) -> Offsets:
    """Return the numbers of the zones whose box meets the chunk's."""
    kinds = shapely.get_type_id(geometries)
    wrong = (kinds != -1) & (kinds != 3) & (kinds != 6)
    if wrong.any():
        zone = int(np.flatnonzero(wrong)[0])
        raise ValueError(f"zone {zone} is a {geometries[zone].geom_type}, expected a Polygon or MultiPolygon")
    present = (kinds != -1) & ~shapely.is_empty(geometries)
    boxes = shapely.bounds(geometries)
    west, south, east, north = grid.bounds
    # Closed, so that the rounding of grid.bounds loses nothing that the kernels would find.
    near = (boxes[:, 0] <= east) & (boxes[:, 2] >= west) & (boxes[:, 1] <= north) & (boxes[:, 3] >= south)
    astray = ~np.isfinite(boxes).all(axis=1)  # kept, for _flatten to refuse
    return np.flatnonzero(present & (near | astray))


def _flatten(geometries: npt.NDArray[Any], kept: Offsets, grid: Grid) -> Rings:
    kind, xy, offsets = shapely.to_ragged_array(geometries[kept], include_z=False)
    at = [np.asarray(offset, dtype=np.int64) for offset in offsets]
    if kind == shapely.GeometryType.POLYGON:
        at.append(np.arange(kept.size + 1, dtype=np.int64))
    x, y = np.ascontiguousarray(xy[:, 0]), np.ascontiguousarray(xy[:, 1])
    # NaN and infinity fail this too; the kernels index memory by these numbers.
    fine = (np.abs(x - grid.x0) < _FARTHEST * grid.dx) & (np.abs(y - grid.y0) < _FARTHEST * abs(grid.dy))
    if not fine.all():
        vertex = int(np.flatnonzero(~fine)[0])
        ring = np.searchsorted(at[0], vertex, side="right") - 1
        polygon = np.searchsorted(at[1], ring, side="right") - 1
        zone = kept[np.searchsorted(at[2], polygon, side="right") - 1]
        raise ValueError(f"zone {zone} has a vertex at ({x[vertex]}, {y[vertex]}): no place in {grid.crs}")
    return Rings(x, y, at[0], at[1], at[2], kept.astype(np.int32))
