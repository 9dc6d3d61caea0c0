"""Zones as frames: checks, filters, repair and order in space.

Frames in, frames out: knows polygons and columns, no file and no raster.
Every row that is dropped is counted under a reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyproj
import shapely

from zonal.errors import InputError
from zonal.geo.antimeridian import polygonal, unwrap
from zonal.geo.crs import FARTHEST, WGS84, in_threads, reproject
from zonal.geo.grid import Bounds


@dataclass(frozen=True, slots=True)
class Filters:
    """Which zones of a source are wanted.

    Parameters
    ----------
    bbox : (west, south, east, north) or None
        Degrees; whole zones that intersect it are kept.
    county : tuple of str
        3- or 5-digit county FIPS codes, matched against the end of state + county.
    max_land_km2 : float or None
        Largest land area kept, km2.
    keep_water : bool
        Whether zones without land stay.
    """

    bbox: Bounds | None = None
    county: tuple[str, ...] = ()
    max_land_km2: float | None = None
    keep_water: bool = False


@dataclass(frozen=True, slots=True)
class ZoneColumns:
    """Names of the columns that filters need; None where a source has no such column."""

    zone_id: str
    land_area: str | None = None
    state: str | None = None
    county: str | None = None


def check(frame: gpd.GeoDataFrame, columns: ZoneColumns, source: str) -> None:
    """Raise InputError unless `frame` has a CRS, columns of different names, unique ids and polygons only."""
    if frame.crs is None:
        raise InputError(f"{source}: the zones have no CRS; set one in the file (e.g. with ogr2ogr -a_srs)")
    names = frame.columns
    if names.has_duplicates:
        raise InputError(f"{source}: two columns are named {names[names.duplicated()][0]!r}; rename one")
    shapes = [c for c in names if c != frame.geometry.name and frame[c].dtype == "geometry"]
    if shapes:
        raise InputError(
            f"{source}: column {shapes[0]!r} holds geometries too, beside {frame.geometry.name!r}; "
            "zones have one geometry: drop the other column"
        )
    if columns.zone_id not in frame.columns:
        have = ", ".join(map(str, frame.columns[:12]))
        raise InputError(f"{source}: no column {columns.zone_id!r} for the zone id; it has {have}")
    ids = frame[columns.zone_id]
    if ids.isna().any():
        raise InputError(f"{source}: {int(ids.isna().sum())} zones have no {columns.zone_id}")
    twice = ids[ids.duplicated()]
    if len(twice):
        raise InputError(
            f"{source}: {len(twice)} ids in {columns.zone_id} occur more than once, e.g. {twice.iloc[0]!r}"
        )
    _check_types(frame, columns.zone_id, source)
    _check_places(frame, source)
    kinds = shapely.get_type_id(frame.geometry.to_numpy())
    wrong = ~np.isin(kinds, [-1, 3, 6, 7])  # missing, Polygon, MultiPolygon, GeometryCollection
    if wrong.any():
        first = frame.geometry.iloc[int(np.argmax(wrong))].geom_type
        raise InputError(f"{source}: {int(wrong.sum())} zones are not polygons (the first is a {first})")


def _check_types(frame: gpd.GeoDataFrame, zone_id: str, source: str) -> None:
    """Raise InputError for a column of Python objects that no table can hold, and for odd types of ids."""
    for name in frame.columns.drop(frame.geometry.name):
        if name != zone_id and frame[name].dtype != object:
            continue
        try:
            kind = pa.array(frame[name], from_pandas=True).type
        except (pa.ArrowException, ValueError, OverflowError) as error:
            reason = str(error.args[0] if error.args else error).split("\n")[0]
            raise InputError(f"{source}: column {name!r} has values of no one type: {reason}") from None
        if name == zone_id and (pa.types.is_nested(kind) or pa.types.is_binary(kind)):
            raise InputError(f"{source}: the ids in {name} are {kind}, expected text or numbers")


def _check_places(frame: gpd.GeoDataFrame, source: str) -> None:
    """Raise InputError for coordinates that are no place on Earth."""
    crs = pyproj.CRS(frame.crs)
    unit = (crs.axis_info[0].unit_conversion_factor if crs.axis_info else 0.0) or 1.0  # metres or radians
    most = np.array([np.pi * 3, np.pi / 2] if crs.is_geographic else [FARTHEST, FARTHEST]) / unit
    bounds = shapely.bounds(frame.geometry.to_numpy())
    # Not NaN (an empty zone, or one for `repair` to refuse), nor infinity.
    astray = ((np.abs(bounds) > np.tile(most, 2) * (1 + 1e-9)) & np.isfinite(bounds)).any(axis=1)
    if astray.any():
        zone = int(np.argmax(astray))
        raise InputError(
            f"{source}: {int(astray.sum())} zones lie at coordinates that are no place on Earth "
            f"(the first within {', '.join(f'{side:g}' for side in bounds[zone])}); "
            "is that their CRS, and x before y?"
        )


def select(
    frame: gpd.GeoDataFrame, filters: Filters, columns: ZoneColumns, source: str
) -> tuple[gpd.GeoDataFrame, dict[str, int]]:
    """Keep the zones that the filters want.

    Returns
    -------
    (GeoDataFrame, dict of str to int)
        The zones kept, in their old order, and the number dropped by reason;
        a zone is counted under the first reason that drops it.
    """
    reasons: list[tuple[str, Callable[[], npt.NDArray[np.bool_]]]] = []
    if filters.county:
        reasons.append(
            ("outside the counties", lambda: ~_in_counties(frame, filters.county, columns, source))
        )
    if filters.bbox is not None:
        reasons.append(("outside the bbox", lambda: ~_in_bbox(frame, filters.bbox)))
    land = columns.land_area
    if land is not None and land in frame.columns:
        # Areas may be text, or nullable: one that is no number says nothing, and drops nothing.
        area = pd.to_numeric(frame[land], errors="coerce").to_numpy(float, na_value=np.nan)
        if not filters.keep_water:
            reasons.append(("all water", lambda: area == 0))
        if (limit := filters.max_land_km2) is not None:
            reasons.append((f"over {limit:g} km2", lambda: area > limit * 1e6))
    elif filters.max_land_km2 is not None:
        raise InputError(f"{source}: max_land_km2 needs a column of land area (ALAND20 or ALAND, m2)")
    keep = np.ones(len(frame), bool)
    dropped = {}
    for reason, test in reasons:
        out = keep & test()
        dropped[reason] = int(out.sum())
        keep &= ~out
    return (frame if keep.all() else frame[keep]), dropped


def _in_counties(
    frame: gpd.GeoDataFrame, codes: Sequence[str], columns: ZoneColumns, source: str
) -> npt.NDArray[np.bool_]:
    if columns.county is None or columns.county not in frame.columns:
        raise InputError(f"{source}: no column of county codes, which --county needs")
    county = _fips(frame[columns.county], 3)
    keep = county.isin([code for code in codes if len(code) == 3])
    long = [code for code in codes if len(code) == 5]
    if long:
        if columns.state is None or columns.state not in frame.columns:
            raise InputError(f"{source}: no column of state codes, which a 5-digit --county needs")
        keep |= (_fips(frame[columns.state], 2) + county).isin(long)
    return np.asarray(keep, bool)


def _fips(codes: pd.Series, digits: int) -> pd.Series:
    """Codes as text, with the leading zeros that a column of numbers has lost."""
    if pd.api.types.is_numeric_dtype(codes):
        codes = codes.where(codes % 1 == 0).astype("Int64")  # floats, for the sake of nulls
    return codes.astype(str).str.zfill(digits)


def _in_bbox(frame: gpd.GeoDataFrame, bbox: Bounds | None) -> npt.NDArray[np.bool_]:
    assert bbox is not None
    geometry = frame.geometry.to_numpy()
    west, south, east, north = bbox
    if frame.crs.is_geographic:
        # Zones across the antimeridian are made whole; where their longitudes then begin is their affair.
        geometry = unwrap(geometry)
        turns = np.array([-360, 0, 360])
        box = shapely.multipolygons(shapely.box(west + turns, south, east + turns, north))
    else:
        # Densified to about 1 km, so that the box keeps its curved sides in the zones' CRS.
        dense = shapely.segmentize(shapely.box(west, south, east, north), 0.01)
        box = reproject(np.array([dense]), WGS84, frame.crs.to_wkt())[0]
    shapely.prepare(box)
    return np.asarray(shapely.intersects(box, geometry))


def repair(frame: gpd.GeoDataFrame, source: str) -> tuple[gpd.GeoDataFrame, dict[str, int]]:
    """Make every geometry a valid, two-dimensional (multi)polygon, or empty.

    Returns
    -------
    (GeoDataFrame, dict of str to int)
        The same rows, and how many were ``repaired`` (shapely.make_valid,
        polygonal part) and are ``empty`` (missing, or nothing polygonal left).
    """
    old = frame.geometry.to_numpy()
    new = np.where(shapely.is_missing(old), shapely.Polygon(), old)
    thick = shapely.get_coordinate_dimension(new) > 2
    new[thick] = shapely.force_2d(new[thick])
    bad = ~in_threads(shapely.is_valid, new) | (shapely.get_type_id(new) == 7)
    points, owner = shapely.get_coordinates(new[bad], return_index=True)
    broken = np.unique(owner[~np.isfinite(points).all(axis=1)])  # never among the valid ones
    if len(broken):
        raise InputError(f"{source}: {len(broken)} zones have coordinates that are not finite numbers")
    # Across the antimeridian, edges may only seem to cross each other: look at the polygon made whole.
    whole = unwrap(new[bad]) if frame.crs is not None and frame.crs.is_geographic else new[bad]
    new[bad] = [polygonal(g) for g in shapely.make_valid(whole)]
    empty = shapely.is_empty(new)
    new[empty] = shapely.Polygon()
    counts = {"repaired": int((bad & ~empty).sum()), "empty": int(empty.sum())}
    return frame.set_geometry(gpd.GeoSeries(new, index=frame.index, crs=frame.crs)), counts


def whole_numbers(frame: gpd.GeoDataFrame, names: Sequence[str]) -> gpd.GeoDataFrame:
    """Make counts that a file holds as floats, for the sake of nulls, integers again (nullable).

    One state's POP20 may have nulls and another's none; in a table of both the column has one type.

    Parameters
    ----------
    names : sequence of str
        Columns to look at; those with any fraction stay as they are.
    """
    floats = [c for c in names if c in frame.columns and frame[c].dtype.kind == "f"]
    whole = [c for c in floats if (frame[c].dropna() % 1 == 0).all()]
    return frame.astype(dict.fromkeys(whole, "Int64"))


def in_space(frame: gpd.GeoDataFrame, zone_id: str) -> gpd.GeoDataFrame:
    """Sort zones along a Hilbert curve over their own extent (ties by id), empty ones last."""
    if not len(frame):
        return frame
    empty = frame.geometry.is_empty.to_numpy()
    distance = np.full(len(frame), np.iinfo(np.int64).max)  # beyond any on the curve
    if not empty.all():
        shapes = frame.geometry[~empty]
        distance[~empty] = shapes.hilbert_distance(total_bounds=tuple(shapes.total_bounds))
    order = np.argsort(distance, kind="stable")
    # Few zones share a place on the curve: only they are put in order by their ids.
    along = distance[order]
    same = along[1:] == along[:-1]
    tied = np.flatnonzero(np.concatenate([[False], same]) | np.concatenate([same, [False]]))
    ids = frame[zone_id].iloc[order[tied]].astype(str).to_numpy(object)
    order[tied] = order[tied][np.lexsort((ids, along[tied]))]
    return frame.iloc[order].reset_index(drop=True)


def hashes_of(ids: pd.Series) -> npt.NDArray[np.uint64]:
    """64-bit hashes of ids; equal ids have equal ones, whatever type of numbers their files hold."""
    if pd.api.types.is_numeric_dtype(ids):
        return np.asarray(pd.util.hash_array(ids.to_numpy(np.float64)))
    return np.asarray(pd.util.hash_array(ids.to_numpy(object), categorize=False))
