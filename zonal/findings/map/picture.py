"""Pictures with a place on Earth: painted window by window, as a Cloud-Optimized GeoTIFF, as a small PNG.

Knows pixels, tags and GDAL's options; knows nothing of what the colours mean.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.shutil
from affine import Affine
from PIL import Image

# What `rasterio.shutil.copy` raises has no public name (tried on 1.4.4). test_draw.py writes into a folder
# that is not there, and fails where this one has another name.
from rasterio._err import CPLE_BaseError
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.windows import Window

from zonal.errors import InputError, first_line
from zonal.geo.grid import Grid

BLOCK = 512
"""Pixels of a block of the file, either way."""

CACHE = 128
"""MB of pixels that GDAL keeps; left to itself it takes a twentieth of the machine's memory."""

SCRATCH: Mapping[str, Any] = {
    "driver": "GTiff",
    "dtype": "uint8",
    "count": 4,
    "photometric": "RGB",
    "alpha": "yes",
    "tiled": True,
    "blockxsize": BLOCK,
    "blockysize": BLOCK,
    "interleave": "pixel",
    "compress": "deflate",
    # It is read once.
    "zlevel": 1,
    "sparse_ok": True,
    "bigtiff": "IF_SAFER",
    "num_threads": "ALL_CPUS",
}

COG: Mapping[str, Any] = {
    "driver": "COG",
    "blocksize": BLOCK,
    # Any GDAL, browser or library opens it; of ZSTD that is not so.
    "compress": "deflate",
    # Of the pixels that are not transparent.
    "overview_resampling": "average",
    "sparse_ok": True,
    "bigtiff": "IF_SAFER",
    "num_threads": "ALL_CPUS",
}

Pixels = npt.NDArray[np.uint8]


@contextmanager
def painting(path: Path, grid: Grid, tags: Mapping[str, str]) -> Iterator[Callable[[int, Pixels], None]]:
    """Open a scratch file to paint; what is not painted is transparent and takes no room.

    Parameters
    ----------
    path : Path
    grid : Grid
        Its chunks are multiples of `BLOCK` pixels, so that no block is written twice.
    tags : mapping of str to str
        The file's metadata.

    Yields
    ------
    callable
        Takes the number of a chunk and its pixels, uint8 ndarray[y, x, 4].
    """
    where = {"width": grid.width, "height": grid.height, "crs": grid.crs}
    transform = Affine(grid.dx, 0, grid.x0, 0, grid.dy, grid.y0)
    with (
        _writing(path),
        rasterio.Env(GDAL_CACHEMAX=CACHE),
        rasterio.open(path, "w", transform=transform, **where, **SCRATCH) as file,
    ):
        file.update_tags(**tags)

        def put(chunk: int, pixels: Pixels) -> None:
            row, column = grid.chunk_offset(chunk)
            height, width, _ = pixels.shape
            file.write(np.moveaxis(pixels, 2, 0), window=Window(column, row, width, height))

        yield put


def write_cog(scratch: Path, target: Path) -> None:
    """Turn a painted file into a Cloud-Optimized GeoTIFF with overviews; equal pixels give equal bytes.

    Whoever is interrupted leaves GDAL at it: let the target be in a folder that is about to go.
    """

    def copy() -> None:
        with _writing(target), rasterio.Env(GDAL_CACHEMAX=CACHE):
            rasterio.shutil.copy(scratch, target, **COG)

    # In a thread: GDAL takes minutes for a state, and the main thread would hear no signal meanwhile.
    pool = ThreadPoolExecutor(1)
    try:
        pool.submit(copy).result()
    finally:
        pool.shutdown(wait=False)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn what GDAL says into one sentence; of a full disk it speaks in many ways."""
    try:
        yield
    except (RasterioError, CPLE_BaseError) as error:
        raise InputError(
            f"the map cannot be written in {path.parent}: {first_line(error)}; is the disk full?"
        ) from error


def preview(path: Path, most: int) -> bytes:
    """Make a PNG of a picture, transparent where that is; at most so many pixels on its longer side."""
    with rasterio.Env(GDAL_CACHEMAX=CACHE), rasterio.open(path) as file:
        shrink = min(1.0, most / max(file.width, file.height))
        height, width = (max(1, round(side * shrink)) for side in (file.height, file.width))
        pixels = file.read(out_shape=(4, height, width), resampling=Resampling.average)
    buffer = io.BytesIO()
    Image.fromarray(np.moveaxis(pixels, 0, 2)).save(buffer, "PNG")
    return buffer.getvalue()
