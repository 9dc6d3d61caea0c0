"""The pieces of zones that lie in one CRS each: in a UTM zone, or in a raster's one CRS.

Knows polygons and CRSs; knows neither rasters nor the columns of a zone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj
import shapely

from zonal.errors import InputError
from zonal.geo.antimeridian import Geometries, laid_out, polygonal, unwrap
from zonal.geo.crs import WGS84, reached, reproject

MARGIN = 10.0
"""Degrees around a CRS's area of use in which zones are still projected where they cannot be as a whole."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """What of zones lies in each UTM zone (or in a raster's one CRS), in that CRS; p pieces.

    Parameters
    ----------
    zone : int64 ndarray[p]
        Row of the zone.
    epsg : int32 ndarray[p]
        EPSG code of the piece's UTM zone; 0 for a raster with one CRS of its own.
    geometry : object ndarray[p]
        (Multi)polygons in the piece's CRS, never empty.
    """

    zone: npt.NDArray[np.int64]
    epsg: npt.NDArray[np.int32]
    geometry: Geometries

    def __len__(self) -> int:
        return len(self.zone)

    def take(self, rows: npt.NDArray[Any]) -> Pieces:
        """Return some pieces (indices or mask)."""
        return Pieces(self.zone[rows], self.epsg[rows], self.geometry[rows])


def one_crs_pieces(geometry: Geometries, source: str, target: str, west: float | None = None) -> Pieces:
    """Project zones into the one CRS of a raster: a zone is one piece, uncut.

    Parameters
    ----------
    geometry : object ndarray[zone]
        (Multi)polygons in `source`.
    source, target : str
        CRSs as pyproj takes them.
    west : float, optional
        Degrees, where `target` is geographic: zones are laid between it and 360 degrees to the east,
        as the raster is. None leaves longitudes as they are.

    Raises
    ------
    InputError
        If a zone reaches from the CRS's own area to where it has no coordinates at all.
    """
    projected = reproject(geometry, source, target)
    lost = np.flatnonzero(shapely.is_empty(projected) & ~shapely.is_empty(geometry))
    if len(lost):
        projected[lost] = _within_reach(geometry[lost], source, target)
    if pyproj.CRS(target).is_geographic:
        if west is None and not pyproj.CRS(source).is_geographic:
            west = -180.0  # where PROJ begins
        projected = projected if west is None else laid_out(unwrap(projected), west)
    kept = np.flatnonzero(~shapely.is_empty(projected))
    return Pieces(kept, np.zeros(len(kept), np.int32), projected[kept])


def _within_reach(geometry: Geometries, source: str, target: str) -> Geometries:
    """Project zones that cannot be projected whole: what of them lies on and near the CRS's area of use."""
    lonlat = areas(unwrap(reproject(geometry, source, WGS84)))
    area = pyproj.CRS(target).area_of_use
    if area is None:  # those with no vertex in reach are too far away
        points, zone = shapely.get_coordinates(lonlat, return_index=True)
        lonlat = lonlat[np.unique(zone[reached(points, WGS84, target)])]
        if len(lonlat):
            raise _beyond_reach(len(lonlat), target)
        return np.full(len(geometry), shapely.Polygon())
    west, south, east, north = area.bounds
    turns = np.array([-360, 0, 360])
    for margin in (MARGIN, 0):
        sides = (west - margin, south - margin, east + 360 * (east < west) + margin, north + margin)
        reach = shapely.union_all(shapely.box(sides[0] + turns, sides[1], sides[2] + turns, sides[3]))
        near = areas(shapely.intersection(lonlat, reach))
        result = reproject(near, WGS84, target)
        left = int((shapely.is_empty(result) & ~shapely.is_empty(near)).sum())
        if not left:
            return result
    raise _beyond_reach(left, target)


def _beyond_reach(zones: int, target: str) -> InputError:
    return InputError(
        f"{zones} zones reach beyond where {target} has coordinates; cut them to the raster's area"
    )


def areas(geometry: Geometries) -> Geometries:
    """Polygonal parts only, and valid: overlays leave lines where edges touch, projections may fold."""
    mend = ~shapely.is_valid(geometry) | ~np.isin(shapely.get_type_id(geometry), [3, 6])
    result = geometry.copy()
    result[mend] = [polygonal(g) for g in shapely.make_valid(geometry[mend])]
    return result


def utm_pieces(lonlat: Geometries) -> Pieces:
    """Cut zones at the borders of the 6 degree UTM strips and at the equator, and project each piece.

    Parameters
    ----------
    lonlat : object ndarray[zone]
        (Multi)polygons in degrees (WGS84), unwrapped; empty ones have no piece.

    Returns
    -------
    Pieces
        Ordered by zone, then EPSG.
    """
    zone, strip, south, cut = _strips(lonlat)
    epsg = utm_epsg(strip, south)
    order = np.lexsort((epsg, zone))
    return project_to_utm(Pieces(zone[order], epsg[order], cut[order]))


def project_to_utm(lonlat: Pieces) -> Pieces:
    """Project pieces from longitude and latitude (WGS84) into the UTM zone that each names."""
    result = lonlat.geometry.copy()
    for code in np.unique(lonlat.epsg):
        rows = lonlat.epsg == code
        result[rows] = reproject(lonlat.geometry[rows], WGS84, f"EPSG:{code}")
    return Pieces(lonlat.zone, lonlat.epsg, result)


def utm_epsg(strip: npt.NDArray[np.int64], south: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """EPSG codes of WGS84 UTM zones: 32601 to 32660 north, 32701 to 32760 south; strip 0 begins at 180 W."""
    return (np.where(south, 32701, 32601) + strip % 60).astype(np.int32)


def _strips(
    lonlat: Geometries,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.bool_], Geometries]:
    """Cut polygons in degrees by strip and hemisphere: (zone row, strip, south, polygon)."""
    rows = np.flatnonzero(~shapely.is_empty(lonlat))
    bounds = shapely.bounds(lonlat[rows])
    first = np.floor((bounds[:, 0] + 180) / 6).astype(np.int64)
    # A zone whose eastern edge lies on a border has nothing beyond it.
    last = np.maximum(np.ceil((bounds[:, 2] + 180) / 6).astype(np.int64) - 1, first)
    both = (bounds[:, 1] < 0) & (bounds[:, 3] > 0)
    whole = (first == last) & ~both
    zone, strip = [rows[whole]], [first[whole]]
    south, cut = [bounds[whole, 3] <= 0], [lonlat[rows[whole]]]
    for at in np.flatnonzero(~whole):
        polygon = lonlat[rows[at]]
        for number in range(first[at], last[at] + 1):
            for below in (False, True):
                west = number * 6 - 180
                box = shapely.box(west, -90 if below else 0, west + 6, 0 if below else 90)
                piece = polygonal(shapely.intersection(polygon, box))
                if not piece.is_empty:
                    zone.append(rows[[at]])
                    strip.append(np.array([number]))
                    south.append(np.array([below]))
                    cut.append(np.array([piece], dtype=object))
    return np.concatenate(zone), np.concatenate(strip), np.concatenate(south), np.concatenate(cut)
