from __future__ import annotations

import functools
import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from builds import REPO
from RangeHTTPServer import RangeRequestHandler
from rasterio.enums import ColorInterp
from rasterio.transform import Affine

from zonal.errors import InputError, StoreError
from zonal.io.raster.gdal import GdalRaster
from zonal.io.store.ranges import ReadPolicy

NORTH_UP = Affine(10, 0, 500_000, 0, -10, 4_000_000)
SOUTH_UP = Affine(10, 0, 500_000, 0, 10, 4_000_000)


def write(path: Path, array: npt.NDArray[Any], transform: Affine = NORTH_UP, **options: Any) -> Path:
    profile: dict[str, Any] = {"driver": "GTiff", "count": len(array), "dtype": array.dtype.name}
    profile |= {"height": array.shape[1], "width": array.shape[2], "crs": "EPSG:32616"}
    with rasterio.open(path, "w", **(profile | {"transform": transform} | options)) as dataset:
        dataset.write(array)
    return path


def image(bands: int = 3, height: int = 60, width: int = 70) -> npt.NDArray[np.int16]:
    return np.random.default_rng(0).integers(0, 50, (bands, height, width)).astype(np.int16)


def whole(raster: GdalRaster) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Read every chunk into one array, and check that chunks cover the grid once."""
    grid = raster.grid
    shape = (len(raster.bands), grid.height, grid.width)
    values, valid, seen = np.empty(shape), np.empty(shape, np.bool_), np.zeros(shape[1:], int)
    for chunk in range(grid.chunk_count):
        (row, col), place = grid.chunk_offset(chunk), grid.chunk(chunk)
        assert max(place.width, place.height) <= 1024
        at = np.s_[row : row + place.height, col : col + place.width]
        pixels = raster.decode(raster.fetch(chunk))
        assert pixels.values.dtype == np.float64
        assert pixels.values.flags.c_contiguous
        values[:, *at], valid[:, *at] = pixels.values, pixels.valid
        seen[at] += 1
    assert (seen == 1).all()
    return values, valid


@pytest.mark.parametrize("transform", [NORTH_UP, SOUTH_UP])
def test_place_and_values_are_the_files_own(tmp_path: Path, transform: Affine) -> None:
    array = image()
    raster = GdalRaster.open(str(write(tmp_path / "x.tif", array, transform, compress="lzw", nodata=3)))
    assert (raster.grid.x0, raster.grid.y0, raster.grid.dx, raster.grid.dy) == (
        500_000,
        4_000_000,
        10,
        transform.e,
    )
    assert raster.grid.crs == "EPSG:32616"
    assert raster.bands == ("band1", "band2", "band3")
    assert raster.rule == "linear"
    values, valid = whole(raster)
    np.testing.assert_array_equal(valid, array != 3)
    np.testing.assert_array_equal(values, np.where(array != 3, array, 0))


def test_scale_offset_and_nodata_are_each_bands_own(tmp_path: Path) -> None:
    array = image()
    parts = [write(tmp_path / f"{i}.tif", array[i : i + 1], nodata=i + 1) for i in range(2)]
    bands = "".join(
        f"""<VRTRasterBand dataType="Int16" band="{i + 1}"><NoDataValue>{i + 1}</NoDataValue>
        <Offset>{-i}</Offset><Scale>{0.5 + i}</Scale><Description>layer {i}</Description>
        <SimpleSource><SourceFilename relativeToVRT="1">{part.name}</SourceFilename></SimpleSource>
        </VRTRasterBand>"""
        for i, part in enumerate(parts)
    )
    path = tmp_path / "both.vrt"
    path.write_text(
        f'<VRTDataset rasterXSize="70" rasterYSize="60"><SRS>EPSG:32616</SRS>'
        f"<GeoTransform>500000,10,0,4000000,0,-10</GeoTransform>{bands}</VRTDataset>"
    )
    raster = GdalRaster.open(str(path))
    assert raster.bands == ("layer 0", "layer 1")
    pixels = raster.decode(raster.fetch(0))
    assert pixels.valid.shape == (2, 60, 70)
    for i in range(2):
        valid = array[i] != i + 1
        np.testing.assert_array_equal(pixels.valid[i], valid)
        np.testing.assert_array_equal(pixels.values[i], np.where(valid, array[i] * (0.5 + i) - i, 0))


@pytest.mark.parametrize("nodata", [None, np.nan, -1.0])
def test_nan_is_invalid_whatever_the_nodata_value(tmp_path: Path, nodata: float | None) -> None:
    array = image().astype(np.float32)
    array[:, 5, 5] = np.nan
    raster = GdalRaster.open(str(write(tmp_path / "x.tif", array, nodata=nodata)))
    pixels = raster.decode(raster.fetch(0))
    assert pixels.valid.shape == (60, 70)
    assert np.argwhere(~pixels.valid).tolist() == [[5, 5]]
    assert np.isfinite(pixels.values).all()


def test_an_internal_mask_counts(tmp_path: Path) -> None:
    mask = np.random.default_rng(1).random((60, 70)) > 0.3
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        path = write(tmp_path / "x.tif", image())
        with rasterio.open(path, "r+") as dataset:
            dataset.write_mask(mask)
    raster = GdalRaster.open(str(path))
    np.testing.assert_array_equal(raster.decode(raster.fetch(0)).valid, mask)


def test_an_alpha_band_is_a_mask_and_no_data(tmp_path: Path) -> None:
    array = image(4).astype(np.uint8)
    array[3] = np.random.default_rng(1).random((60, 70)) > 0.3
    path = write(tmp_path / "x.tif", array)
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    raster = GdalRaster.open(str(path))
    assert raster.bands == ("band1", "band2", "band3")
    np.testing.assert_array_equal(raster.decode(raster.fetch(0)).valid, array[3] > 0)


@pytest.mark.parametrize(
    ("shape", "options", "chunk"),
    [
        ((30, 2500), {"blockysize": 1}, (1024, 1024)),
        ((2500, 30), {"blockysize": 2500}, (1024, 30 * 34)),
        ((1300, 1300), {"tiled": True, "blockxsize": 256, "blockysize": 256}, (1024, 1024)),
        ((900, 900), {"tiled": True, "blockxsize": 400, "blockysize": 304}, (912, 800)),
    ],
)
def test_chunks_are_whole_blocks_of_at_most_1024_pixels(
    tmp_path: Path, shape: tuple[int, int], options: dict[str, Any], chunk: tuple[int, int]
) -> None:
    array = image(1, *shape)
    raster = GdalRaster.open(str(write(tmp_path / "x.tif", array, compress="lzw", **options)))
    assert (raster.grid.chunk_height, raster.grid.chunk_width) == chunk
    np.testing.assert_array_equal(whole(raster)[0], array)


def test_a_crs_without_code_is_given_as_wkt(tmp_path: Path) -> None:
    raster = GdalRaster.open(
        str(write(tmp_path / "x.tif", image(), crs="+proj=laea +lat_0=45 +lon_0=-100 +datum=WGS84 +units=m"))
    )
    assert raster.grid.crs.startswith("PROJCS[")


def test_many_threads_read_one_raster(tmp_path: Path) -> None:
    array = image(2, 700, 700)
    path = write(tmp_path / "x.tif", array, tiled=True, blockxsize=16, blockysize=16, compress="lzw")
    raster = GdalRaster.open(str(path))
    with ThreadPoolExecutor(8) as pool:
        for values in pool.map(lambda _: whole(raster)[0], range(16)):
            np.testing.assert_array_equal(values, array)
    assert raster.counters.requests == 16 * raster.grid.chunk_count
    assert raster.counters.bytes == 16 * array.nbytes


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"crs": None}, "no CRS"),
        ({"transform": Affine(10, 1, 500_000, 1, -10, 4_000_000)}, "rotated"),
        ({"dtype": "complex64"}, "complex64 numbers, expected integers or floats"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    array = image().astype(options.pop("dtype", "int16"))
    path = write(tmp_path / "x.tif", array, options.pop("transform", NORTH_UP), **options)
    with pytest.raises(InputError, match=rf"x\.tif: .*{words}"):
        GdalRaster.open(str(path))


def test_a_file_that_is_no_raster_is_one_sentence_and_silent(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a raster")
    code = (
        "import sys\nfrom zonal.io.raster.gdal import GdalRaster\nfrom zonal.errors import InputError\n"
        "try: GdalRaster.open(sys.argv[1])\nexcept InputError as error: print(error)"
    )
    root = REPO
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, cwd=root, check=True
    )
    assert "notes.txt: rasterio cannot read the file" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""
    with pytest.raises(InputError, match=r"nowhere\.tif: no such file"):
        GdalRaster.open(str(tmp_path / "nowhere.tif"))


def test_a_damaged_block_names_its_chunk(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tif", image(1, 600, 600), compress="deflate")
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2 : len(raw) // 2 + 5000] = bytes(5000)
    path.write_bytes(raw)
    raster = GdalRaster.open(str(path))
    with pytest.raises(InputError, match=r"x\.tif: rasterio cannot read chunk 0"):
        raster.fetch(0)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Any]:
    class Handler(RangeRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            if self.server.broken:  # type: ignore[attr-defined]
                self.send_error(503)
            else:
                super().do_GET()

    httpd: Any = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(tmp_path)))
    httpd.daemon_threads, httpd.broken = True, False
    httpd.url = f"http://127.0.0.1:{httpd.server_port}"
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield httpd
    httpd.shutdown()
    httpd.server_close()


def test_a_remote_raster_reads_the_same_in_every_thread_and_counts_its_bytes(
    tmp_path: Path, server: Any
) -> None:
    array = image(2, 300, 300)
    path = write(tmp_path / "x.tif", array, tiled=True, blockxsize=64, blockysize=64, compress="lzw")
    raster = GdalRaster.open(f"{server.url}/x.tif")
    with ThreadPoolExecutor(3) as pool:
        for values in pool.map(lambda _: whole(raster)[0], range(6)):
            np.testing.assert_array_equal(values, array)
    assert raster.stat.size == path.stat().st_size
    assert raster.counters.requests > 1
    assert raster.counters.bytes >= path.stat().st_size


def test_a_remote_fault_while_reading_is_a_store_error_never_blank_pixels(
    tmp_path: Path, server: Any
) -> None:
    array = np.random.default_rng(0).integers(1, 255, (3, 900, 900)).astype(np.uint8)
    write(tmp_path / "x.tif", array, tiled=True, blockxsize=512, blockysize=512)
    raster = GdalRaster.open(f"{server.url}/x.tif", policy=ReadPolicy(attempts=2, delay=0.001))
    server.broken = True
    with pytest.raises(StoreError, match=r"x\.tif: bytes .*: HTTP 503"):
        whole(raster)
    server.broken = False
    np.testing.assert_array_equal(whole(raster)[0], array)


def test_a_raster_that_nobody_holds_is_closed(tmp_path: Path, server: Any) -> None:
    write(tmp_path / "x.tif", image())
    raster = GdalRaster.open(f"{server.url}/x.tif")
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(raster.fetch, [0, 0]))
    handles, gone = list(raster._handles), weakref.ref(raster)
    del raster
    gc.collect()
    assert gone() is None
    assert all(handle.dataset.closed for handle in handles)
