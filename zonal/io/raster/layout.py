"""What a TIFF's tags say about its pixels: shape, codec, block table, place, bands.

Knows TIFF, GeoTIFF and GDAL's own tags, and which kinds the chunk reader can
decode; every other kind is refused by name. Reads no pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import unescape

import numpy as np
import numpy.typing as npt

from zonal.errors import InputError
from zonal.io.raster.tiff import Directory, Tag, damaged, unsupported
from zonal.io.store.ranges import Blob

_MAX_BLOCK = 1024 * 1024 * 1024  # bytes of one tile or strip, all bands, as the float64 that it may become
_MAX_BLOCKS = 16 * 1024 * 1024
_MAX_PIXELS = 1e12  # from a CRS's origin to the image, beyond which coordinates cannot tell pixels apart
_MAX_NODATA = 100  # characters

_CODECS = {1: "none", 8: "deflate", 32946: "deflate", 50000: "zstd"}
_OTHER_CODECS = {2: "CCITT", 3: "CCITT", 4: "CCITT", 5: "LZW", 6: "JPEG", 7: "JPEG", 32773: "PackBits"} | {
    34712: "JPEG 2000", 34887: "LERC", 34925: "LZMA", 50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip
_KINDS = {1: "u", 2: "i", 3: "f"}


@dataclass(frozen=True, slots=True, eq=False)
class TiffLayout:
    """What one needs to know to find, decode, place and name the pixels of a TIFF.

    Parameters
    ----------
    width, height, bands : int
        Pixels and samples per pixel.
    dtype : dtype
        Of the stored samples, with the file's byte order.
    codec : {"none", "deflate", "zstd"}
    predictor : {1, 2}
    planar : bool
        Each band has its own blocks (PlanarConfiguration 2).
    tiled : bool
        Blocks are tiles, else strips of full width.
    block_width, block_height : int
        Pixels of a block; strips: of the full width.
    offsets, counts : uint64, uint32 ndarray[plane, block]
        Place and length of each block's bytes; one plane unless `planar`.
        Count 0: the block is nodata.
    crs : str
        ``"EPSG:n"``.
    x0, y0, dx, dy : float
        Outer corner of pixel (0, 0) and pixel size; dy < 0: north-up.
    nodata : str or None
        As written.
    names : tuple of str
        Band names: descriptions, else band1, band2, ...
    scales, shifts : float64 ndarray[band]
        value = stored * scale + shift (TIFF's and GDAL's "offset").
    """

    width: int
    height: int
    bands: int
    dtype: np.dtype[Any]
    codec: str
    predictor: int
    planar: bool
    tiled: bool
    block_width: int
    block_height: int
    offsets: npt.NDArray[np.uint64]
    counts: npt.NDArray[np.uint32]
    crs: str
    x0: float
    y0: float
    dx: float
    dy: float
    nodata: str | None
    names: tuple[str, ...]
    scales: npt.NDArray[np.float64]
    shifts: npt.NDArray[np.float64]


def read_layout(blob: Blob, size: int, *, masks: bool = True) -> TiffLayout:
    """Read and check the first directory of a TIFF.

    Parameters
    ----------
    blob : Blob
    size : int
        Of the file, bytes.
    masks : bool
        Whether to look for an internal mask in the directories after the first,
        which may cost another read.

    Raises
    ------
    InputError
        No TIFF, damaged, or of a kind that only the rasterio reader understands.
    StoreError
        The store failed after all retries.
    """
    tags = Directory(blob, size)
    name = blob.name
    if tags.whole(Tag.SUBFILE, 0) & 0b111:
        raise unsupported(name, "the first image is an overview, page or mask", "the full image first")
    width, height = tags.whole(Tag.WIDTH, tag="width"), tags.whole(Tag.HEIGHT, tag="height")
    bands = tags.whole(Tag.SAMPLES, 1)
    if not (0 < width < 2**31 and 0 < height < 2**31 and 0 < bands < 2**16):
        raise damaged(name, f"{width} x {height} pixels and {bands} bands")
    dtype = _dtype(tags, bands)
    codec = tags.whole(Tag.COMPRESSION, 1)
    if codec not in _CODECS:
        named = _OTHER_CODECS.get(codec, "unknown")
        raise unsupported(name, f"compression {codec} ({named})", "none, deflate or ZSTD")
    predictor = tags.whole(Tag.PREDICTOR, 1)
    if predictor not in (1, 2):
        raise unsupported(name, f"predictor {predictor}", "1 or 2")
    if codec == 1:
        predictor = 1  # the tag only means something to the codecs
    if tags.whole(Tag.PHOTOMETRIC, 1) == 6:
        raise unsupported(name, "YCbCr colours", "plain bands")
    if tags.whole(Tag.FILL_ORDER, 1) != 1:
        raise unsupported(name, "reversed bits (FillOrder 2)", "FillOrder 1")
    extra = tags.wholes(Tag.EXTRA_SAMPLES)
    if extra is not None and np.isin(extra, (1, 2)).any():
        raise unsupported(name, "an alpha band", "data bands only")
    if masks and tags.has_mask():
        raise unsupported(name, "an internal mask", "nodata by value")
    planar = tags.whole(Tag.PLANAR, 1)
    if planar not in (1, 2):
        raise damaged(name, f"PlanarConfiguration {planar}")
    tiled = Tag.TILE_WIDTH in tags.tags
    if tiled:
        block_width, block_height = tags.whole(Tag.TILE_WIDTH), tags.whole(Tag.TILE_HEIGHT, tag="tile height")
    else:
        block_width, block_height = width, min(tags.whole(Tag.ROWS_PER_STRIP, height), height)
    if not (0 < block_width < 2**31 and 0 < block_height < 2**31):
        raise damaged(name, f"blocks of {block_width} x {block_height} pixels")
    if block_width * block_height * bands * 8 > _MAX_BLOCK:
        raise unsupported(
            name,
            f"blocks of {block_width} x {block_height} pixels, {bands} bands",
            "128 million values at most",
        )
    blocks = math.ceil(width / block_width) * math.ceil(height / block_height)
    planes = bands if planar == 2 else 1
    if planes * blocks > _MAX_BLOCKS:
        raise unsupported(name, f"{planes * blocks:,} blocks", f"{_MAX_BLOCKS:,} at most")
    codes = (Tag.TILE_OFFSETS, Tag.TILE_COUNTS) if tiled else (Tag.STRIP_OFFSETS, Tag.STRIP_COUNTS)
    offsets, lengths = (_table(tags, code, planes, blocks) for code in codes)
    plane_bytes = block_width * block_height * dtype.itemsize * (1 if planar == 2 else bands)
    _check_table(name, offsets, lengths, size, plane_bytes)
    counts = lengths.astype(np.uint32)  # they fit, now that they are checked; headers travel to workers
    names, scales, shifts = _band_metadata(tags, bands)
    x0, y0, dx, dy, crs = _placement(tags)
    farthest = max(abs(x0) / dx + width, abs(y0 / dy) + height)
    if not (farthest < _MAX_PIXELS and 0 < dx * abs(dy) < math.inf):
        raise damaged(name, f"pixels of {dx:g} x {dy:g} at {x0:g}, {y0:g}")
    return TiffLayout(
        width, height, bands, dtype, _CODECS[codec], predictor, planar == 2, tiled, block_width, block_height,
        offsets, counts, crs, x0, y0, dx, dy, _nodata(tags, dtype), names, scales, shifts,
    )  # fmt: skip


def _nodata(tags: Directory, dtype: np.dtype[Any]) -> str | None:
    """Return the nodata value as written, or None where no pixel can have it: an infinite integer."""
    text = tags.text(Tag.GDAL_NODATA)
    if text is None:
        return None
    if (
        len(text) > _MAX_NODATA or "_" in text or not text.isascii()
    ):  # Python takes more for numbers than GDAL
        raise damaged(tags.name, f"its nodata value is {text[:40]!r}, not a number")
    try:
        return None if dtype.kind != "f" and math.isinf(float(text)) else text
    except ValueError:
        return text  # empty, or no number: the reader says so


def _dtype(tags: Directory, bands: int) -> np.dtype[Any]:
    bits, formats = tags.wholes(Tag.BITS), tags.wholes(Tag.SAMPLE_FORMAT)
    both = []
    for values, default in ((bits, 1), (formats, 1)):
        values = np.array([default]) if values is None else values
        if values.size not in (1, bands):
            raise damaged(tags.name, f"{values.size} sample sizes or formats for {bands} bands")
        if (values != values[0]).any():
            raise unsupported(tags.name, "bands of different types", "one type for all bands")
        both.append(int(values[0]))
    size, kind = both
    if (kind in (1, 2) and size in (8, 16, 32, 64)) or (kind == 3 and size in (32, 64)):
        return np.dtype(f"{tags.order}{_KINDS[kind]}{size // 8}")
    raise unsupported(
        tags.name, f"{size}-bit samples of format {kind}", "integers of 8 to 64 bits or floats of 32 or 64"
    )


def _table(tags: Directory, code: int, planes: int, blocks: int) -> npt.NDArray[np.uint64]:
    values = tags.wholes(code)
    if values is None or values.dtype.kind != "u" or values.size != planes * blocks:
        entries = "none" if values is None else values.size
        raise damaged(
            tags.name, f"tag {code} should hold {planes * blocks} entries, one a block, but holds {entries}"
        )
    return values.astype(np.uint64).reshape(planes, blocks)


def _check_table(
    name: str, offsets: npt.NDArray[np.uint64], counts: npt.NDArray[np.uint64], size: int, plane_bytes: int
) -> None:
    """Refuse blocks outside the file, and more bytes than any codec needs for a block."""
    end = np.uint64(size)
    outside = (counts > end) | (offsets > end - np.minimum(counts, end))
    outside &= counts > 0  # a block of no bytes is nodata, wherever it points
    if outside.any():
        plane, block = (int(i) for i in np.argwhere(outside)[0])
        last = int(offsets[plane, block]) + int(counts[plane, block])
        raise InputError(
            f"{name}: block {block} (plane {plane}) ends at byte {last} of {size}; is the file truncated?"
        )
    if int(counts.max()) > 2 * plane_bytes + 65536:
        raise damaged(name, f"a block of {plane_bytes} bytes claims to be stored in {int(counts.max())}")


def _placement(tags: Directory) -> tuple[float, float, float, float, str]:
    """Return (x0, y0, dx, dy, crs) as GDAL would place the image."""
    name = tags.name
    scale, tie = tags.reals(Tag.PIXEL_SCALE, 2), tags.reals(Tag.TIEPOINT, 6)
    matrix = tags.reals(Tag.TRANSFORMATION, 16)
    if scale and tie:
        if scale[1] < 0:
            raise unsupported(name, "a negative pixel height in ModelPixelScale", "a positive one")
        dx, dy = scale[0], -scale[1]
        x0, y0 = tie[3] - tie[0] * dx, tie[4] - tie[1] * dy
    elif matrix:
        dx, dy, x0, y0 = matrix[0], matrix[5], matrix[3], matrix[7]
        if matrix[1] or matrix[4]:
            raise InputError(f"{name}: the image is rotated or sheared; warp it to a north-up grid first")
    else:
        raise InputError(f"{name}: no placement (ModelTransformation, or ModelPixelScale with ModelTiepoint)")
    keys = _geo_keys(tags)
    if keys.get(1025) == 2:  # PixelIsPoint: the numbers place the centre of a pixel
        x0, y0 = x0 - dx / 2, y0 - dy / 2
    if not (dx > 0 and dy and all(math.isfinite(v) for v in (x0, y0))):
        raise InputError(
            f"{name}: pixels of {dx} x {dy}; expected a positive width and a height other than 0"
        )
    kind = {1: 3072, 2: 2048}.get(keys.get(1024, 1 if 3072 in keys else 2), 0)
    code = keys.get(kind, 0)
    if not 1024 <= code <= 32766:
        what = "no CRS" if code == 0 else f"a CRS defined in place (GeoKey {kind} = {code})"
        raise unsupported(name, what, "an EPSG code in its GeoKeys")
    return x0, y0, dx, dy, f"EPSG:{code}"


def _geo_keys(tags: Directory) -> dict[int, int]:
    """Return the GeoKeys whose value lies in the directory itself (codes do)."""
    values = tags.wholes(Tag.GEO_KEYS)
    if values is None:
        return {}
    if values.size < 4 or values.size < 4 + 4 * int(values[3]):
        raise damaged(tags.name, "its GeoKeyDirectory is cut short")
    rows = values[4 : 4 + 4 * int(values[3])].reshape(-1, 4).tolist()
    return {key: value for key, place, count, value in rows if place == 0 and count == 1}


def _band_metadata(
    tags: Directory, bands: int
) -> tuple[tuple[str, ...], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return names, scales and offsets from GDAL's metadata tag."""
    names = [""] * bands
    scales, shifts = np.ones(bands), np.zeros(bands)
    text = tags.text(Tag.GDAL_METADATA)
    if text:
        if "<!" in text:  # no document type, no entities: they are how XML explodes
            raise damaged(tags.name, "its GDAL metadata is not plain XML")
        try:
            items = list(ElementTree.fromstring(text).iter("Item"))
            for item in items:
                role, sample = item.get("role"), int(item.get("sample", "-1"))
                if not 0 <= sample < bands or item.get("domain"):
                    continue
                if role == "description":
                    names[sample] = unescape(item.text or "", {"&quot;": '"'}).strip()  # GDAL escapes twice
                elif role in ("scale", "offset"):
                    (scales if role == "scale" else shifts)[sample] = float(item.text or "nan")
        except (ElementTree.ParseError, ValueError) as exc:
            raise damaged(tags.name, f"its GDAL metadata cannot be read ({exc})") from exc
        if not (np.isfinite(scales).all() and np.isfinite(shifts).all()):
            raise damaged(tags.name, "a band's scale or offset is no number")
    return tuple(name or f"band{i}" for i, name in enumerate(names, 1)), scales, shifts
