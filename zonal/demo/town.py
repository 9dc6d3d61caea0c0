"""The built-in sample: a made-up town on 120 degrees W, as census-like zones and AEF-format tiles.

Knows how to draw a town and its pixels; must not know plans, runs or statistics.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from math import cos, radians, sin
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
import rasterio.features
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import Geod, Transformer

from zonal.demo.tiles import NODATA, PREFIX, index_row, tile_key, write_index, write_tile
from zonal.geo.grid import Grid

Floats = NDArray[np.float64]
Ints = NDArray[np.integer[Any]]

VERSION = 1
"""Of the sample; goes up when `write_sample` would write other files."""

MARKER = "sample.json"
"""Written last: the version of the sample beside it, its counts and the sizes of its files."""

YEAR = 2024

SEED = 120
SEAM, LATITUDE = -120.0, 46.563  # origin of the town's frame: metres east of the seam, north of a tile border
DEGREE = np.array([111_320.0 * cos(radians(LATITUDE)), 111_160.0])  # metres, as seen from the origin
OVERLAP = 800.0  # metres of ground that each UTM zone's tiles hold beyond the seam
CELL, MARGIN = 10.0, 150.0  # metres: of the canvas, and of pixels around the town
STEP, COLUMNS, ROWS = 50.0, 150, 100  # the lattice that blocks are cut from: metres and cells
COUNTIES = {"001": (0, 0, 92, ROWS), "003": (92, 0, COLUMNS, ROWS)}
CENTRE, TURN = (-1400.0, 0.0), radians(9)

DOWNTOWN, SUBURB, INDUSTRY, PARK, FOREST, FARM, WATER = range(7)
BLOCK_CELLS = np.array([5, 10, 34, 30, 130, 190, 70])  # about the largest block of each land use
HOMES_PER_HA = np.array([55.0, 16.0, 0.8, 0.1, 0.1, 0.06, 0.0])
PEOPLE_PER_HOME = np.array([1.7, 2.6, 2.0, 2.2, 2.3, 2.5, 0.0])

README = """\
This is sample data. It is made up: there is no such town, and no satellite saw these pixels.

zones.parquet   block-like polygons with census-like attributes (state 99 does not exist)
mirror/         tiles in the layout of the AlphaEarth Foundations annual embeddings, and their index

The pixels are random vectors that follow an invented land use: they say nothing about the world.
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """Where the sample lies, and how much there is of it."""

    folder: Path
    zones: Path
    """GeoParquet, EPSG:4269, id column ``GEOID20``."""
    mirror: Path
    """A mirror root: it answers for the public services' paths."""
    year: int
    zone_count: int
    tile_count: int
    chunk_count: int
    """Chunks that hold data; all others are absent from the files."""


def write_sample(folder: Path) -> Sample:
    """Write ``zones.parquet``, ``mirror/`` and ``README.txt`` into `folder`: the same data every time.

    A whole sample that is there already stays as it is, so that a run of it is not
    taken for a run of other files.
    """
    mirror, zones_path = folder / "mirror", folder / "zones.parquet"
    counts = _counts_of_whole_sample(folder)
    if counts is not None:
        return Sample(folder, zones_path, mirror, YEAR, *counts)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).unlink(missing_ok=True)
    (folder / "README.txt").write_text(README, encoding="utf-8")

    rng = np.random.default_rng(SEED)
    blocks = _draw_blocks(rng)
    canvas, block_at, use = _paint(blocks, rng)
    zones = _zones(blocks, block_at, use, rng)
    zones.to_parquet(zones_path, index=False)

    rows, chunk_count = [], 0
    for fid, grid in enumerate(_tile_grids(), start=1):
        key = tile_key(YEAR, grid, f"x99demo{fid:09d}")
        chunks = _touched(grid, zones)
        write_tile(mirror / key, grid, ((chunk, _pixels(grid.chunk(chunk), canvas)) for chunk in chunks))
        rows.append(index_row(fid, key, YEAR, grid))
        chunk_count += len(chunks)
    write_index(mirror / PREFIX / "aef_index.parquet", rows)
    files = [folder / "README.txt", zones_path, *sorted(path for path in mirror.rglob("*") if path.is_file())]
    marker = {
        "version": VERSION,
        "counts": [len(zones), len(rows), chunk_count],
        "files": {path.relative_to(folder).as_posix(): path.stat().st_size for path in files},
    }
    (folder / MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")
    return Sample(folder, zones_path, mirror, YEAR, len(zones), len(rows), chunk_count)


def _counts_of_whole_sample(folder: Path) -> tuple[int, int, int] | None:
    """Zones, tiles and chunks of the sample in `folder`; None unless it is whole and of this version."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        whole = all((folder / name).stat().st_size == size for name, size in marker["files"].items())
        if marker["version"] == VERSION and whole:
            zones, tiles, chunks = marker["counts"]
            return zones, tiles, chunks
    return None


def _to_degrees(points: Floats) -> Floats:
    """Turn town metres [n, 2] into longitude and latitude, rounded as census files are."""
    return np.asarray(np.round(points / DEGREE + (SEAM, LATITUDE), 6))


def _ripple(x: Floats, y: Floats, length: float, phase: float) -> Floats:
    """Return a smooth field of values from -1 to 1; `length` is about a wavelength in metres."""
    x, y = x * (2 * np.pi / length), y * (2 * np.pi / length)
    waves = np.sin(x + 2.1 * phase) * np.cos(0.8 * y - phase) + np.sin(0.6 * x - 1.1 * y + 5 * phase)
    return np.asarray(waves / 2)


def _land_use(x: Floats, y: Floats) -> Ints:
    """Return the land use at points of the town's frame."""
    ragged = _ripple(x, y, 900, 0.7)
    from_centre = np.hypot((x + 350) / 1.15, y - 150)
    use = np.full(np.shape(x), FARM, np.int8)
    use[y - 0.35 * x + 450 * ragged > 2000] = FOREST
    use[y + 0.2 * x + 350 * ragged < -2550] = FOREST
    use[from_centre + 260 * ragged < 1650] = SUBURB
    use[np.hypot(x + 3700, y + 900) + 90 * ragged < 330] = SUBURB  # a village of its own
    rail = np.abs(y + 0.45 * x + 700)
    use[(rail + 60 * ragged < 260) & (x > -300) & (x < 1900)] = INDUSTRY
    use[from_centre + 90 * ragged < 520] = DOWNTOWN
    use[np.hypot(x + 1150, y - 520) + 60 * ragged < 330] = PARK
    use[np.hypot(x - 560, y - 730) + 60 * ragged < 190] = PARK
    use[np.hypot((x + 3050) / 1.5, y - 750) + 110 * ragged < 640] = WATER
    return use


_Rectangle = tuple[int, int, int, int]  # of the lattice: first column and row, last column and row


def _lattice(rng: np.random.Generator) -> Floats:
    """Return the corners that all blocks share, bent, turned and jittered: metres [column, row, 2]."""
    u, v = np.meshgrid(np.arange(COLUMNS + 1.0), np.arange(ROWS + 1.0), indexing="ij")
    x, y = (u - COLUMNS / 2) * STEP, (v - ROWS / 2) * STEP
    x, y = x + 70 * _ripple(x, y, 2600, 0.3), y + 70 * _ripple(x, y, 3100, 1.9)
    turned = np.stack([x * cos(TURN) - y * sin(TURN), x * sin(TURN) + y * cos(TURN)], axis=-1)
    return np.asarray(turned + CENTRE + rng.uniform(-2.5, 2.5, turned.shape))


def _cut(whole: _Rectangle, largest: Ints, rng: np.random.Generator) -> list[_Rectangle]:
    """Cut a rectangle across its longer side until each piece suits the land use inside it."""
    u0, v0, u1, v1 = whole
    width, height = u1 - u0, v1 - v0
    side = max(width, height)
    if side < 2 or width * height <= np.percentile(largest[u0:u1, v0:v1], 30):
        return [whole]
    at = min(max(round(side * rng.uniform(0.38, 0.62)), 1), side - 1)
    halves: tuple[_Rectangle, _Rectangle] = ((u0, v0, u1, v0 + at), (u0, v0 + at, u1, v1))
    if width >= height:
        halves = ((u0, v0, u0 + at, v1), (u0 + at, v0, u1, v1))
    return [piece for half in halves for piece in _cut(half, largest, rng)]


def _draw_blocks(rng: np.random.Generator) -> gpd.GeoDataFrame:
    """Partition the town into blocks: columns GEOID20, parent, geometry (metres of the town's frame).

    `parent` is the row whose land use a block shares: itself, or for a sliver the block it was cut from.
    """
    lattice = _lattice(rng)
    use = _land_use(*np.moveaxis((lattice[1:, 1:] + lattice[:-1, :-1]) / 2, -1, 0))
    rows: list[tuple[str, int, shapely.Geometry]] = []
    for county, cells in COUNTIES.items():
        # Cuts go depth first: a run of pieces is a patch of ground, as a tract is.
        for number, (u0, v0, u1, v1) in enumerate(_cut(cells, BLOCK_CELLS[use], rng)):
            tract, block = divmod(number, 48)
            wet = bool(np.all(use[u0:u1, v0:v1] == WATER))
            group = 0 if wet else 1 + block // 16  # the census keeps block group 0 for water
            stem = f"99{county}{100 * (tract + 1):06d}{group}"
            # Every lattice corner on the way round: neighbours share them all, and no gap opens.
            south, east = lattice[u0:u1, v0], lattice[u1, v0:v1]
            ring = np.concatenate([south, east, lattice[u1:u0:-1, v1], lattice[u0, v1:v0:-1]])
            rows.append((f"{stem}{block:03d}", len(rows), shapely.Polygon(ring)))
            if rng.random() < 0.04 and not wet:
                apex = lattice[u0:u1, v0].mean(axis=0) + STEP / 2 * np.array([cos(TURN), sin(TURN)])
                apex += np.array([-sin(TURN), cos(TURN)]) * rng.uniform(1.5, 8)
                sliver = shapely.Polygon([*south, east[0], apex])
                rest = shapely.Polygon([*ring[u1 - u0 :], ring[0], apex])
                rounded = shapely.transform([sliver, rest], _to_degrees)
                if shapely.is_valid(rounded).all() and rest.area < rows[-1][2].area:
                    rows[-1] = (*rows[-1][:2], rest)
                    rows.append((f"{stem}{block + 500:03d}", rows[-1][1], sliver))
    lake = max((row for row in rows if row[0][11] == "0"), key=lambda row: float(row[2].area))
    island = lake[2].centroid.buffer(95, quad_segs=6)
    rows[lake[1]] = (*lake[:2], lake[2].difference(island))
    rows.append((f"{lake[0][:11]}1900", len(rows), island))  # the last row, as the painter expects
    return gpd.GeoDataFrame(rows, columns=["GEOID20", "parent", "geometry"], geometry="geometry")


def _zones(blocks: gpd.GeoDataFrame, block_at: Ints, use: Ints, rng: np.random.Generator) -> gpd.GeoDataFrame:
    """Give each block census-like attributes that follow how much of it has each land use."""
    inside = block_at >= 0
    cells = np.bincount(block_at[inside] * 7 + use[inside], minlength=7 * len(blocks)).reshape(-1, 7)
    of_use = (cells / np.maximum(cells.sum(axis=1, keepdims=True), 1))[blocks["parent"]]
    geometry = shapely.orient_polygons(shapely.transform(blocks.geometry.to_numpy(), _to_degrees))
    geod = Geod(ellps="GRS80")
    area = np.array([geod.geometry_area_perimeter(polygon)[0] for polygon in geometry])
    water = np.rint(area * of_use[:, WATER])
    land = np.where(of_use[:, WATER] == 1, 0, np.rint(area) - water)
    homes = rng.poisson(land / 1e4 * (of_use @ HOMES_PER_HA) * np.exp(0.5 * blocks["character"]))
    crowd = 0.93 * np.clip(rng.normal(1, 0.08, len(blocks)), 0.7, 1.3)
    urban = of_use[:, [DOWNTOWN, SUBURB, INDUSTRY, PARK]].sum(axis=1) > 0.5
    people = np.rint(homes * crowd * (of_use @ PEOPLE_PER_HOME))
    ids = blocks["GEOID20"]
    columns = {"STATEFP20": ids.str[:2], "COUNTYFP20": ids.str[2:5], "TRACTCE20": ids.str[5:11]}
    columns |= {"BLOCKCE20": ids.str[11:], "GEOID20": ids, "UR20": np.where(urban, "U", "R")}
    counts = {"ALAND20": land, "AWATER20": water, "HOUSING20": homes, "POP20": people}
    columns |= {name: np.asarray(values, np.int64) for name, values in counts.items()}
    frame = gpd.GeoDataFrame(columns, geometry=geometry, crs="EPSG:4269")
    return frame.sort_values("GEOID20", ignore_index=True)


# The pixels: painted once in the town's frame, then seen by each tile.


@dataclass(frozen=True, slots=True)
class _Canvas:
    """Pixels as ingredients [y, x, k] times basis [k, band], every `CELL` metres; row 0 in the south."""

    corner: Floats
    ingredients: NDArray[np.float32]
    basis: NDArray[np.float32]
    valid: NDArray[np.bool_]


def _paint(blocks: gpd.GeoDataFrame, rng: np.random.Generator) -> tuple[_Canvas, Ints, Ints]:
    """Return the canvas, and on its cells the block (-1: none) and the land use; adds column character."""
    town = blocks.geometry.union_all().buffer(MARGIN)
    west, south, east, north = (CELL * round(edge / CELL) for edge in town.bounds)
    shape = (round((north - south) / CELL), round((east - west) / CELL))
    place = Affine(CELL, 0, west, 0, CELL, south)
    x, y = np.meshgrid(
        *(low + CELL * (np.arange(n) + 0.5) for low, n in ((west, shape[1]), (south, shape[0])))
    )

    def burn(geometries: Iterable[shapely.Geometry]) -> Ints:
        numbered = ((geometry, number) for number, geometry in enumerate(geometries))
        return np.asarray(rasterio.features.rasterize(numbered, shape, -1, transform=place, dtype="int32"))

    block_at = burn(blocks.geometry)
    use = _land_use(x, y)
    use[block_at == len(blocks) - 1] = FOREST  # the island
    street = (burn(blocks.boundary) >= 0) & (use <= INDUSTRY) & (block_at >= 0)
    character = rng.uniform(-1, 1, (len(blocks), 4))
    blocks["character"] = character[:, 0]
    built = np.isin(use, (DOWNTOWN, SUBURB, INDUSTRY, FARM)) & (block_at >= 0)
    layers = [np.where(street, 0.55, 1.0) * (use == kind) for kind in range(7)] + [0.45 * street]
    layers += [np.where(built, character[block_at, k], 0.0) for k in range(4)]
    layers += [_ripple(x, y, length, length) for length in (700.0, 1300.0, 2300.0)]

    # What each ingredient looks like: all land has something in common, and so have town and country.
    kinds = rng.standard_normal((8, 64)) + 0.8 * rng.standard_normal(64)
    kinds[[DOWNTOWN, SUBURB, INDUSTRY, 7]] += rng.standard_normal(64)
    kinds[[PARK, FOREST, FARM]] += rng.standard_normal(64)
    kinds /= np.linalg.norm(kinds, axis=1, keepdims=True)
    strength = np.array([[0.3], [0.2], [0.2], [0.2], [0.15], [0.15], [0.15]])
    drift = strength * rng.standard_normal((7, 64)) / 8

    clouds = town.centroid.buffer(45).union(shapely.Point(600, -400).buffer(60))
    valid = (burn([town, clouds]) == 0) & (rng.random(shape) > 0.001)
    ingredients = np.stack([_blur(layer) for layer in layers], axis=-1).astype(np.float32)
    basis = np.concatenate([kinds, drift]).astype(np.float32)
    return _Canvas(np.array([west, south]), ingredients, basis, valid), block_at, use


def _blur(layer: Floats) -> Floats:
    """Return means of 3 x 3 cells: a pixel sees a little of its neighbours."""
    padded = np.pad(layer, 1, mode="edge")
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    return np.asarray((rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 9)


def _tile_grids() -> list[Grid]:
    """Return the four tiles that meet in the town: two UTM zones, and a tile border in each."""
    corners = [(crs, k, m) for crs, k in (("EPSG:32610", 2), ("EPSG:32611", -3)) for m in (62, 63)]
    side, shape = 81_920.0, (8192, 8192, 1024, 1024)
    return [Grid(crs, 500_000 + side * k, side * m, 10.0, 10.0, *shape) for crs, k, m in corners]


def _touched(grid: Grid, zones: gpd.GeoDataFrame) -> list[int]:
    """Return the chunks that zones on this UTM zone's side of the seam touch."""
    zones_here = zones.cx[:SEAM, :] if grid.crs == "EPSG:32610" else zones.cx[SEAM:, :]
    box = shapely.box(*zones_here.to_crs(grid.crs).total_bounds)
    return [n for n in range(grid.chunk_count) if box.intersects(shapely.box(*grid.chunk(n).bounds))]


def _pixels(chunk: Grid, canvas: _Canvas) -> NDArray[np.int8]:
    """Return a chunk's quantised unit vectors, int8 [64, y, x]."""
    # One stream of noise a chunk, whatever the order in which chunks are made.
    rng = np.random.default_rng([SEED, int(chunk.crs[-5:]), round(chunk.x0), round(chunk.y0)])
    to_degrees = Transformer.from_crs(chunk.crs, "EPSG:4326", always_xy=True)
    side = 1 if chunk.crs == "EPSG:32610" else -1
    limits = np.array(canvas.valid.shape[::-1]) - 2
    pixels = np.full((64, chunk.height, chunk.width), NODATA, np.int8)
    easting = chunk.x0 + chunk.dx * (np.arange(chunk.width) + 0.5)
    for row in range(0, chunk.height, 64):  # a band of rows at a time bounds the memory
        northing = chunk.y0 + chunk.dy * (np.arange(row, min(row + 64, chunk.height)) + 0.5)
        degrees = np.stack(to_degrees.transform(*np.meshgrid(easting, northing)), axis=-1)
        metres = (degrees - (SEAM, LATITUDE)) * DEGREE
        at = (metres - canvas.corner) / CELL - 0.5
        seen = ((at >= 0) & (at < limits)).all(axis=-1) & (side * metres[..., 0] < OVERLAP)
        nearest = np.rint(at[seen]).astype(int)
        seen[seen] = canvas.valid[nearest[:, 1], nearest[:, 0]]
        if not seen.any():
            continue
        vectors = _between(canvas.ingredients, at[seen]) @ canvas.basis
        vectors += np.float32(0.003) * rng.standard_normal(vectors.shape, np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        codes = np.rint(127.5 * np.sqrt(np.abs(vectors))) * np.sign(vectors)
        pixels[:, row : row + 64][:, seen] = np.clip(codes, -127, 127).astype(np.int8).T
    return pixels


def _between(layers: NDArray[np.float32], at: Floats) -> NDArray[np.float32]:
    """Interpolate layers [y, x, k] linearly at fractional (column, row) [n, 2]; return [n, k]."""
    col, row = np.floor(at).astype(int).T
    right, up = (at - np.floor(at)).astype(np.float32).T[:, :, None]
    lower = layers[row, col] * (1 - right) + layers[row, col + 1] * right
    upper = layers[row + 1, col] * (1 - right) + layers[row + 1, col + 1] * right
    return np.asarray(lower * (1 - up) + upper * up)
