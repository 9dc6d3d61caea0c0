"""Coordinate operations between two CRSs, and polygons carried from one to the other.

Knows polygons and CRSs. The operation between two CRSs is chosen once, by
rule, and can be named.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj
import shapely
from pyproj.transformer import Transformer, TransformerGroup

from zonal.errors import InputError, first_line
from zonal.geo.antimeridian import Geometries

Points = npt.NDArray[np.float64]

CHORD = 0.1
"""Metres by which an edge may leave its true course through all its reprojections together."""

MOST_SEGMENTS = 100_000
"""An edge is never cut into more: a bound for hostile input, far above any real edge."""
MOST_VERTICES = 20_000_000
"""A polygon whose edges ask for more is refused: another such bound."""

THREADS = min(4, os.cpu_count() or 1)
"""Of the driver, at once: more of them wait for memory."""
SLICE = 2_048
"""Polygons looked at together by one thread, at most: their coordinates stay in the processor's cache."""

NO_OPERATION = "proj=noop"
"""How the definition of an operation begins that leaves coordinates as they are."""

FARTHEST = 1e9
"""Metres from the origin of a CRS at which no place on Earth lies."""

WGS84 = "EPSG:4326"
EARTH_RADIUS = 6_378_137.0


def crs_name(crs: pyproj.CRS) -> str:
    """Name a CRS as pyproj takes it: by its authority's code if it has one, else in WKT."""
    authority = crs.to_authority(min_confidence=100)
    return ":".join(authority) if authority else str(crs.to_wkt())


@lru_cache(maxsize=256)
def operation(source: str, target: str) -> Transformer:
    """Return the one coordinate operation used between two CRSs.

    What pyproj picks by itself depends on the place and on the grids that
    happen to be installed; a table must not. So: the most accurate operation
    that needs no grid file, and among equals the one with the shortest
    definition. Its `description` is recorded in the manifest.
    """
    try:
        for crs in map(pyproj.CRS, (source, target)):
            flat = crs.is_projected or crs.is_geographic
            if not flat and (crs.is_geocentric or crs.is_vertical):
                raise InputError(f"{crs.name} is no CRS of a map; expected a projected or geographic one")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # "best transformation needs grid ...": not wanted
            group = TransformerGroup(source, target, always_xy=True)
    except (pyproj.exceptions.ProjError, IndexError) as error:
        raise InputError(f"no way leads from {source} to {target}: {first_line(error)}") from None
    free = [t for t in group.transformers if "grids=" not in t.definition]
    if not free:
        raise InputError(f"no coordinate operation without grid files leads from {source} to {target}")
    return min(
        free, key=lambda t: (t.accuracy if t.accuracy >= 0 else np.inf, len(t.definition), t.definition)
    )


@lru_cache(maxsize=256)
def _shared(source: str, target: str) -> Transformer:
    """Return the same operation for several threads at once: one of a group is for one thread only."""
    return Transformer.from_pipeline(operation(source, target).definition)


def in_threads(function: Callable[[Geometries], npt.NDArray[Any]], values: Geometries) -> npt.NDArray[Any]:
    """Apply a function of each polygon by itself to many, in slices, in a few threads.

    GEOS and PROJ let go of the interpreter while they work. The result is that of ``function(values)``.
    """
    size = min(SLICE, -(-len(values) // THREADS))
    if size < 1_000 or len(values) <= size:
        return function(values)
    slices = [values[start : start + size] for start in range(0, len(values), size)]
    with ThreadPoolExecutor(THREADS) as pool:
        return np.concatenate(list(pool.map(function, slices)))


def operation_name(source: str, target: str) -> str:
    """Say which operation `operation` chose, as recorded in the manifest."""
    chosen = operation(source, target)
    return f"{chosen.description or chosen.name} [{chosen.definition}]"


def unit_name(crs: str) -> str:
    """Name the unit of a CRS's coordinates: ``metre``, ``degree``, ``US survey foot``."""
    return str(pyproj.CRS(crs).axis_info[0].unit_name)


def metres_per_unit(crs: str) -> float:
    """Length of one unit of a CRS in metres (a degree counts on the equator)."""
    parsed = pyproj.CRS.from_user_input(crs)
    factor = float(parsed.axis_info[0].unit_conversion_factor) or 1.0
    return factor * EARTH_RADIUS if parsed.is_geographic else factor


def reproject(geometries: Geometries, source: str, target: str, chord: float = CHORD / 2) -> Geometries:
    """Project polygons, adding vertices where a straight edge would leave its course.

    Parameters
    ----------
    geometries : object ndarray[k] of (multi)polygons in `source`
    source, target : str
        CRSs as pyproj takes them; x is east in both.
    chord : float
        Largest distance allowed between an edge's true image and its chord,
        metres. The deviation at the midpoint is measured; for the smooth
        curves that projections make of short edges it falls with the square
        of the number of segments.
    """
    if (
        source == target
        or not len(geometries)
        or operation(source, target).definition.startswith(NO_OPERATION)
    ):
        return geometries
    limit = chord / metres_per_unit(target)
    # A jump across the antimeridian is no bend (`unwrap` mends it).
    jump = 180.0 if pyproj.CRS(target).is_geographic else np.inf
    transformer = _shared(source, target)
    return in_threads(
        lambda some: _project(some, transformer, limit, 200 / metres_per_unit(target), jump), geometries
    )


def _project(
    geometries: Geometries, transformer: Transformer, limit: float, short: float, jump: float
) -> Geometries:
    """Project polygons; edges over `short` and under `jump` bend by `limit` at most (units of the target)."""
    points, owner = shapely.get_coordinates(geometries, return_index=True)
    projected = _transformed(points, transformer)
    with np.errstate(invalid="ignore"):  # infinity where the projection does not reach
        steps = np.maximum(*np.abs(np.diff(projected, axis=0)).T)
    # The midpoints of shorter edges need no look: over 200 m no map projection in use bends by 5 cm.
    # Between two rings, the "edge" that is no edge does no harm: its polygon only gets a second look.
    long = (owner[1:] == owner[:-1]) & (steps > short) & (steps < jump)
    start, end = points[:-1][long], points[1:][long]
    away = _bend(start, end, projected[:-1][long], projected[1:][long], transformer)
    # Too far away for the projection: no ground of this CRS, so an empty piece.
    most = short * FARTHEST / 200
    reached = (np.abs(projected) < most).all(axis=1)  # NaN and infinity are not
    lost = np.union1d(owner[~reached], owner[1:][long][~np.isfinite(away)])
    result: Geometries = shapely.set_coordinates(geometries.copy(), projected)
    for polygon in np.setdiff1d(owner[1:][long][away > limit], lost):
        result[polygon] = _densify(geometries[polygon], transformer, limit)
        if not (np.abs(shapely.bounds(result[polygon])) < most).all():
            result[polygon] = shapely.Polygon()
    result[lost] = shapely.Polygon()
    return result


def reached(points: Points, source: str, target: str) -> npt.NDArray[np.bool_]:
    """Which of some points (float64 ndarray[k, 2] in `source`) have coordinates in `target` at all."""
    image = _transformed(points, _shared(source, target))
    return np.asarray(np.isfinite(image).all(axis=1))


def _transformed(points: Points, transformer: Transformer) -> Points:
    return np.column_stack(transformer.transform(points[:, 0], points[:, 1]))


def _bend(
    start: Points, end: Points, image_start: Points, image_end: Points, transformer: Transformer
) -> npt.NDArray[np.float64]:
    """Distance between the projected midpoint of each edge and the midpoint of its projection."""
    true = _transformed((start + end) / 2, transformer)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.hypot(*(true - (image_start + image_end) / 2).T))


def _densify(geometry: shapely.Geometry, transformer: Transformer, limit: float) -> shapely.Geometry:
    """Project one polygon with each edge cut into as many segments as its own bend asks for."""

    def ring(line: shapely.Geometry) -> shapely.Geometry:
        points = shapely.get_coordinates(line)
        image = _transformed(points, transformer)
        start, end = points[:-1], points[1:]
        away = _bend(start, end, image[:-1], image[1:], transformer)
        away[~np.isfinite(away)] = 0  # of an edge too short to be looked at
        count = np.clip(np.ceil(np.sqrt(away / limit)), 1, MOST_SEGMENTS).astype(np.int64)
        if count.sum() > MOST_VERTICES:
            raise InputError(
                f"a zone has edges so long that they would need {count.sum():,} vertices; cut it"
            )
        edge = np.repeat(np.arange(len(count)), count)
        step = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
        along = (step / count[edge])[:, None]
        dense = np.vstack([start[edge] * (1 - along) + end[edge] * along, points[-1:]])
        return shapely.linearrings(_transformed(dense, transformer))

    polygons = [
        shapely.polygons(ring(p.exterior), [ring(hole) for hole in p.interiors] or None)
        for p in shapely.get_parts(geometry)
    ]
    return polygons[0] if len(polygons) == 1 else shapely.multipolygons(polygons)
