"""Raster over the chunks of a TIFF, AEF first: fetch their bytes, decode them.

Knows codecs, predictors and the two decode rules; the directory is
`layout`'s, the wire `ranges`', and what the pixels are for nobody's here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt

from zonal.errors import InputError, MissingError
from zonal.geo.grid import Grid
from zonal.io.raster.layout import TiffLayout, read_layout
from zonal.io.raster.raster import DecodeRule, Pixels, linear_pixels
from zonal.io.raster.tiff import damaged, unsupported
from zonal.io.store.ranges import Blob, Counters, FileStat, ReadPolicy

AEF_NODATA = -128

_CHUNK_ROWS = 1024  # of strips, which are joined up to here...
_CHUNK_BYTES = 64 * 1024 * 1024  # ...or up to here, as many as an AEF chunk has


@dataclass(frozen=True, slots=True)
class Fetched:
    """The stored bytes of one chunk.

    Parameters
    ----------
    chunk : int
    blocks : iterable of bytes or memoryview
        Plane by plane, and in each plane strip by strip.
    nbytes : int
        Bytes read, those between merged ranges too.
    """

    chunk: int
    blocks: Iterable[bytes | memoryview]
    nbytes: int = 0


@dataclass(frozen=True, slots=True)
class _OnDisk:
    """Blocks of a file of this machine, read one by one as they are decoded.

    They are in the kernel's memory by then. A megabyte that goes from there to the decoder stays in
    the processor's cache; a whole chunk's forty would be forty more megabytes of memory a thread, twice.
    """

    blob: Blob
    ranges: Sequence[tuple[int, int]]

    def __iter__(self) -> Iterator[bytes | memoryview]:
        for wanted in self.ranges:
            yield self.blob.views([wanted])[0]


class _MixedNodataError(ValueError):
    """A pixel is nodata in some bands only; `bands` are those in doubt."""

    def __init__(self, message: str, bands: list[int]) -> None:
        super().__init__(message)
        self.bands = bands


class Cog:
    """A GeoTIFF read chunk by chunk; implements `Raster`, safe to share between threads.

    A chunk is one internal tile with all its bands, or several whole strips.

    Attributes
    ----------
    name : str
    grid : Grid
    bands : tuple of str
    nodata : tuple of (float or None)
        What the file states, band by band; rule ``aef`` implies it.
    rule : {"aef", "linear"}
    stat : FileStat
        Size and version of the file when it was opened.
    header : TiffLayout
        What another process opens the file with, without reading it again.
    header_bytes : int
        What opening it read.
    blob : Blob
        The file itself: ask its `stat()` whether it is still the same.
    """

    def __init__(self, blob: Blob, layout: TiffLayout, stat: FileStat, rule: DecodeRule) -> None:
        self.name = blob.name
        self.blob = blob
        self.stat = stat
        self.rule = rule
        self.bands = layout.names
        self.header_bytes = blob.counters.bytes
        self.header = self._layout = layout
        rows = layout.block_height
        if not layout.tiled:
            row_bytes = layout.width * layout.bands * layout.dtype.itemsize
            rows *= max(1, min(_CHUNK_ROWS, _CHUNK_BYTES // row_bytes) // rows)
        self._strips = rows // layout.block_height
        self._nodata = _nodata(layout, self.name)
        stated = (layout.nodata or "").strip()  # a number, or the line above had refused it
        self.nodata = (float(stated) if stated else None,) * layout.bands
        self.grid = Grid(
            crs=layout.crs,
            x0=layout.x0,
            y0=layout.y0,
            dx=layout.dx,
            dy=layout.dy,
            width=layout.width,
            height=layout.height,
            chunk_width=layout.block_width,
            chunk_height=rows,
        )
        if rule == "aef":
            self._check_aef()

    @classmethod
    def open(
        cls,
        url: str,
        storage_options: Mapping[str, Any] | None = None,
        rule: DecodeRule = "linear",
        policy: ReadPolicy | None = None,
    ) -> Cog:
        """Read a file's header.

        Parameters
        ----------
        url : str
            A local path or anything fsspec resolves.
        storage_options : mapping, optional
            For the fsspec filesystem.
        rule : {"aef", "linear"}
            How stored numbers become values; ``aef`` needs int8 and nodata -128.
        policy : ReadPolicy, optional

        Raises
        ------
        InputError
            Missing, no TIFF, damaged, or of a kind that only the rasterio reader understands.
        StoreError
            The store failed after all retries.
        """
        blob = Blob(url, storage_options, policy)
        stat = blob.stat()
        complaints: set[str] = set()

        def header() -> TiffLayout:
            try:
                # AEF files mark nodata by value, so the rest of their directories need no look.
                return read_layout(blob, stat.size, masks=rule != "aef")
            except InputError as error:
                complaint = str(error)
                if blob.local or isinstance(error, MissingError) or complaint in complaints:
                    raise  # what is wrong twice in the same way was so before it travelled
                complaints.add(complaint)
            raise ValueError(complaint)

        return cls(blob, blob.until_usable(header, "its header"), stat, rule)

    def __repr__(self) -> str:
        grid = self.grid
        return f"Cog({self.name!r}, {len(self.bands)} bands, {grid.width} x {grid.height}, {grid.crs})"

    @property
    def counters(self) -> Counters:
        """What was read so far, the header included."""
        return self.blob.counters

    def chunk_bytes(self, chunk: int) -> int:
        """Return the stored (compressed) bytes of a chunk, all bands."""
        return int(self._layout.counts[:, self._blocks(chunk)].sum())

    def fetch(self, chunk: int) -> Fetched:
        """Read the stored bytes of a chunk (I/O only); of a local file, have the kernel read them.

        Raises
        ------
        InputError
            The file is gone or ends too early.
        StoreError
            The store failed after all retries.
        """
        ranges = self._ranges(chunk)
        nbytes = sum(request.end - request.start for request in self.blob.requests(ranges))
        if self.blob.local:
            self.blob.prefetch(ranges)
            return Fetched(chunk, _OnDisk(self.blob, ranges), nbytes)
        return Fetched(chunk, self.blob.views(ranges, f"chunk {chunk}"), nbytes)

    def decode(self, fetched: Fetched, reuse: Pixels | None = None) -> Pixels:
        """Turn what `fetch` returned into pixels (CPU only, unless bytes must be read again).

        A remote file's blocks that cannot be what was written are read again, as any range that failed.

        Parameters
        ----------
        fetched : Fetched
        reuse : Pixels, optional
            Of an earlier chunk, not needed any more: their memory may be written over.

        Returns
        -------
        Pixels
            Rule ``aef``: int8 codes[band, y, x], valid[y, x]. Rule ``linear``:
            float64 values[band, y, x], 0 where invalid; valid[y, x] where all bands agree, else
            [band, y, x]. NaN is invalid.

        Raises
        ------
        InputError
            The bytes are no such block, or an AEF pixel is nodata in some bands only (local file).
        StoreError
            The same of a remote file, after all retries.
        """
        chunk = fetched.chunk
        stored = self._room(chunk, reuse)
        for index, block in enumerate(fetched.blocks):
            self._fill(stored, chunk, index, block)
        if self.rule != "aef":
            return self._linear(self._clipped(stored, chunk))
        try:
            return self._aef(stored, chunk)
        except _MixedNodataError as mixed:
            if self.blob.local:
                raise InputError(f"{self.name}: chunk {chunk}, {mixed}") from None
            doubtful = mixed.bands if self._layout.planar else [0]

        def again() -> Pixels:
            self._put(
                stored,
                doubtful,
                self.blob.views([self._ranges(chunk)[i] for i in doubtful], f"chunk {chunk}"),
            )
            return self._aef(stored, chunk)

        return self.blob.until_usable(again, f"chunk {chunk}")

    def _blocks(self, chunk: int) -> slice:
        if not 0 <= chunk < self.grid.chunk_count:
            raise IndexError(f"chunk {chunk} of {self.grid.chunk_count}")
        return slice(chunk * self._strips, (chunk + 1) * self._strips)

    def _ranges(self, chunk: int) -> list[tuple[int, int]]:
        """Return (offset, length) of a chunk's blocks, plane by plane."""
        blocks = self._blocks(chunk)
        offsets = self._layout.offsets[:, blocks].ravel().tolist()
        counts = self._layout.counts[:, blocks].ravel().tolist()
        return list(zip(offsets, counts, strict=True))

    def _room(self, chunk: int, reuse: Pixels | None) -> npt.NDArray[Any]:
        """Return memory for a chunk's stored numbers [plane, y, x, sample], in native byte order."""
        layout = self._layout
        planes, samples = (layout.bands, 1) if layout.planar else (1, layout.bands)
        rows = layout.block_height if layout.tiled else self.grid.chunk(chunk).height
        native = layout.dtype.newbyteorder("=")
        shape = (planes, rows, layout.block_width, samples)
        if reuse is not None and (*reuse.values.shape, 1) == shape and reuse.values.dtype == native:
            return reuse.values[..., np.newaxis]
        return np.empty(shape, native)

    def _clipped(self, stored: npt.NDArray[Any], chunk: int) -> npt.NDArray[Any]:
        """Return [band, y, x] of what lies inside the image, C-contiguous."""
        place = self.grid.chunk(chunk)
        clipped = stored[:, : place.height, : place.width]
        if self._layout.planar:
            return np.ascontiguousarray(clipped[..., 0])
        return np.ascontiguousarray(clipped[0].transpose(2, 0, 1))

    def _fill(self, stored: npt.NDArray[Any], chunk: int, index: int, block: Any) -> None:
        """Decode a block into its place; of a remote file, read it again if it cannot be what was written."""
        try:
            return self._put(stored, [index], [block])
        except ValueError as error:
            plane = index // -(-stored.shape[1] // self._layout.block_height)
            where = f"chunk {chunk}, " + (f"band {self.bands[plane]}" if self._layout.planar else "all bands")
            if self.blob.local:
                raise InputError(f"{self.name}: {where}: {error}; the file is damaged") from None

        def again() -> None:
            self._put(stored, [index], self.blob.views([self._ranges(chunk)[index]], where))

        self.blob.until_usable(again, where)

    def _put(self, stored: npt.NDArray[Any], indexes: Sequence[int], blocks: Sequence[Any]) -> None:
        """Decode some blocks of a chunk into their places; ValueError where they cannot be."""
        height = self._layout.block_height
        strips = -(-stored.shape[1] // height)
        for index, block in zip(indexes, blocks, strict=True):
            plane, strip = divmod(index, strips)
            out = stored[plane, strip * height : (strip + 1) * height]
            if not block:  # nodata by the format, and by nothing else: a failed read is an error
                out[...] = 0 if self._nodata is None else self._nodata
                continue
            try:
                self._decode_block(block, out)
            except (RuntimeError, ValueError) as error:  # imagecodecs' errors are RuntimeErrors
                raise ValueError(f"{self._layout.codec} bytes cannot be decoded ({error})") from None

    def _decode_block(self, block: Any, out: npt.NDArray[Any]) -> None:
        """Decode one tile or strip into out[y, x, sample], which it must fill exactly."""
        layout = self._layout
        target = out.reshape(-1).view(np.uint8)
        padded = not layout.tiled and out.shape[0] < layout.block_height
        if padded:  # some writers store the last strip whole
            target = np.empty(layout.block_height * out[0].nbytes, np.uint8)
        if layout.codec == "zstd":
            length = len(imagecodecs.zstd_decode(block, out=target.data))
        elif layout.codec == "deflate":
            length = len(imagecodecs.deflate_decode(block, out=target.data))
        else:
            length = len(block)
            target[:length] = np.frombuffer(block, np.uint8)
        if padded and length in (out.nbytes, target.size):
            out.reshape(-1).view(np.uint8)[:] = target[: out.nbytes]
        elif length != target.size:
            raise ValueError(f"{length} bytes instead of {out.nbytes}")
        if not layout.dtype.isnative:
            out.byteswap(inplace=True)
        if layout.predictor == 2:
            # Differences along each row, modulo 2^bits; of floats, too, their bit patterns.
            bits = out.view(f"u{out.itemsize}")
            np.add.accumulate(bits, axis=1, dtype=bits.dtype, out=bits)

    def _aef(self, stored: npt.NDArray[Any], chunk: int) -> Pixels:
        """Return codes with valid[y, x], after checking that a pixel is nodata in all bands or in none."""
        codes = self._clipped(stored, chunk)
        absent: npt.NDArray[np.bool_] = codes[0] == AEF_NODATA
        other = np.empty_like(absent)
        whole = not absent.any()
        for band in range(1, len(codes)):
            if whole and codes[band].min() > AEF_NODATA:  # as of most chunks: a third of the time
                continue
            np.equal(codes[band], AEF_NODATA, out=other)
            np.logical_xor(other, absent, out=other)
            if other.any():
                y, x = (int(i) for i in np.argwhere(other)[0])
                raise _MixedNodataError(
                    f"row {y}, column {x}: nodata in one of the bands {self.bands[0]} and {self.bands[band]} "
                    "only, expected in all bands or none; is this an AEF file, and whole?",
                    _outvoted(codes == AEF_NODATA),
                )
        np.logical_not(absent, out=absent)
        return Pixels(codes, absent)

    def _linear(self, stored: npt.NDArray[Any]) -> Pixels:
        layout = self._layout
        valid = np.ones(stored.shape, np.bool_)
        if self._nodata is not None:
            np.not_equal(stored, self._nodata, out=valid)
        return linear_pixels(stored, valid, layout.scales, layout.shifts)

    def _check_aef(self) -> None:
        layout = self._layout
        if layout.dtype != np.int8:
            raise InputError(
                f"{self.name}: {layout.dtype.name} samples, expected int8 codes; "
                "is this an AEF file? Other rasters need `rule: linear` in the catalog"
            )
        if layout.nodata is not None and self._nodata != AEF_NODATA:
            raise InputError(
                f"{self.name}: nodata {layout.nodata}, expected {AEF_NODATA}; is this an AEF file?"
            )
        if (layout.scales != 1).any() or (layout.shifts != 0).any():
            raise unsupported(self.name, "AEF codes with a scale or offset of their own", "plain codes")
        self._nodata = np.int8(AEF_NODATA)
        self.nodata = (float(AEF_NODATA),) * layout.bands


def _outvoted(absent: npt.NDArray[np.bool_]) -> list[int]:
    """Return the bands that are nodata, or are not, where most bands of a pixel say otherwise.

    Parameters
    ----------
    absent : bool ndarray[band, y, x]
    """
    most = absent.sum(axis=0) * 2 > len(absent)
    return np.flatnonzero((absent != most).any(axis=(1, 2))).tolist()


def _nodata(layout: TiffLayout, name: str) -> Any:
    """Return the nodata value in the stored type, or None if there is none that a pixel can have."""
    if layout.nodata is None or not layout.nodata.strip():
        return None
    text = layout.nodata.strip()
    try:
        number: int | float = int(text)
    except ValueError:
        try:
            number = float(text)
        except ValueError:
            raise damaged(name, f"its nodata value is {text[:40]!r}, not a number") from None
    if layout.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return np.array(float(number)).astype(layout.dtype.newbyteorder("="))[()]
    limits = np.iinfo(layout.dtype)
    if number != number or number != int(number) or not limits.min <= number <= limits.max:
        return None
    return layout.dtype.newbyteorder("=").type(int(number))
