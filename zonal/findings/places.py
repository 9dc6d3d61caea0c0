"""Where a table's rows are: their polygons, a point for each, and the UTM zone that suits them.

Knows GeoParquet metadata, WKB and columns of coordinates; knows nothing of
statistics. Polygons are read some rows at a time and never held all at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyproj
import shapely

from zonal.errors import InputError, UnfitError, first_line
from zonal.findings.table import Table
from zonal.geo.antimeridian import Geometries, unwrap
from zonal.geo.crs import WGS84, crs_name, operation, reproject
from zonal.geo.pieces import utm_epsg

COORDINATES = (
    ("longitude", "latitude"),
    ("lon", "lat"),
    ("INTPTLON20", "INTPTLAT20"),
    ("INTPTLON", "INTPTLAT"),
)
"""Pairs of columns that are taken for a row's place where there is no geometry."""

COORDINATE_COLUMNS = tuple(name for pair in COORDINATES for name in pair)

EQUAL_AREA = "EPSG:6933"
"""Cylindrical equal-area projection of the whole Earth, metres."""

POLYGONAL = (3, 6)
"""shapely's numbers of Polygon and MultiPolygon."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """The geometry column of a table.

    Parameters
    ----------
    column : str
    crs : str
        As pyproj takes it; x is east.
    """

    column: str
    crs: str

    @classmethod
    def of(cls, table: Table) -> Geometry:
        """Read what the table says of its geometry.

        Raises
        ------
        InputError
            If it has none, or one that is not WKB, or no CRS.
        """
        geometry = cls.find(table)
        if geometry is None:
            raise UnfitError(f"{table.name} has no geometry (it is no GeoParquet): there is nothing to draw")
        return geometry

    @classmethod
    def find(cls, table: Table) -> Geometry | None:
        """As `of`, or None where there is no geometry."""
        geo = table.geo
        if geo is None:
            return None
        if geo.encoding != "WKB":
            raise InputError(f"{table.name}: geometry is encoded as {geo.encoding}; only WKB can be read")
        try:
            crs = geo.crs
        except (pyproj.exceptions.CRSError, TypeError) as error:
            raise InputError(f"{table.name}: its CRS cannot be read: {first_line(error)}") from None
        if crs is None:
            raise UnfitError(f"{table.name}: its geometry has no CRS, so no place on Earth")
        return cls(geo.name, crs_name(crs))

    def polygons(
        self, table: Table, columns: Sequence[str] = ()
    ) -> Iterator[tuple[Geometries, pa.RecordBatch]]:
        """Read polygons in the column's CRS, some rows at a time, each with further columns of its rows.

        Null becomes an empty polygon; so does what is no polygon.
        """
        for batch in table.batches([self.column, *columns]):
            polygons = self._shapes(table, batch)
            polygons[~np.isin(shapely.get_type_id(polygons), POLYGONAL)] = shapely.Polygon()
            yield polygons, batch.select(list(columns))

    def _shapes(self, table: Table, batch: pa.RecordBatch) -> Geometries:
        try:
            return np.array(shapely.from_wkb(batch.column(0).to_numpy(zero_copy_only=False)), object)
        except shapely.errors.GEOSException as error:
            raise InputError(
                f"{table.name}: {self.column} holds what is no WKB: {first_line(error)}"
            ) from None


def project(polygons: Geometries, source: str, target: str) -> Geometries:
    """Project polygons, those across the antimeridian made whole first."""
    whole = unwrap(polygons) if pyproj.CRS(source).is_geographic else polygons
    return reproject(whole, source, target)


def read_points(table: Table) -> npt.NDArray[np.float64] | None:
    """Find a point for each row.

    Returns
    -------
    float64 ndarray[row, 2] or None
        Longitude and latitude, degrees, WGS84: the middle of the polygon's bounds (a point's own place), or
        what columns of `COORDINATES` say; NaN where a row has neither. None where the table has neither.
    """
    geometry = Geometry.find(table)
    if geometry is None:
        names = {*table.schema.names}
        pair = next((pair for pair in COORDINATES if names.issuperset(pair)), None)
        if pair is None:
            return None
        columns = table.read(list(pair))
        return np.column_stack([_degrees(columns[name], table.name, name) for name in pair])
    middles = [np.empty((0, 2))]
    for batch in table.batches([geometry.column]):
        bounds = shapely.bounds(geometry._shapes(table, batch))
        if pyproj.CRS(geometry.crs).is_geographic:
            # Across the antimeridian: its eastern end counts.
            wide = bounds[:, 2] - bounds[:, 0] > 180
            bounds[wide, 0] = bounds[wide, 2]
        middles.append((bounds[:, :2] + bounds[:, 2:]) / 2)
    points = np.concatenate(middles)
    if geometry.crs != WGS84:
        known = np.isfinite(points).all(axis=1)
        moved = operation(geometry.crs, WGS84).transform(*points[known].T)
        points[known] = np.column_stack(moved)
    return points


def _degrees(values: pa.ChunkedArray, table: str, name: str) -> npt.NDArray[np.float64]:
    try:
        return np.array(pc.cast(values, pa.float64()).to_numpy(), float)
    except pa.ArrowException as error:
        raise InputError(f"{table}: {name} holds what is no number of degrees: {first_line(error)}") from None


def best_utm(points: npt.NDArray[np.float64]) -> str:
    """Choose the UTM zone whose 6 degree strip holds most of the points, of equal ones the western.

    Parameters
    ----------
    points : float64 ndarray[row, 2]
        Longitude and latitude, degrees; NaN counts for nothing.

    Returns
    -------
    str
        ``EPSG:326xx``, or ``EPSG:327xx`` where most of them lie south of the equator.

    Raises
    ------
    InputError
        If no row has a place.
    """
    known = points[np.isfinite(points).all(axis=1)]
    if not len(known):
        raise UnfitError("no row has a place on Earth: there is no UTM zone for them")
    strips = np.floor((known[:, 0] + 180) / 6).astype(int) % 60
    strip = np.array([np.bincount(strips).argmax()])
    south = np.array([np.median(known[:, 1]) < 0])
    return f"EPSG:{utm_epsg(strip, south)[0]}"
