"""Made-up rasters and zones to measure on, in the format of AEF tiles and census blocks.

Knows how such pixels compress and how such zones look; knows no clock. The
same seed gives the same bytes, and what is there already is not made again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import shapely
import tifffile
from numpy.typing import NDArray
from scipy.ndimage import zoom

from zonal.demo.tiles import NODATA, PREFIX, index_row, tile_key, write_index, write_tile
from zonal.geo.grid import Bounds, Grid

YEAR = 2020
BANDS = 64
CRS, WEST, SOUTH, PIXEL = "EPSG:32610", 377_120.0, 5_160_960.0, 10.0
LONG_SIDE, SHORT_SIDE = 6, 9  # segments of a zone's borders, wide and high: 30 vertices a zone
NOISE = 1.7  # codes: ZSTD makes 0.6 MiB of a band's 1 MiB, as it does of real tiles


@dataclass(frozen=True)
class Ground:
    """Square AEF-format tiles in a square, as a mirror folder.

    Parameters
    ----------
    root : Path
        Folder of the mirror.
    chunks, tiles : int
        Chunks along a tile's side, tiles along the ground's side.
    drawn : int
        Chunks of a tile that hold pixels of their own; the others point at the
        same bytes, so that a large ground takes little room on the disk.
    size : int
        Pixels along a chunk's side; AEF has 1024.
    """

    root: Path
    chunks: int
    tiles: int = 1
    drawn: int = 1 << 30
    size: int = 1024

    @property
    def grids(self) -> list[Grid]:
        """One of each tile, south-up as AEF's are."""
        side = self.chunks * self.size
        step = side * PIXEL
        return [
            Grid(CRS, WEST + x * step, SOUTH + y * step, PIXEL, PIXEL, side, side, self.size, self.size)
            for y in range(self.tiles)
            for x in range(self.tiles)
        ]

    @property
    def files(self) -> list[Path]:
        """One of each tile."""
        return [self.root / tile_key(YEAR, grid, f"bench{at}") for at, grid in enumerate(self.grids)]

    @property
    def bounds(self) -> Bounds:
        """Ground of all tiles, in their CRS."""
        side = self.tiles * self.chunks * self.size * PIXEL
        return WEST, SOUTH, WEST + side, SOUTH + side

    def build(self) -> Ground:
        """Write what is missing."""
        index = self.root / PREFIX / "aef_index.parquet"
        if index.exists():
            return self
        for at, (path, grid) in enumerate(zip(self.files, self.grids, strict=True)):
            write_tile(path, grid, _chunks(grid, min(self.drawn, grid.chunk_count), seed=at))
            _by_band(path)
            if self.drawn < grid.chunk_count:
                _repeat(path, self.drawn)
        tiles = zip(self.files, self.grids, strict=True)
        keys = [(path.relative_to(self.root).as_posix(), grid) for path, grid in tiles]
        write_index(index, [index_row(fid, key, YEAR, grid) for fid, (key, grid) in enumerate(keys, start=1)])
        return self


def _chunks(grid: Grid, drawn: int, seed: int) -> Iterator[tuple[int, NDArray[np.int8]]]:
    rng = np.random.default_rng(seed)
    for number in range(drawn):
        part = grid.chunk(number)
        shape = (part.height, part.width)
        pixels = np.empty((BANDS, *shape), np.int8)
        for band in pixels:
            # Smooth fields, some ten to a chunk, and noise.
            field = zoom(
                rng.normal(0, 40, (12, 12)).astype(np.float32), (shape[0] / 12, shape[1] / 12), order=1
            )
            field += rng.standard_normal(shape, dtype=np.float32) * NOISE
            band[...] = np.clip(np.rint(field), -127, 127)
        if number == 0:  # a lake of nodata, and a strip along the western edge
            y, x = np.ogrid[: shape[0], : shape[1]]
            lake = (y / shape[0] - 0.6) ** 2 + (x / shape[1] - 0.5) ** 2 < 0.02
            pixels[:, lake | (x < shape[1] // 32)] = NODATA
        yield number, pixels


def _tables(path: Path) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Map the file's own tables of blocks' offsets and byte counts, [band, chunk]; they can be written to."""
    with tifffile.TiffFile(path) as file:
        tags = [file.pages[0].tags[name] for name in ("TileOffsets", "TileByteCounts")]
        offsets, counts = (
            np.memmap(
                path,
                f"<u{tag.valuebytecount // tag.count}",
                "r+",
                tag.valueoffset,
                (BANDS, tag.count // BANDS),
            )
            for tag in tags
        )
    return offsets, counts


def _by_band(path: Path) -> None:
    """Lay blocks out band after band, as in AEF's files: a chunk is one range in each of 64 far places."""
    offsets, counts = _tables(path)
    present = counts > 0
    first, size = int(offsets[present].min()), int(counts.sum())
    room = np.memmap(path, np.uint8, "r+", first, size)
    blocks = [
        room[at - first :][:count].copy() for at, count in zip(offsets[present], counts[present], strict=True)
    ]
    if int((offsets + counts).max()) != first + size:
        raise ValueError(f"{path}: something lies between the blocks")
    offsets[present] = first + np.concatenate([[0], np.cumsum(counts[present])[:-1]])
    room[:] = np.concatenate(blocks)


def _repeat(path: Path, drawn: int) -> None:
    """Point the chunks that were left out at the bytes of those that were drawn, in turn."""
    for table in _tables(path):
        table[:, drawn:] = table[:, np.arange(drawn, table.shape[1]) % drawn]


def zones(path: Path, bounds: Bounds, columns: int, rows: int) -> Path:
    """Write block-like polygons that share jittered borders and fill `bounds`, with census-like columns."""
    if path.exists():
        return path
    rng = np.random.default_rng([columns, rows])
    west, south, east, north = bounds
    shape = (rows * SHORT_SIDE + 1, columns * LONG_SIDE + 1)
    step_x, step_y = (east - west) / (shape[1] - 1), (north - south) / (shape[0] - 1)
    # Less than half a step, so that no border crosses itself; the rim stays where it is.
    x = west + (np.arange(shape[1]) + rng.uniform(-0.3, 0.3, shape)) * step_x
    y = south + (np.arange(shape[0])[:, None] + rng.uniform(-0.3, 0.3, shape)) * step_y
    x[:, 0], x[:, -1], y[0], y[-1] = west, east, south, north
    corners = np.stack([x.clip(west, east), y.clip(south, north)], axis=-1)
    row, column = (at.ravel()[:, None] for at in np.mgrid[:rows, :columns])
    right, up = _round_a_cell()
    rings = corners[row * SHORT_SIDE + up, column * LONG_SIDE + right]
    polygons = gpd.GeoSeries(shapely.polygons(rings), crs=CRS)
    count = len(polygons)
    people = rng.poisson(30, count)
    frame = gpd.GeoDataFrame(
        {
            "STATEFP20": "53",
            "COUNTYFP20": "033",
            "GEOID20": [f"53033{number:010d}" for number in range(count)],
            "UR20": np.where(people > 28, "U", "R"),
            "ALAND20": polygons.area.round().astype(np.int64),
            "AWATER20": np.int64(0),
            "HOUSING20": people // 2,
            "POP20": people,
        },
        geometry=polygons.to_crs("EPSG:4269"),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".half")
    frame.to_parquet(half)
    half.replace(path)
    return path


def _round_a_cell() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Steps right and up from a cell's corner to each vertex of its ring."""
    wide, high = np.arange(LONG_SIDE), np.arange(SHORT_SIDE)
    right = np.concatenate(
        [wide, np.full(SHORT_SIDE, LONG_SIDE), LONG_SIDE - wide, np.zeros(SHORT_SIDE, int), [0]]
    )
    up = np.concatenate(
        [np.zeros(LONG_SIDE, int), high, np.full(LONG_SIDE, SHORT_SIDE), SHORT_SIDE - high, [0]]
    )
    return right, up


@dataclass(frozen=True)
class Scene:
    """A ground and its zones: what a benchmark runs on."""

    ground: Ground
    zones: Path
    count: int

    @property
    def title(self) -> str:
        """Say what it is."""
        tiles = len(self.ground.files)
        of = f" in {tiles} tiles" if tiles > 1 else ""
        side, size = self.ground.chunks * self.ground.tiles, self.ground.size
        return f"{self.count:,} zones on {side} x {side} chunks of {size} x {size} px{of}"


def scene(
    folder: Path,
    chunks: int,
    columns: int,
    rows: int,
    *,
    tiles: int = 1,
    drawn: int = 1 << 30,
    size: int = 1024,
) -> Scene:
    """Build a scene below `folder`, or find it there; grounds and zones are shared between scenes."""
    drawn = min(drawn, chunks * chunks)
    name = f"{chunks}x{chunks}-chunks-{size}-px-{tiles}x{tiles}-tiles-{drawn}-drawn"
    ground = Ground(folder / name / "mirror", chunks, tiles, drawn, size).build()
    file = zones(folder / name / f"zones-{columns}x{rows}.parquet", ground.bounds, columns, rows)
    return Scene(ground, file, columns * rows)


def warm(scene: Scene) -> None:
    """Read all its files once, so that every run finds them in memory."""
    for path in (scene.zones, *scene.ground.files):
        with path.open("rb") as file:
            while file.read(1 << 24):
                pass
