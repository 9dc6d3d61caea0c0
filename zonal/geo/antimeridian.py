"""Polygons in degrees on a round Earth: across the antimeridian, around a pole, laid out on one map.

Knows longitudes and rings; knows neither CRSs nor rasters.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import shapely

Geometries = npt.NDArray[np.object_]

POLE = 90 - 1e-9
"""Latitude from which a point is the pole: edges between such points have no length on the ground."""


def unwrap(lonlat: Geometries) -> Geometries:
    """Make polygons that cross the antimeridian or go around a pole whole, with longitudes beyond 180.

    An edge over 180 degrees long is taken for one that crosses it, but for one that ends on a pole, and for
    those of a belt around the Earth. A ring that then goes once around holds the nearer pole.
    The parts of a multipolygon come side by side.
    """
    bounds = shapely.bounds(lonlat)
    wide = np.flatnonzero(bounds[:, 2] - bounds[:, 0] > 180)
    result = lonlat.copy() if len(wide) else lonlat
    for row in wide:
        parts = shapely.get_parts(shapely.get_parts(lonlat[row]))
        parts = np.array([_whole(part) if part.geom_type == "Polygon" else part for part in parts], object)
        sides = shapely.bounds(parts)
        moved = np.where(sides[:, [2]] <= 0, 360.0, 0.0)
        if np.ptp(sides[:, [0, 2]] + moved) < np.ptp(sides[:, [0, 2]]):
            parts = np.array([_turned(part, by) for part, by in zip(parts, moved[:, 0], strict=True)], object)
        kinds = {part.geom_type for part in parts}
        together = shapely.multipolygons if kinds == {"Polygon"} else shapely.geometrycollections
        result[row] = parts[0] if len(parts) == 1 else together(parts)
    return result


def _whole(polygon: shapely.Geometry) -> shapely.Geometry:
    """Make one polygon in degrees whole."""
    rings = shapely.get_rings(polygon)
    crossings = [_crossings(ring) for ring in rings]
    if not any(crossings):
        return polygon
    if not any(count % 2 for count in crossings):
        turned = shapely.transform(polygon, lambda xy: xy + np.where(xy[:, :1] < 0, [360.0, 0.0], 0.0))
        return turned if turned.area > 0 else polygon  # else it is a belt around the Earth
    areas_of = laid_out(np.array([_closed_over_pole(ring) for ring in rings], object), -180)
    return polygonal(shapely.difference(areas_of[0], shapely.union_all(areas_of[1:])))


def _crossings(ring: shapely.Geometry) -> int:
    x, y = shapely.get_coordinates(ring).T
    polar = np.abs(y) > POLE
    return int(((np.abs(np.diff(x)) > 180) & ~polar[1:] & ~polar[:-1]).sum())


def _closed_over_pole(ring: shapely.Geometry) -> shapely.Geometry:
    x, y = shapely.get_coordinates(ring).T
    x = np.unwrap(x, period=360)
    if abs(x[-1] - x[0]) > 180:
        pole = np.copysign(90, y.mean())
        x, y = np.append(x, x[[-1, 0]]), np.append(y, [pole, pole])
    return shapely.make_valid(shapely.polygons(np.column_stack([x, y])))


def _turned(lonlat: shapely.Geometry, by: float) -> shapely.Geometry:
    """Move a geometry around the Earth, to the east."""
    return shapely.transform(lonlat, lambda xy: xy + np.array([by, 0.0])) if by else lonlat


def laid_out(lonlat: Geometries, west: float) -> Geometries:
    """Turn polygons in degrees, and cut them where needed, so that they lie from `west` to 360 degrees on."""
    bounds = shapely.bounds(lonlat)
    result = lonlat.copy()
    window = shapely.box(west, -90, west + 360, 90)
    for at in np.flatnonzero((bounds[:, 0] < west) | (bounds[:, 2] > west + 360)):
        turned = [_turned(lonlat[at], turn) for turn in (-720, -360, 0, 360, 720)]
        result[at] = polygonal(shapely.GeometryCollection([shapely.intersection(t, window) for t in turned]))
    return result


def polygonal(geometry: shapely.Geometry) -> shapely.Geometry:
    """Return the polygons of any geometry, as one (multi)polygon."""
    parts = shapely.get_parts(shapely.get_parts([geometry]))
    areas = parts[np.isin(shapely.get_type_id(parts), [3, 6])]
    return shapely.union_all(areas) if len(areas) else shapely.Polygon()
