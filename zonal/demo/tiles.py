"""AEF-format tiles and their index, written: for the sample data, tests and benchmarks.

Knows the public layout of files, folders and index rows; knows no pixel's meaning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.windows import Window

from zonal.geo.grid import Grid

NODATA = -128
BUCKET = "us-west-2.opendata.source.coop"
PREFIX = "tge-labs/aef/v1/annual"


def utm_zone(crs: str) -> str:
    """Return ``"10N"`` for ``"EPSG:32610"`` and ``"10S"`` for ``"EPSG:32710"``."""
    hemisphere, number = divmod(int(crs.removeprefix("EPSG:")), 100)
    if hemisphere not in (326, 327):
        raise ValueError(f"{crs} is no UTM zone on WGS 84 (EPSG:326xx or EPSG:327xx)")
    return f"{number}{'N' if hemisphere == 326 else 'S'}"


def tile_key(year: int, grid: Grid, name: str) -> str:
    """Return a tile's path below a mirror root: ``tge-labs/.../{year}/{utm zone}/{name}-...tiff``."""
    return f"{PREFIX}/{year}/{utm_zone(grid.crs)}/{name}-0000000000-0000000000.tiff"


def write_tile(
    path: Path,
    grid: Grid,
    chunks: Iterable[tuple[int, NDArray[Any]]],
    *,
    bands: int = 64,
    nodata: float | None = NODATA,
    dtype: str = "int8",
    **options: Any,
) -> Path:
    """Write a GeoTIFF laid out like an AEF tile, chunk by chunk, into a folder made when missing.

    Chunks that are not given, or hold nothing but nodata, stay absent from the file (byte count 0).

    Parameters
    ----------
    path : Path
    grid : Grid
        Size, chunk size (multiples of 16) and, by the sign of `dy`, orientation.
    chunks : iterable of (int, array [band, y, x])
        Chunk number and the pixels of ``grid.chunk(number)``.
    bands, nodata, dtype
        Bands are named A00, A01, ...
    **options
        GDAL creation options that replace those of AEF, such as ``interleave="pixel"``.
    """
    profile: dict[str, Any] = {"driver": "GTiff", "dtype": dtype, "nodata": nodata, "crs": grid.crs}
    profile |= {"count": bands, "height": grid.height, "width": grid.width}
    profile |= {"transform": Affine(grid.dx, 0, grid.x0, 0, grid.dy, grid.y0)}
    profile |= {"tiled": True, "blockxsize": grid.chunk_width, "blockysize": grid.chunk_height}
    profile |= {"interleave": "band", "compress": "zstd", "predictor": 1}
    profile |= {"bigtiff": "YES", "endianness": "LITTLE", "sparse_ok": True}
    path.parent.mkdir(parents=True, exist_ok=True)
    # Blocks reach the file when the cache evicts them: a cache of fixed size gives the same bytes everywhere.
    with rasterio.Env(GDAL_CACHEMAX=128), rasterio.open(path, "w", **(profile | options)) as file:
        file.descriptions = tuple(f"A{band:02d}" for band in range(bands))
        for number, pixels in chunks:
            place = grid.chunk(number)
            row, col = grid.chunk_offset(number)
            expected = (bands, place.height, place.width)
            if pixels.shape != expected:
                raise ValueError(f"chunk {number} of {path}: {pixels.shape=}, {expected=}")
            file.write(pixels, window=Window(col, row, place.width, place.height))
    return path


def index_row(fid: int, key: str, year: int, grid: Grid) -> dict[str, Any]:
    """Describe the tile at `key` below a mirror root as a row of the public index, geometry included."""
    to_degrees = Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
    degrees = to_degrees.transform_bounds(*grid.bounds, densify_pts=21)
    sides = ("west", "south", "east", "north")
    row: dict[str, Any] = {"fid": fid, "path": f"s3://{BUCKET}/{key}", "year": year}
    row |= {"crs": grid.crs, "utm_zone": utm_zone(grid.crs)}
    row |= {f"utm_{side}": edge for side, edge in zip(sides, grid.bounds, strict=True)}
    row |= {f"wgs84_{side}": edge for side, edge in zip(sides, degrees, strict=True)}
    return row | {"location": Path(key).stem, "geometry": shapely.box(*degrees)}


def write_index(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows of `index_row` as the public ``aef_index.parquet``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    gpd.GeoDataFrame([dict(row) for row in rows], geometry="geometry", crs="EPSG:4326").to_parquet(path)
    return path
