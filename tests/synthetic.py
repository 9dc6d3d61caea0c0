"""Builders for what the real data lacks: small AEF-like tiles anywhere, their mirror, block-like zones."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
import shapely
import tifffile
from numpy.typing import NDArray
from pyproj import Geod
from rasterio.transform import Affine

from zonal.demo.tiles import PREFIX, index_row, tile_key, write_index, write_tile
from zonal.geo.grid import Bounds, Grid

NODATA = -128


@dataclass(frozen=True)
class Tile:
    """One tile and its pixels, kept in memory for oracles.

    `data` is [band, y, x] in the order of the file: row 0 lies where the grid's row 0 lies.
    `options` go to the writer: ``interleave="pixel"``, ``compress="deflate"``, ``predictor=2``, ...
    """

    grid: Grid
    data: NDArray[Any]
    name: str = ""
    nodata: float | None = NODATA
    options: dict[str, Any] = field(default_factory=dict)

    def key(self, year: int = 2024) -> str:
        """Path below the mirror root."""
        grid = self.grid
        return tile_key(year, grid, self.name or f"x{grid.x0:.0f}y{grid.y0:.0f}".replace("-", "m"))

    def write(self, path: Path) -> Path:
        """Write as an AEF-like GeoTIFF; chunks of nothing but nodata stay absent from the file."""
        bands = self.data.shape[0]
        chunks = split(self.grid, self.data)
        dtype = str(self.data.dtype)
        return write_tile(
            path, self.grid, chunks, bands=bands, nodata=self.nodata, dtype=dtype, **self.options
        )

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Pixels [y, x] that hold data."""
        if self.nodata is None:
            return np.ones(self.data.shape[1:], bool)
        return np.asarray((self.data != self.nodata).any(axis=0))

    def north_up(self) -> tuple[NDArray[np.float64], Affine]:
        """De-quantised values [band, y, x], NaN for nodata, row 0 in the north, and their transform."""
        values = np.where(self.valid, dequantise(self.data), np.nan)
        west, _, _, north = self.grid.bounds
        if self.grid.dy > 0:
            values = values[:, ::-1]
        return values, Affine(self.grid.dx, 0, west, 0, -abs(self.grid.dy), north)

    def write_north_up(self, path: Path) -> Path:
        """Write `north_up` as float64 with NaN as nodata: what exactextract and rasterio masks read."""
        values, transform = self.north_up()
        bands, height, width = values.shape
        size = {"count": bands, "height": height, "width": width}
        where = {"crs": self.grid.crs, "transform": transform}
        with rasterio.open(
            path, "w", driver="GTiff", dtype="float64", nodata=np.nan, **size, **where
        ) as file:
            file.write(values)
        return path


def utm_grid(
    epsg: int,
    west: float,
    south: float,
    width: int = 512,
    height: int = 512,
    chunk: int = 128,
    *,
    south_up: bool = True,
    pixel: float = 10.0,
) -> Grid:
    """Place a grid by its south-western corner, whatever its orientation; `chunk` is a multiple of 16."""
    crs = f"EPSG:{epsg}"
    if south_up:
        return Grid(crs, west, south, pixel, pixel, width, height, chunk, chunk)
    return Grid(crs, west, south + height * pixel, pixel, -pixel, width, height, chunk, chunk)


def dequantise(codes: NDArray[np.int8]) -> NDArray[np.float64]:
    """v = sign(q) (q / 127.5)^2."""
    q = codes.astype(np.float64)
    return np.sign(q) * (q / 127.5) ** 2


def aef_codes(
    rng: np.random.Generator, bands: int, height: int, width: int, nodata_fraction: float = 0.02
) -> NDArray[np.int8]:
    """Random quantised vectors of length about 1, int8 [band, y, x]; nodata in all bands or none."""
    vectors = rng.standard_normal((bands, height, width), dtype=np.float32)
    vectors /= np.sqrt(np.square(vectors).sum(axis=0))
    codes = np.clip(np.rint(127.5 * np.sqrt(np.abs(vectors))) * np.sign(vectors), -127, 127).astype(np.int8)
    codes[:, rng.random((height, width)) < nodata_fraction] = NODATA
    return codes


def random_tile(rng: np.random.Generator, grid: Grid, bands: int = 64, nodata_fraction: float = 0.02) -> Tile:
    """A tile full of `aef_codes`."""
    return Tile(grid, aef_codes(rng, bands, grid.height, grid.width, nodata_fraction))


def split(grid: Grid, data: NDArray[Any]) -> Iterable[tuple[int, NDArray[Any]]]:
    """Cut an array [band, y, x] into numbered chunks."""
    for number in range(grid.chunk_count):
        part = grid.chunk(number)
        row, col = grid.chunk_offset(number)
        yield number, data[:, row : row + part.height, col : col + part.width]


def index_frame(tiles: Sequence[Tile], year: int = 2024) -> gpd.GeoDataFrame:
    """The tiles as rows of the public index."""
    rows = [index_row(fid, tile.key(year), year, tile.grid) for fid, tile in enumerate(tiles, start=1)]
    return gpd.GeoDataFrame(rows, geometry="geometry", crs="EPSG:4326")


def make_mirror(folder: Path, tiles: Sequence[Tile], year: int = 2024) -> Path:
    """Write tiles and index in the public layout below `folder`; return the mirror root.

    Tile i lies at ``root / tiles[i].key(year)``.
    """
    keys = [tile.key(year) for tile in tiles]
    assert len(set(keys)) == len(keys), f"two tiles of one name: {keys}"
    for key, tile in zip(keys, tiles, strict=True):
        tile.write(folder / key)
    write_index(folder / PREFIX / "aef_index.parquet", index_frame(tiles, year).to_dict("records"))
    return folder


def lay_bands_apart(path: Path, together: int) -> Path:
    """Move a tile's blocks so that a chunk is one range for every `together` bands; AEF has 1.

    `write_tile` leaves all bands of a chunk side by side.
    """
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        tags = [page.tags[name] for name in ("TileOffsets", "TileByteCounts")]
        at = [(tag.valueoffset, f"<u{tag.valuebytecount // tag.count}") for tag in tags]
        shape = (page.samplesperpixel, tags[0].count // page.samplesperpixel)
    data = bytearray(path.read_bytes())
    # [band, chunk], as views: what is written to them is written to the file's own tables.
    offsets, counts = (np.frombuffer(data, kind, np.prod(shape), place).reshape(shape) for place, kind in at)
    blocks = {i: bytes(data[offsets[i] :][: counts[i]]) for i in zip(*counts.nonzero(), strict=True)}
    place = first = int(offsets[counts > 0].min())
    for i in sorted(blocks, key=lambda i: (i[0] // together, i[1], i[0])):
        data[place : place + len(blocks[i])] = blocks[i]
        offsets[i] = place
        place += len(blocks[i])
    assert place - first == counts.sum() and place <= len(data), "something lies between the blocks"
    path.write_bytes(data)
    return path


def jittered_blocks(
    bounds: Bounds, nx: int, ny: int, crs: str = "EPSG:4269", seed: int = 0, *, state_fips: str = "99"
) -> gpd.GeoDataFrame:
    """Partition `bounds` (west, south, east, north in `crs`) into nx x ny quads that share jittered corners.

    In EPSG:4269, with census-like columns; about one zone in twenty is all water, one in five part water.
    Row i is column ``i % nx``, row ``i // nx`` from the south-west. Edges are straight in EPSG:4269.
    """
    rng = np.random.default_rng(seed)
    west, south, east, north = bounds
    x, y = np.meshgrid(np.linspace(west, east, nx + 1), np.linspace(south, north, ny + 1))
    # Less than half a step: no quad folds over. The rim stays where it is.
    x[:, 1:-1] += rng.uniform(-0.3, 0.3, (ny + 1, nx - 1)) * (east - west) / nx
    y[1:-1] += rng.uniform(-0.3, 0.3, (ny - 1, nx + 1)) * (north - south) / ny
    corners = gpd.GeoSeries(shapely.points(x.ravel(), y.ravel()), crs=crs).to_crs("EPSG:4269")
    at = np.stack([corners.x, corners.y], axis=-1).reshape(ny + 1, nx + 1, 2)
    rings = np.stack([at[:-1, :-1], at[:-1, 1:], at[1:, 1:], at[1:, :-1], at[:-1, :-1]], axis=2)
    return census_like(shapely.polygons(rings.reshape(-1, 5, 2)), seed=seed, state_fips=state_fips)


def census_like(
    lonlat: Sequence[shapely.Geometry] | NDArray[Any], seed: int = 0, *, state_fips: str = "99"
) -> gpd.GeoDataFrame:
    """Give polygons in EPSG:4269 the columns of census blocks; GEOID20 rises with the row number."""
    rng = np.random.default_rng([seed, 20])
    polygons = np.asarray(lonlat, dtype=object)
    count = len(polygons)
    number = np.arange(count)
    county = [f"{2 * (n // 2000) + 1:03d}" for n in number]
    tract = [f"{100 * (n // 50 + 1):06d}" for n in number]
    block = [f"{1000 + n % 50:04d}" for n in number]
    geod = Geod(ellps="GRS80")
    area = np.array([abs(geod.geometry_area_perimeter(polygon)[0]) for polygon in polygons])
    draw = rng.random(count)
    water = np.rint(area * np.where(draw < 0.05, 1.0, np.where(draw < 0.25, rng.random(count) / 2, 0.0)))
    land = np.where(draw < 0.05, 0, np.rint(area) - water)
    homes = np.where(land > 0, rng.poisson(12, count), 0)
    return gpd.GeoDataFrame(
        {
            "STATEFP20": state_fips,
            "COUNTYFP20": county,
            "TRACTCE20": tract,
            "BLOCKCE20": block,
            "GEOID20": [f"{state_fips}{c}{t}{b}" for c, t, b in zip(county, tract, block, strict=True)],
            "UR20": np.where(rng.random(count) < 0.6, "U", "R"),
            "ALAND20": land.astype(np.int64),
            "AWATER20": water.astype(np.int64),
            "HOUSING20": homes.astype(np.int64),
            "POP20": rng.poisson(2.4 * homes).astype(np.int64),
        },
        geometry=polygons,
        crs="EPSG:4269",
    )


def blocks_zip(mirror: Path, state_fips: str, blocks: gpd.GeoDataFrame) -> Path:
    """Write zones as a state's zipped TIGER/Line shapefile, at its public place below a mirror root."""
    name = f"tl_2025_{state_fips}_tabblock20"
    path = mirror / "geo/tiger/TIGER2025/TABBLOCK20" / f"{name}.zip"
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as scratch:
        blocks.to_file(Path(scratch) / f"{name}.shp", engine="pyogrio")
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(Path(scratch).iterdir()):
                archive.write(file, file.name)
    return path


def small_town(folder: Path) -> list[str]:
    """Write a tile below ``mirror`` and 30 zones on it; return the words of `zonal` that summarise them.

    The mirror is not among the words: it may be served, or lie elsewhere.
    """
    grid = utm_grid(32611, 500_000, 5_160_000, 128, 128, 64)
    make_mirror(folder / "mirror", [random_tile(np.random.default_rng(3), grid)], year=2024)
    blocks = jittered_blocks((500_050, 5_160_050, 501_200, 5_161_200), 6, 5, "EPSG:32611")
    blocks.to_parquet(folder / "zones.parquet")
    return ["--zones", str(folder / "zones.parquet"), "--zone-id", "GEOID20", "--year", "2024"]
