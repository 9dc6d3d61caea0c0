"""Polygons of larger areas: those of their zones, united or measured.

Knows polygons and CRSs; knows nothing of statistics or files. Polygons are read
some rows at a time.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

from zonal.findings.areas.membership import Areas
from zonal.findings.areas.moments import has_pixels
from zonal.findings.places import EQUAL_AREA, Geometry, project
from zonal.findings.table import Floats, Table, floats
from zonal.geo.antimeridian import Geometries
from zonal.geo.pieces import areas


@dataclass(frozen=True, slots=True)
class United:
    """Polygons of larger areas.

    Parameters
    ----------
    geometry : object ndarray[area]
        In the table's CRS; empty where no zone has a polygon.
    misfits : int
        Areas whose zones overlap, or have borders that do not agree.
    """

    geometry: Geometries
    misfits: int


def unite(table: Table, geometry: Geometry, areas_of: Areas) -> United:
    """Unite the polygons of each area.

    An area's polygons are held from its first row to its last: of a table in the order of space, those of a
    few areas at a time. Zones that fit together lose the borders between them and keep every vertex
    (GEOS's coverage union); others are united by overlay.
    """
    last = np.zeros(len(areas_of.ids), np.intp)
    inside = np.flatnonzero(areas_of.code >= 0)
    # Later rows win.
    last[areas_of.code[inside]] = inside
    united = np.full(len(last), shapely.Polygon(), object)
    open_areas: dict[int, list[shapely.Geometry]] = defaultdict(list)
    misfits = row = 0
    for polygons, _ in geometry.polygons(table):
        for polygon in polygons:
            area = int(areas_of.code[row])
            if area >= 0:
                open_areas[area].append(polygon)
                if row == last[area]:
                    united[area], fits = _united(np.array(open_areas.pop(area), object))
                    misfits += not fits
            row += 1
    return United(united, misfits)


def _united(polygons: Geometries) -> tuple[shapely.Geometry, bool]:
    """Unite polygons; say whether they fit together."""
    polygons = shapely.force_2d(polygons[~shapely.is_empty(polygons)])
    if shapely.is_valid(polygons).all() and shapely.coverage_is_valid(polygons):
        return _polygonal(shapely.coverage_union_all(polygons)), True
    return _polygonal(shapely.union_all(areas(polygons))), False


def _polygonal(shape: shapely.Geometry) -> shapely.Geometry:
    """Polygons only, and valid."""
    polygons = areas(np.array([shape], object))[0]
    return shapely.Polygon() if polygons.is_empty else polygons


def measure(table: Table, geometry: Geometry, areas_of: Areas, wanted: npt.NDArray[np.bool_]) -> Floats:
    """Measure how much larger some areas are than their zones that have pixels.

    Parameters
    ----------
    table : Table
        With `pixel_count` and `valid_fraction`.
    geometry : Geometry
    areas_of : Areas
    wanted : bool ndarray[area]
        Areas to measure.

    Returns
    -------
    float64 ndarray[area]
        Ground of all zones over ground of the zones that have pixels, in an equal-area projection; NaN for
        areas that were not measured.
    """
    every, seen = np.zeros(len(wanted)), np.zeros(len(wanted))
    start = 0
    for polygons, batch in geometry.polygons(table, ["pixel_count", "valid_fraction"]):
        code = areas_of.code[start : start + len(polygons)]
        start += len(polygons)
        here = np.flatnonzero((code >= 0) & wanted[code])
        ground = shapely.area(project(polygons[here], geometry.crs, EQUAL_AREA))
        has = has_pixels(floats(batch["pixel_count"]), floats(batch["valid_fraction"]))[here]
        np.add.at(every, code[here], ground)
        np.add.at(seen, code[here[has]], ground[has])
    whole = np.full(len(wanted), np.nan)
    np.divide(every, seen, out=whole, where=seen > 0)
    return whole
