"""The tile index, and which ground each tile owns.

Knows index rows, extents and pieces; opens no file. Ownership is what makes
overlapping tiles count ground once: first by UTM strip, then by path inside a
UTM zone, and ground that the owner's files leave out goes to a neighbour.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely

from zonal.errors import InputError
from zonal.geo.antimeridian import Geometries, polygonal, unwrap
from zonal.geo.crs import WGS84, reproject
from zonal.geo.grid import Grid
from zonal.geo.pieces import Pieces, areas, project_to_utm

INDEX_COLUMNS = (
    "path", "year", "crs",
    "utm_west", "utm_south", "utm_east", "utm_north",
    "wgs84_west", "wgs84_south", "wgs84_east", "wgs84_north",
)  # fmt: skip
"""What the join needs of a tile index; other columns are not read."""

GROWN = 0.01
"""Degrees added around a tile's WGS84 box: its edges are not straight in degrees (143 m off at 47 N)."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One raster file of the run.

    Parameters
    ----------
    path : str
        As the index gives it (before any mirror): the tile's identity.
    epsg : int
        EPSG code of its UTM zone; 0 where the raster has one CRS of its own.
    grid : Grid
        Placement and chunks.
    ground : bytes or None
        WKB of the part of its extent that it owns, in its CRS; None for all of it.
    """

    path: str
    epsg: int
    grid: Grid
    ground: bytes | None = None

    @property
    def extent(self) -> shapely.Geometry:
        """Rectangle that the file covers, in its CRS."""
        return shapely.box(*self.grid.bounds)

    @property
    def owned(self) -> shapely.Geometry:
        """Polygon of the ground it owns, in its CRS."""
        return self.extent if self.ground is None else shapely.from_wkb(self.ground)


@dataclass(frozen=True, slots=True)
class TileSpec:
    """What an index does not say of its files: pixel size (CRS units), chunk (pixels), row direction."""

    resolution: float
    chunk: int
    south_up: bool


def near(index: pd.DataFrame, year: int, boxes: npt.NDArray[np.float64], source: str) -> pd.DataFrame:
    """Rows of the index that may hold some of the boxes in a year.

    Parameters
    ----------
    index : DataFrame
        With `INDEX_COLUMNS`.
    boxes : float64 ndarray[k, 4]
        (west, south, east, north) in degrees; longitudes may pass 180.

    Raises
    ------
    InputError
        If a column is missing, or the index has no rows, or none of that year, or a tile of that year
        has no path or no place.
    """
    missing = [column for column in INDEX_COLUMNS if column not in index.columns]
    if missing:
        raise InputError(f"{source}: no column {missing[0]!r}; is it the index of another product?")
    if not len(index):
        raise InputError(f"{source}: the tile index has no rows; was it written in full?")
    of_year = pd.to_numeric(index["year"], errors="coerce")
    rows = index[of_year == year]
    if not len(rows):
        years = sorted({int(y) for y in of_year[np.isfinite(of_year)].unique()})
        raise InputError(f"{source}: no tiles of {year}; it has {_ranges(years) or 'no year'}")
    rows = _placed(rows, source)
    west, south, east, north = (
        rows[f"wgs84_{side}"].to_numpy(float) for side in ("west", "south", "east", "north")
    )
    east = np.where(east < west, east + 360, east)  # a box across the antimeridian
    hit = np.zeros(len(rows), bool)
    for turn in (-360, 0, 360):
        grown = shapely.box(west - GROWN + turn, south - GROWN, east + GROWN + turn, north + GROWN)
        hit[np.unique(shapely.STRtree(grown).query(shapely.box(*boxes.T))[1])] = True
    return rows[hit]


def _placed(rows: pd.DataFrame, source: str) -> pd.DataFrame:
    """Return the rows with numbers for sides, after checking that each has a path and a place."""
    sides = [column for column in INDEX_COLUMNS if column.startswith(("utm_", "wgs84_"))]
    numbers = rows[sides].apply(pd.to_numeric, errors="coerce").astype(float)
    most = [1e9 if side.startswith("utm_") else 540.0 for side in sides]
    lost = ~(numbers.abs() <= most).all(axis=1).to_numpy()  # NaN is not
    named = np.array([isinstance(path, str) and bool(path.strip()) for path in rows["path"]], bool)
    if not named.all():
        raise InputError(f"{source}: {int((~named).sum())} tiles have no path that is text; is it damaged?")
    if lost.any():
        at = int(np.argmax(lost))
        raise InputError(
            f"{source}: tile {rows['path'].iloc[at]}: bounds {', '.join(map(str, rows[sides].iloc[at]))} "
            "are no place on Earth; is the index damaged?"
        )
    return rows.assign(**numbers)


def _ranges(years: Sequence[int]) -> str:
    if len(years) > 1 and years == list(range(years[0], years[-1] + 1)):
        return f"{years[0]} to {years[-1]}"
    return ", ".join(map(str, years))


def from_index(rows: pd.DataFrame, spec: TileSpec, source: str) -> list[Tile]:
    """Tiles of index rows, with the grid that their files should have."""
    tiles = []
    for row in rows.drop_duplicates("path").itertuples():
        code = str(row.crs).removeprefix("EPSG:")
        if not (code.isdigit() and code[:3] in ("326", "327") and 1 <= int(code[3:]) <= 60):
            raise InputError(
                f"{source}: tile {row.path}: crs {row.crs!r} is no WGS 84 UTM zone (EPSG:326xx, 327xx)"
            )
        size = spec.resolution
        width, height = (row.utm_east - row.utm_west) / size, (row.utm_north - row.utm_south) / size
        if not (0 < width < 1e7 and 0 < height < 1e7 and width == round(width) and height == round(height)):
            raise InputError(
                f"{source}: tile {row.path}: bounds {row.utm_west}, {row.utm_south}, {row.utm_east}, "
                f"{row.utm_north} are not a whole number of {size:g} m pixels"
            )
        grid = Grid(
            crs=f"EPSG:{code}",
            x0=float(row.utm_west),
            y0=float(row.utm_south if spec.south_up else row.utm_north),
            dx=size,
            dy=size if spec.south_up else -size,
            width=round(width),
            height=round(height),
            chunk_width=spec.chunk,
            chunk_height=spec.chunk,
        )
        tiles.append(Tile(str(row.path), int(code), grid))
    return tiles


def own(tiles: Iterable[Tile]) -> list[Tile]:
    """Order tiles by (EPSG, path) and give each the ground that no tile before it holds."""
    ordered = sorted(tiles, key=lambda tile: (tile.epsg, tile.path))
    owned: list[Tile] = []
    for epsg in sorted({tile.epsg for tile in ordered}):
        group = [tile for tile in ordered if tile.epsg == epsg]
        extents = np.array([tile.extent for tile in group], dtype=object)
        tree = shapely.STRtree(extents)
        for at, tile in enumerate(group):
            earlier = [j for j in tree.query(extents[at]) if j < at]
            rest = shapely.difference(extents[at], shapely.union_all(extents[earlier]))
            if earlier and rest.area < extents[at].area:
                tile = replace(tile, ground=shapely.to_wkb(polygonal(rest)))
            owned.append(tile)
    return owned


def foreign_pieces(pieces: Pieces, tiles: Sequence[Tile]) -> Pieces:
    """Pieces of ground that the files of its own UTM zone do not hold but a neighbour's do.

    Parameters
    ----------
    pieces : Pieces
        As `utm_pieces` cuts them.
    tiles : sequence of Tile
        All tiles of the year near the pieces.

    Returns
    -------
    Pieces
        In the neighbours' CRSs. On the western half of a strip the western
        neighbour is asked first, on the eastern half the eastern one, then
        the same strip on the other side of the equator.
    """
    held = {
        epsg: shapely.union_all([tile.extent for tile in tiles if tile.epsg == epsg])
        for epsg in sorted({tile.epsg for tile in tiles})
    }
    foreign: list[Pieces] = []
    for epsg in np.unique(pieces.epsg):
        west, east, over = _neighbours(int(epsg))
        if not {west, east, over} & held.keys():
            continue
        here = pieces.take(pieces.epsg == epsg)
        extents = np.array([tile.grid.bounds for tile in tiles if tile.epsg == epsg]).reshape(-1, 4)
        here = here.take(~boxes_covered(shapely.bounds(here.geometry), extents))
        union = held.get(int(epsg), shapely.Polygon())
        shapely.prepare(union)
        here = here.take(~shapely.covered_by(here.geometry, union))
        if not len(here):
            continue
        beyond = areas(shapely.difference(areas(here.geometry), union))
        here = Pieces(here.zone, here.epsg, beyond).take(~shapely.is_empty(beyond))
        lonlat = Pieces(here.zone, here.epsg, _degrees(here.geometry, int(epsg)))
        centre = shapely.get_x(shapely.centroid(here.geometry))
        for half, order in ((centre < 500_000, (west, east, over)), (centre >= 500_000, (east, west, over))):
            left = lonlat.take(half)
            for neighbour in order:
                if neighbour in held and len(left):
                    taken, left = _take_ground(left, neighbour, held[neighbour])
                    foreign.append(taken)
    if not foreign:
        return pieces.take(np.zeros(0, np.int64))
    joined = Pieces(
        np.concatenate([p.zone for p in foreign]),
        np.concatenate([p.epsg for p in foreign]),
        np.concatenate([p.geometry for p in foreign]),
    )
    return joined.take(np.lexsort((joined.epsg, joined.zone)))


def boxes_covered(boxes: npt.NDArray[np.float64], extents: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which boxes lie in the union of some extents; both as (west, south, east, north).

    The extents' sides cut the plane into cells that are covered as a whole or not at all.
    """
    if not len(extents):
        return np.zeros(len(boxes), bool)
    x, y = np.unique(extents[:, [0, 2]]), np.unique(extents[:, [1, 3]])
    bare = np.ones((len(x) + 1, len(y) + 1), np.int64)  # and a border of cells outside all
    columns, rows = np.searchsorted(x, extents[:, [0, 2]]), np.searchsorted(y, extents[:, [1, 3]])
    for (left, right), (low, top) in zip(columns, rows, strict=True):
        bare[left + 1 : right + 1, low + 1 : top + 1] = 0
    upto = np.pad(bare.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    left, low = np.searchsorted(x, boxes[:, 0], "right"), np.searchsorted(y, boxes[:, 1], "right")
    right, top = np.searchsorted(x, boxes[:, 2], "left") + 1, np.searchsorted(y, boxes[:, 3], "left") + 1
    return np.asarray(upto[right, top] - upto[left, top] - upto[right, low] + upto[left, low] == 0)


def _neighbours(epsg: int) -> tuple[int, int, int]:
    """UTM zones to the west, to the east, and across the equator."""
    base, number = epsg // 100 * 100, epsg % 100
    return base + (number - 2) % 60 + 1, base + number % 60 + 1, (32700 if base == 32600 else 32600) + number


def _take_ground(lonlat: Pieces, epsg: int, union: shapely.Geometry) -> tuple[Pieces, Pieces]:
    """Split pieces in degrees into what `union` holds (in its UTM zone) and what is left (in degrees)."""
    there = project_to_utm(Pieces(lonlat.zone, np.full(len(lonlat), epsg, np.int32), lonlat.geometry))
    polygons = areas(there.geometry)
    inside = areas(shapely.intersection(polygons, union))
    outside = areas(shapely.difference(polygons, union))
    taken = Pieces(there.zone, there.epsg, inside).take(~shapely.is_empty(inside))
    left = Pieces(there.zone, lonlat.epsg, outside).take(~shapely.is_empty(outside))
    return taken, Pieces(left.zone, left.epsg, _degrees(left.geometry, epsg))


def _degrees(geometry: Geometries, epsg: int) -> Geometries:
    """Polygons of a UTM zone in degrees; at 180 degrees a hair's breadth decides the sign, so unwrapped."""
    return unwrap(reproject(geometry, f"EPSG:{epsg}", WGS84))
