from __future__ import annotations

import shutil
import struct
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import Affine
from rasterio.windows import Window

from zonal.errors import InputError, StoreError, ZonalError
from zonal.io.raster.cog import Cog
from zonal.io.store.ranges import Blob, ReadPolicy

WIDTH, HEIGHT, BANDS = 150, 130, 3
NORTH_UP = Affine(10, 0, 500_000, 0, -10, 4_000_000)
SOUTH_UP = Affine(10, 0, 500_000, 0, 10, 4_000_000)


def image(dtype: str, seed: int = 0) -> npt.NDArray[Any]:
    rng = np.random.default_rng(seed)
    shape = (BANDS, HEIGHT, WIDTH)
    if np.dtype(dtype).kind == "f":
        array = rng.normal(0, 1000, shape).astype(dtype)
        array[0, :9, :9] = np.nan
    else:
        limits = np.iinfo(dtype)
        array = rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    array[:, 20:90, 30:140] = 7  # nodata where it is set
    array[1, 100:, :] = 7
    return array


def write(
    path: Path, array: npt.NDArray[Any], transform: Affine = NORTH_UP, crs: Any = "EPSG:32616", **options: Any
) -> Path:
    names = options.pop("names", ())
    scales, offsets = options.pop("scales", None), options.pop("offsets", None)
    profile = {"driver": "GTiff", "count": len(array), "height": array.shape[1], "width": array.shape[2]}
    profile |= {"dtype": array.dtype.name, "crs": crs, "transform": transform} | options
    with rasterio.open(path, "w", **profile) as dataset:
        if not options.get("sparse_ok"):
            dataset.write(array)
        for index, name in enumerate(names, 1):
            dataset.set_band_description(index, name)
        if scales:
            dataset.scales, dataset.offsets = scales, offsets
    return path


def assert_equal_to_rasterio(path: Path, chunks: list[int] | None = None) -> Cog:
    """Compare place, names, values and validity of a file with what GDAL makes of it."""
    cog = Cog.open(str(path))
    with rasterio.open(path) as dataset:
        transform = dataset.transform
        assert (cog.grid.x0, cog.grid.y0) == pytest.approx((transform.c, transform.f), abs=1e-9)
        assert (cog.grid.dx, cog.grid.dy) == (transform.a, transform.e)
        assert (cog.grid.width, cog.grid.height) == (dataset.width, dataset.height)
        assert cog.grid.crs == f"EPSG:{dataset.crs.to_epsg()}"
        names = tuple(name or f"band{i}" for i, name in enumerate(dataset.descriptions, 1))
        assert cog.bands == names
        scales = np.array(dataset.scales)[:, None, None]
        offsets = np.array(dataset.offsets)[:, None, None]
        for chunk in range(cog.grid.chunk_count) if chunks is None else chunks:
            row, col = cog.grid.chunk_offset(chunk)
            place = cog.grid.chunk(chunk)
            assert (place.x0, place.y0) == pytest.approx(
                (transform.c + col * transform.a, transform.f + row * transform.e), abs=1e-6
            )
            window = Window(col, row, place.width, place.height)
            stored = dataset.read(window=window)
            valid = (dataset.read_masks(window=window) > 0) & ~np.isnan(stored.astype(np.float64))
            pixels = cog.decode(cog.fetch(chunk))
            assert pixels.values.dtype == np.float64
            assert pixels.values.flags.c_contiguous
            assert pixels.values.shape == stored.shape
            assert pixels.valid.dtype == np.bool_
            assert pixels.valid.ndim == (2 if (valid == valid[0]).all() else 3)
            np.testing.assert_array_equal(np.broadcast_to(pixels.valid, valid.shape), valid)
            values = np.where(valid, stored.astype(np.float64) * scales + offsets, 0)
            np.testing.assert_array_equal(pixels.values, values)
    return cog


@pytest.mark.parametrize("bigtiff", ["YES", "NO"])
@pytest.mark.parametrize("order", ["LITTLE", "BIG"])
@pytest.mark.parametrize(
    ("compress", "predictor"), [("none", 1), ("deflate", 1), ("deflate", 2), ("zstd", 1), ("zstd", 2)]
)
@pytest.mark.parametrize("tiled", [True, False])
@pytest.mark.parametrize("interleave", ["band", "pixel"])
def test_every_layout_equals_rasterio(
    tmp_path: Path, interleave: str, tiled: bool, compress: str, predictor: int, order: str, bigtiff: str
) -> None:
    options: dict[str, Any] = {"interleave": interleave, "bigtiff": bigtiff, "endianness": order, "nodata": 7}
    options |= {"tiled": True, "blockxsize": 64, "blockysize": 32} if tiled else {"blockysize": 9}
    if compress != "none":
        options |= {"compress": compress, "predictor": predictor}
    path = write(tmp_path / "x.tif", image("int16"), **options)
    head = path.read_bytes()[:4]
    assert head[:2] == (b"II" if order == "LITTLE" else b"MM")
    assert (43 if bigtiff == "YES" else 42) in head[2:]
    cog = assert_equal_to_rasterio(path)
    assert cog.grid.chunk_count == (3 * 5 if tiled else 1)


@pytest.mark.parametrize("predictor", [1, 2])
@pytest.mark.parametrize("order", ["LITTLE", "BIG"])
@pytest.mark.parametrize(
    "dtype",
    ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"],
)
def test_every_dtype_equals_rasterio(tmp_path: Path, dtype: str, order: str, predictor: int) -> None:
    options = {"interleave": "pixel", "tiled": True, "blockxsize": 64, "blockysize": 64, "endianness": order}
    path = tmp_path / "x.tif"
    write(path, image(dtype), nodata=7, compress="zstd", predictor=predictor, **options)
    assert_equal_to_rasterio(path)


@pytest.mark.parametrize("compression", [None, "zlib", "zstd"])
@pytest.mark.parametrize("bigtiff", [True, False])
@pytest.mark.parametrize("order", ["<", ">"])
def test_files_of_tifffile_equal_rasterio(
    tmp_path: Path, order: str, bigtiff: bool, compression: Any
) -> None:
    path = tmp_path / "x.tif"
    keys = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32733)
    tags = [
        (33550, "d", 3, (30.0, 20.0, 0.0)),
        (33922, "d", 6, (2.0, 3.0, 0.0, 500_000.0, 7_000_000.0, 0.0)),
        (34735, "H", len(keys), keys),
        (42113, "s", 0, "7"),
    ]
    with tifffile.TiffWriter(path, byteorder=order, bigtiff=bigtiff) as tif:
        tif.write(
            image("uint16"),
            planarconfig="separate",
            photometric="minisblack",
            tile=(64, 64),
            compression=compression,
            predictor=bool(compression),
            extratags=[(*tag, True) for tag in tags],
        )
    cog = assert_equal_to_rasterio(path)
    assert cog.grid.bounds == (499_940.0, 7_000_060.0 - 20 * HEIGHT, 499_940.0 + 30 * WIDTH, 7_000_060.0)


@pytest.mark.parametrize("nodata", [None, 7])
@pytest.mark.parametrize("interleave", ["band", "pixel"])
def test_a_block_of_no_bytes_is_nodata_or_else_zero(tmp_path: Path, interleave: str, nodata: Any) -> None:
    options = {"interleave": interleave, "tiled": True, "blockxsize": 64, "blockysize": 64}
    path = tmp_path / "x.tif"
    write(path, image("int16"), nodata=nodata, compress="deflate", sparse_ok=True, **options)
    with rasterio.open(path, "r+", sparse_ok=True) as dataset:
        dataset.write(image("int16")[:, :64, :64], window=Window(64, 64, 64, 64))
    cog = assert_equal_to_rasterio(path)
    assert [cog.chunk_bytes(i) > 0 for i in range(9)] == [i == 4 for i in range(9)]


@pytest.mark.parametrize("point", [False, True])
@pytest.mark.parametrize("transform", [NORTH_UP, SOUTH_UP, Affine(0.25, 0, -120.5, 0, -0.125, 48)])
def test_place_equals_rasterio_for_areas_and_points(tmp_path: Path, transform: Affine, point: bool) -> None:
    crs = "EPSG:4326" if transform.a < 1 else "EPSG:32716"
    path = write(tmp_path / "x.tif", image("uint8"), transform, crs)
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(AREA_OR_POINT="Point" if point else "Area")
        dataset.transform = transform
    assert_equal_to_rasterio(path)


def test_names_scales_and_offsets_are_the_bands_own(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    names = ("red & blue", "", "B <3>")
    write(path, image("int16"), nodata=7, names=names, scales=(0.5, 1, 2), offsets=(0, -3, 0.25))
    assert assert_equal_to_rasterio(path).bands == ("red & blue", "band2", "B <3>")


@pytest.mark.parametrize(
    ("dtype", "nodata"), [("float32", np.nan), ("float32", -3.4e38), ("float32", 7.0), ("int64", 7)]
)
def test_nodata_is_compared_in_the_stored_type(tmp_path: Path, dtype: str, nodata: float) -> None:
    array = image(dtype)
    array[1, 3, :5] = nodata
    assert_equal_to_rasterio(write(tmp_path / "x.tif", array, nodata=nodata))


def test_strips_are_joined_into_chunks_of_at_most_1024_rows(tmp_path: Path) -> None:
    array = np.arange(2500 * 7, dtype=np.int32).reshape(1, 2500, 7)
    cog = assert_equal_to_rasterio(write(tmp_path / "x.tif", array, blockysize=100, compress="deflate"))
    assert (cog.grid.chunk_width, cog.grid.chunk_height, cog.grid.chunk_count) == (7, 1000, 3)
    cog = assert_equal_to_rasterio(write(tmp_path / "y.tif", array, blockysize=2500))
    assert (cog.grid.chunk_height, cog.grid.chunk_count) == (2500, 1)


def test_a_tile_larger_than_the_image_is_one_chunk(tmp_path: Path) -> None:
    cog = assert_equal_to_rasterio(
        write(tmp_path / "x.tif", image("int16"), tiled=True, blockxsize=256, blockysize=256)
    )
    assert cog.grid.chunk_count == 1


def aef(path: Path, change: Any = None, **options: Any) -> Path:
    """Write a small file in the layout of AEF: planar, ZSTD, south-up, nodata -128."""
    codes = np.random.default_rng(1).integers(-127, 128, (4, 128, 128)).astype(np.int8)
    codes[:, 10:70, :80] = -128
    if change:
        change(codes)
    names = [f"A{i:02}" for i in range(4)]
    options = {"nodata": -128, "names": names, "compress": "zstd", "interleave": "band"} | options
    return write(path, codes, SOUTH_UP, tiled=True, blockxsize=64, blockysize=64, bigtiff="YES", **options)


@pytest.mark.parametrize("interleave", ["band", "pixel"])
def test_aef_codes_come_as_stored_with_one_mask_for_all_bands(tmp_path: Path, interleave: str) -> None:
    path = aef(tmp_path / "x.tif", interleave=interleave)
    cog = Cog.open(str(path), rule="aef")
    with rasterio.open(path) as dataset:
        for chunk in range(4):
            row, col = cog.grid.chunk_offset(chunk)
            stored = dataset.read(window=Window(col, row, 64, 64))
            pixels = cog.decode(cog.fetch(chunk))
            assert pixels.values.dtype == np.int8
            assert pixels.values.flags.c_contiguous
            np.testing.assert_array_equal(pixels.values, stored)
            np.testing.assert_array_equal(pixels.valid, stored[0] != -128)
    assert cog.grid.dy == 10
    assert cog.rule == "aef"


@pytest.mark.parametrize(("band", "code"), [(0, -128), (3, -128), (2, 5)])
def test_an_aef_pixel_with_nodata_in_some_bands_only_is_an_error(
    tmp_path: Path, band: int, code: int
) -> None:
    def change(codes: npt.NDArray[np.int8]) -> None:
        codes[band, *((100, 120) if code == -128 else (20, 20))] = code

    cog = Cog.open(str(aef(tmp_path / "x.tif", change)), rule="aef")
    bad = 3 if code == -128 else 0
    with pytest.raises(InputError, match=rf"x\.tif: chunk {bad}, row .*nodata in one of the bands A00 and"):
        cog.decode(cog.fetch(bad))
    cog.decode(cog.fetch(1))


def test_a_file_that_is_not_aef_is_refused_by_its_rule(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"x\.tif: int16 samples, expected int8"):
        Cog.open(str(write(tmp_path / "x.tif", image("int16"))), rule="aef")
    with pytest.raises(InputError, match="nodata 0, expected -128"):
        Cog.open(str(aef(tmp_path / "y.tif", nodata=0)), rule="aef")


def test_many_threads_read_one_file(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.tif", image("int16"), tiled=True, blockxsize=16, blockysize=16, compress="zstd"
    )
    cog = Cog.open(str(path))
    chunks = list(range(cog.grid.chunk_count)) * 3
    alone = [cog.decode(cog.fetch(chunk)).values for chunk in chunks]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda chunk: cog.decode(cog.fetch(chunk)).values, chunks))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_opening_a_file_costs_one_read_when_its_header_is_in_front(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tif", image("int16"), compress="zstd", driver="COG")
    cog = Cog.open(str(path))
    assert cog.counters.requests == 2  # the stat and one read
    before = cog.counters.bytes
    fetched = cog.fetch(0)
    assert cog.chunk_bytes(0) == fetched.nbytes == sum(map(len, fetched.blocks))
    assert cog.counters.bytes - before == cog.chunk_bytes(0)


# Real data


def test_the_south_up_clip_equals_rasterio(shared: Path) -> None:
    path = shared / "data" / "aef_2024_13N_clip.tif"
    cog = assert_equal_to_rasterio(path)
    assert cog.bands == tuple(f"A{i:02}" for i in range(64))
    assert cog.grid.crs == "EPSG:32613"
    assert cog.grid.dy == 10
    codes = Cog.open(str(path), rule="aef")
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(codes.decode(codes.fetch(0)).values, dataset.read())


def test_the_square_kilometre_equals_rasterio(shared: Path) -> None:
    path = shared / "data" / "aef_2024_16N_1km.tif"
    assert_equal_to_rasterio(path)
    cog = Cog.open(str(path), rule="aef")
    assert np.count_nonzero(~cog.decode(cog.fetch(0)).valid) == 437


def test_the_full_size_tile_equals_rasterio(shared: Path) -> None:
    folder = shared / "mirror" / "tge-labs" / "aef" / "v1" / "annual" / "2024" / "16N"
    (path,) = folder.glob("*.tiff")
    cog = Cog.open(str(path), rule="aef")
    grid = cog.grid
    assert (grid.width, grid.height, grid.chunk_width, grid.chunk_height) == (8192, 8192, 1024, 1024)
    assert (grid.crs, grid.x0, grid.y0, grid.dx, grid.dy) == ("EPSG:32616", 336160, 4833280, 10, 10)
    by_size = sorted(range(64), key=cog.chunk_bytes)
    with rasterio.open(path) as dataset:
        for chunk in (by_size[0], by_size[-1]):
            row, col = grid.chunk_offset(chunk)
            pixels = cog.decode(cog.fetch(chunk))
            stored = dataset.read(window=Window(col, row, 1024, 1024))
            np.testing.assert_array_equal(pixels.values, stored)
            np.testing.assert_array_equal(pixels.valid, stored[0] != -128)


# Refusals


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"compress": "lzw"}, r"compression 5 \(LZW\), expected none, deflate or ZSTD"),
        ({"compress": "jpeg", "dtype": "uint8"}, r"compression 7 \(JPEG\)"),
        ({"compress": "deflate", "predictor": 3, "dtype": "float32"}, "predictor 3, expected 1 or 2"),
        ({"nbits": 4, "dtype": "uint8"}, "4-bit samples"),
        ({"dtype": "complex64"}, "64-bit samples of format 6"),
        ({"alpha": "yes"}, "an alpha band"),
        ({"crs": "+proj=laea +lat_0=45 +lon_0=-100"}, r"a CRS defined in place \(GeoKey 3072 = 32767\)"),
        ({"crs": None}, "no CRS"),
    ],
)
def test_what_only_rasterio_reads_is_refused_by_name(
    tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    array = image("int16").astype(options.pop("dtype", "int16"))
    path = write(tmp_path / "x.tif", array, **options)
    with pytest.raises(InputError, match=rf"x\.tif: {words}.*`driver: rasterio`"):
        Cog.open(str(path))


def test_an_internal_mask_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        write(path, image("uint8"))
        with rasterio.open(path, "r+") as dataset:
            dataset.write_mask(np.eye(HEIGHT, WIDTH) > 0)
    with pytest.raises(InputError, match="an internal mask"):
        Cog.open(str(path))


def test_overviews_are_passed_over(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tif", image("int16"), tiled=True, blockxsize=64, blockysize=64)
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4])
    assert_equal_to_rasterio(path)


def test_a_rotated_image_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tif", image("uint8"), Affine(10, 1, 500_000, 1, -10, 4_000_000))
    with pytest.raises(InputError, match="rotated or sheared"):
        Cog.open(str(path))


def test_an_image_without_place_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "x.tif", image("uint8")[0])
    with pytest.raises(InputError, match="no placement"):
        Cog.open(str(tmp_path / "x.tif"))


@pytest.mark.parametrize("content", [b"", b"II", b"hello, I am a text file\n" * 100, b"II*\0" + b"\xff" * 40])
def test_a_file_that_is_no_tiff_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.tif"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.tif: .*(damaged or no GeoTIFF|beyond the end)"):
        Cog.open(str(path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.tif: no such file"):
        Cog.open(str(tmp_path / "nowhere.tif"))


@pytest.mark.parametrize("keep", [0.02, 0.3, 0.9])
def test_a_truncated_file_is_refused_when_opened(tmp_path: Path, keep: float) -> None:
    path = aef(tmp_path / "x.tif", driver="COG")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(InputError, match=r"x\.tif: .*(end of the file|truncated)"):
        Cog.open(str(path))


def test_a_file_cut_after_it_was_opened_is_an_error(tmp_path: Path) -> None:
    path = aef(tmp_path / "x.tif")
    cog = Cog.open(str(path), rule="aef")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="truncated"):
        cog.fetch(3)


@pytest.mark.parametrize("compress", ["zstd", "deflate", None])
def test_undecodable_bytes_name_chunk_and_band(tmp_path: Path, compress: Any) -> None:
    path = aef(tmp_path / "x.tif", compress=compress)
    cog = Cog.open(str(path), rule="aef")
    fetched = cog.fetch(2)
    blocks = [bytes(block) for block in fetched.blocks]
    for bad in (blocks[1][:-9], b"\0" * len(blocks[1]) if compress else b"\0", blocks[1] * 2):
        if bad == blocks[1] * 2 and compress == "deflate":
            continue  # what follows the end of a deflate stream is padding
        damaged = type(fetched)(2, (blocks[0], bad, *blocks[2:]))
        with pytest.raises(InputError, match=r"x\.tif: chunk 2, band A01: .* cannot be decoded .*damaged"):
            cog.decode(damaged)


QUICK = ReadPolicy(attempts=4, delay=0.001)


def remote(content: bytes) -> Cog:
    """The file in a store that is not of this machine."""
    fsspec.filesystem("memory").pipe("/cog.tif", content)
    return Cog.open("memory://cog.tif", rule="aef", policy=QUICK)


def test_blocks_that_came_undecodable_are_read_again_and_no_others(tmp_path: Path) -> None:
    path = aef(tmp_path / "x.tif")
    cog = remote(path.read_bytes())
    fetched = cog.fetch(0)
    blocks = list(fetched.blocks)
    before = cog.counters.bytes
    found = cog.decode(type(fetched)(0, [b"junk", *blocks[1:-1], bytes(blocks[-1])[:-3]]))
    assert np.array_equal(found.values, cog.decode(fetched).values)
    assert cog.counters.bytes - before == len(blocks[0]) + len(blocks[-1])


def test_bytes_that_stay_undecodable_end_with_chunk_band_cause_and_attempts(tmp_path: Path) -> None:
    content = bytearray(aef(tmp_path / "x.tif").read_bytes())
    start, length = remote(bytes(content))._ranges(2)[1]
    content[start : start + length] = bytes(length)
    cog = remote(bytes(content))
    said = r"memory://cog\.tif: chunk 2, band A01: zstd bytes cannot be decoded .*\(4 attempts\); try again"
    with pytest.raises(StoreError, match=said):
        cog.decode(cog.fetch(2))
    assert cog.counters.retries == 3
    cog.decode(cog.fetch(1))


@pytest.mark.parametrize("interleave", ["band", "pixel"])
def test_nodata_that_came_in_some_bands_only_is_read_again(tmp_path: Path, interleave: str) -> None:
    path = aef(tmp_path / "x.tif", interleave=interleave)

    def odd(data: Any) -> None:
        data[3, 5, 6] = data[0, 9, 9] = -128  # where the others have values
        data[1, 20, 20] = 5  # where the others have none

    wrong = aef(tmp_path / "y.tif", odd, interleave=interleave)
    cog, other = remote(path.read_bytes()), Cog.open(str(wrong), rule="linear")
    came = [bytes(block) for block in other.fetch(0).blocks]
    right = cog.decode(cog.fetch(0))
    before = cog.counters.bytes
    found = cog.decode(type(cog.fetch(0))(0, came))
    assert np.array_equal(found.values, right.values)
    assert np.array_equal(found.valid, right.valid)
    assert cog.counters.bytes > before
    stays = remote(wrong.read_bytes())
    with pytest.raises(StoreError, match=r"chunk 0: row 9, column 9: nodata in one .*\(4 attempts\)"):
        stays.decode(stays.fetch(0))


def test_a_header_that_came_damaged_is_read_again_and_a_wrong_file_is_said_so_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = aef(tmp_path / "x.tif").read_bytes()
    answers = [b"junk" * len(content), content]
    read = Blob.read

    def damaged(self: Blob, *asked: Any) -> list[bytes]:
        fsspec.filesystem("memory").pipe("/cog.tif", answers.pop(0)[: len(content)])
        return read(self, *asked)

    fsspec.filesystem("memory").pipe("/cog.tif", content)
    monkeypatch.setattr(Blob, "read", damaged)
    assert Cog.open("memory://cog.tif", rule="aef", policy=QUICK).counters.retries == 1
    monkeypatch.undo()
    fsspec.filesystem("memory").pipe("/cog.tif", b"no TIFF at all")
    with pytest.raises(InputError, match="begins with b'no T'"):
        Cog.open("memory://cog.tif", rule="aef", policy=QUICK)


def patched(path: Path, code: int, *, count: int | None = None, value: int | None = None) -> Path:
    """Change a tag's count or value in a little-endian BigTIFF."""
    raw = bytearray(path.read_bytes())
    (start,) = struct.unpack_from("<Q", raw, 8)
    (tags,) = struct.unpack_from("<Q", raw, start)
    for at in range(start + 8, start + 8 + 20 * tags, 20):
        if struct.unpack_from("<H", raw, at)[0] == code:
            if count is not None:
                struct.pack_into("<Q", raw, at + 4, count)
            if value is not None:
                struct.pack_into("<Q", raw, at + 12, value)
            break
    else:
        raise KeyError(code)
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize(
    ("code", "change"),
    [
        (324, {"count": 2**40}),
        (324, {"count": 2**63 - 1}),
        (325, {"count": 3}),
        (324, {"value": 2**64 - 8}),
        (256, {"value": 2**16 - 1}),
        (322, {"value": 0}),
        (322, {"value": 2**16 - 1}),
        (277, {"value": 2**16 - 1}),
        (42112, {"count": 2**50}),
        (34735, {"count": 5}),
        (339, {"count": 2}),
    ],
)
def test_absurd_counts_and_offsets_are_refused_without_memory(
    tmp_path: Path, code: int, change: dict[str, int]
) -> None:
    path = patched(aef(tmp_path / "x.tif"), code, **change)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"x\.tif"):
            Cog.open(str(path))
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


def test_a_byte_count_larger_than_the_file_is_refused(tmp_path: Path) -> None:
    path = aef(tmp_path / "x.tif")
    with tifffile.TiffFile(path) as tif:
        at = tif.pages[0].tags[325].valueoffset
        size = {3: 2, 4: 4, 16: 8}[int(tif.pages[0].tags[325].dtype)]
    raw = bytearray(path.read_bytes())
    raw[at : at + size] = b"\xff" * size
    path.write_bytes(raw)
    with pytest.raises(InputError, match=r"x\.tif: block 0"):
        Cog.open(str(path))


def test_a_loop_of_directories_ends(tmp_path: Path) -> None:
    path = aef(tmp_path / "x.tif")
    raw = bytearray(path.read_bytes())
    (start,) = struct.unpack_from("<Q", raw, 8)
    (tags,) = struct.unpack_from("<Q", raw, start)
    struct.pack_into("<Q", raw, start + 8 + 20 * tags, start)
    path.write_bytes(raw)
    with pytest.raises(InputError, match="loop"):
        Cog.open(str(path), rule="linear")


def test_metadata_with_entities_is_refused(tmp_path: Path) -> None:
    path = aef(tmp_path / "x.tif")
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"<GDALMetadata>\n", b"<!DOCTYPE x [] "))
    with pytest.raises(InputError, match="not plain XML"):
        Cog.open(str(path))


@pytest.fixture(scope="module")
def fuzz_seeds(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("fuzz")
    small = image("int16")[:, :40, :40]
    return [
        aef(folder / "a.tif").read_bytes(),
        aef(folder / "b.tif", driver="COG").read_bytes(),
        write(folder / "c.tif", small, endianness="BIG", compress="deflate", nodata=7).read_bytes(),
        write(folder / "d.tif", small, scales=(1, 2, 3), offsets=(0, 0, 1)).read_bytes(),
    ]


@settings(max_examples=4 * settings.default.max_examples)
@given(data=st.data())
def test_no_change_of_a_file_makes_the_reader_fail_otherwise_than_by_its_errors(
    data: st.DataObject, fuzz_seeds: list[bytes], tmp_path: Path
) -> None:
    raw = bytearray(data.draw(st.sampled_from(fuzz_seeds)))
    big = raw[2] == 43 or raw[3] == 43
    order = "little" if raw[:2] == b"II" else "big"
    start = int.from_bytes(raw[8:16] if big else raw[4:8], order)
    for _ in range(data.draw(st.integers(1, 4))):
        # The directory and the header are where a change means something.
        base = data.draw(st.sampled_from([0, start, start, start, len(raw) // 2]))
        at = min(base + data.draw(st.integers(0, 500)), len(raw) - 1)
        junk = data.draw(st.binary(min_size=1, max_size=8) | st.sampled_from([b"\xff" * 8, b"\0" * 8]))
        raw[at : at + len(junk)] = junk
    path = tmp_path / "x.tif"
    path.write_bytes(raw[: data.draw(st.none() | st.integers(0, len(raw)))])
    for rule in ("aef", "linear"):
        try:
            cog = Cog.open(str(path), rule=rule)  # type: ignore[arg-type]
            for chunk in range(min(cog.grid.chunk_count, 2)):
                if cog.grid.chunk(chunk).width * cog.grid.chunk(chunk).height * len(cog.bands) < 2**22:
                    cog.decode(cog.fetch(chunk))
        except ZonalError:
            pass


def test_a_copy_under_another_name_reads_the_same(tmp_path: Path) -> None:
    path = aef(tmp_path / "x.tif")
    other = Path(shutil.copy(path, tmp_path / "with space & sign.tif"))
    one, two = Cog.open(str(path)), Cog.open(str(other))
    np.testing.assert_array_equal(one.decode(one.fetch(0)).values, two.decode(two.fetch(0)).values)
