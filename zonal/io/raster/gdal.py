"""Raster over anything rasterio opens, in block-aligned windows.

Knows rasterio's datasets, masks and scales; GDAL reads and decodes in one go,
so `fetch` does both here. Slower than the chunk reader, and far less picky.
"""

from __future__ import annotations

import io
import logging
import re
import threading
import warnings
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from zonal.errors import InputError, StoreError, ZonalError
from zonal.geo.grid import Grid
from zonal.io.raster.raster import DecodeRule, Pixels, linear_pixels
from zonal.io.store.ranges import Blob, Counters, FileStat, ReadPolicy
from zonal.io.store.seekable import Seekable

_CHUNK = 1024  # pixels: no window is larger, either way
_BUFFER = (
    256 * 1024
)  # bytes that one remote read brings at least: headers and small blocks lie close together

# Without a handler of the application's, Python prints what rasterio logs; the errors say it once already.
logging.getLogger("rasterio").addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class Fetched:
    """A window as stored: numbers[band, y, x] and valid[band, y, x]."""

    numbers: npt.NDArray[Any]
    valid: npt.NDArray[np.bool_]

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.numbers.nbytes


class GdalRaster:
    """A raster read window by window through rasterio; implements `Raster`, safe to share between threads.

    Every band but alpha is data, with its own scale, offset and nodata. A
    pixel is invalid where GDAL's mask says so (nodata, alpha 0, internal or
    side-car mask) or where it is NaN.

    Attributes
    ----------
    name : str
    grid : Grid
    bands : tuple of str
    nodata : tuple of (float or None)
        What the file states, band by band.
    rule : "linear"
    stat : FileStat
        Size and version when it was opened.
    header_bytes : int
        What opening it read; 0 of a local file, where GDAL does not tell.
    close : callable
        Closes the file; so does the end of the object or of the process.
    counters : Counters
        Of a remote file: requests and bytes on the wire. Of a local one GDAL does not
        tell: `requests` are windows read, `bytes` their uncompressed numbers.
    """

    rule: DecodeRule = "linear"

    def __init__(self, blob: Blob) -> None:
        self.name = blob.name
        self.blob = blob
        self.stat: FileStat = blob.stat()
        self.counters = Counters() if blob.local else blob.counters
        self._lock = threading.Lock()
        self._local = threading.local()
        self._handles: list[_Handle] = []
        # Not left to the garbage collector: rasterio keeps an opener alive until its dataset is closed.
        self.close = weakref.finalize(self, _close, self._handles)
        dataset = self._handle().dataset
        with self._errors("its header"):
            self._indexes = [
                i for i, colour in enumerate(dataset.colorinterp, 1) if colour is not ColorInterp.alpha
            ]
            if not self._indexes:
                raise InputError(f"{self.name}: no band but alpha; expected data")
            picked = [i - 1 for i in self._indexes]
            self._dtype = np.result_type(*(dataset.dtypes[i] for i in picked))
            self.bands = tuple(dataset.descriptions[i] or f"band{n}" for n, i in enumerate(picked, 1))
            self.nodata = tuple(dataset.nodatavals[i] for i in picked)
            self._scales = np.array([dataset.scales[i] for i in picked], np.float64)
            self._shifts = np.array([dataset.offsets[i] for i in picked], np.float64)
            self.grid = self._place(dataset)
        self.header = None  # GDAL keeps it to itself
        self.header_bytes = self.counters.bytes
        if self._dtype.kind not in "uif":
            raise InputError(f"{self.name}: {self._dtype} numbers, expected integers or floats")

    @classmethod
    def open(
        cls,
        path_or_url: str,
        storage_options: Mapping[str, Any] | None = None,
        policy: ReadPolicy | None = None,
    ) -> GdalRaster:
        """Open a raster and read its header.

        Parameters
        ----------
        path_or_url : str
            A local path or anything fsspec resolves to one file.
        storage_options : mapping, optional
            For the fsspec filesystem.
        policy : ReadPolicy, optional

        Raises
        ------
        InputError
            Missing, not a raster, without CRS, rotated, or with complex numbers.
        StoreError
            The store failed after all retries.
        """
        return cls(Blob(path_or_url, storage_options, policy))

    def __repr__(self) -> str:
        grid = self.grid
        return f"GdalRaster({self.name!r}, {len(self.bands)} bands, {grid.width} x {grid.height})"

    def chunk_bytes(self, chunk: int) -> int:
        """Return the bytes that `fetch` will hold: decoded ones, for GDAL does not tell the stored."""
        place = self.grid.chunk(chunk)
        return len(self.bands) * place.width * place.height * (self._dtype.itemsize + 1)

    def fetch(self, chunk: int) -> Fetched:
        """Read a window with its masks (GDAL decodes as it reads).

        Raises
        ------
        InputError
            The window cannot be read (local file).
        StoreError
            The same of a remote file, or its store failed after all retries.
        """
        row, col = self.grid.chunk_offset(chunk)
        place = self.grid.chunk(chunk)
        window = Window(col, row, place.width, place.height)
        handle = self._handle()
        with self._errors(f"chunk {chunk}"):
            numbers, valid = handle.read(self._indexes, window, self._dtype)
        if self.blob.local:
            with self._lock:
                self.counters.requests += 1
                self.counters.bytes += numbers.nbytes
        return Fetched(numbers, valid)

    def decode(self, fetched: Fetched, reuse: Pixels | None = None) -> Pixels:
        """Apply scale and offset (CPU only), into new memory.

        Returns
        -------
        Pixels
            float64 values[band, y, x], 0 where invalid; valid[y, x] where all bands
            agree, else [band, y, x].
        """
        return linear_pixels(fetched.numbers, fetched.valid.copy(), self._scales, self._shifts)

    def _handle(self) -> _Handle:
        """Return this thread's own handle: GDAL's datasets are not thread-safe."""
        handle: _Handle | None = getattr(self._local, "handle", None)
        if handle is None:
            with self._errors("the file"):
                handle = _Handle(self.blob, self.stat.size)
            self._local.handle = handle
            with self._lock:
                self._handles.append(handle)
        return handle

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """Turn what rasterio raises into one sentence, and keep GDAL off the terminal."""
        cause = ""
        try:
            # Remote: a listing of the folder would be asked of the server at every open.
            listing = "FALSE" if self.blob.local else "EMPTY_DIR"
            with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN=listing):
                yield
        except ZonalError:
            raise
        except (RasterioError, OSError, ValueError) as exc:
            cause = re.sub(r"/vsiriopener_\w+/", "", " ".join(str(exc).split()))
            cause = cause.replace(self.blob.path, self.name) or type(exc).__name__
        if cause:
            kind = InputError if self.blob.local or what == "the file" else StoreError
            raise kind(f"{self.name}: rasterio cannot read {what} ({cause})")

    def _place(self, dataset: Any) -> Grid:
        transform = dataset.transform
        if dataset.crs is None:
            raise InputError(f"{self.name}: no CRS; expected one in the file (gdal_edit -a_srs sets it)")
        if transform.is_identity:
            raise InputError(f"{self.name}: no placement: the file does not say where its pixels lie")
        if transform.b or transform.d or transform.a <= 0:
            raise InputError(
                f"{self.name}: the image is rotated, sheared or mirrored; warp it to a north-up grid first"
            )
        code = dataset.crs.to_epsg()
        rows, columns = dataset.block_shapes[self._indexes[0] - 1]
        return Grid(
            crs=dataset.crs.to_wkt() if code is None else f"EPSG:{code}",
            x0=transform.c,
            y0=transform.f,
            dx=transform.a,
            dy=transform.e,
            width=dataset.width,
            height=dataset.height,
            chunk_width=_chunk_side(columns),
            chunk_height=_chunk_side(rows),
        )


class _Handle:
    """An open dataset, and the context that it must be used in.

    rasterio keeps the files of its Python openers in context variables: a dataset
    closed in another context than the one that opened it takes the process down.
    """

    def __init__(self, blob: Blob, size: int) -> None:
        self._context = copy_context()
        self._opener = None if blob.local else _Opener(blob, size)
        with warnings.catch_warnings(), self._faults():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # an error of ours
            self.dataset = self._context.run(rasterio.open, blob.path, opener=self._opener)

    def read(
        self, indexes: list[int], window: Window, dtype: np.dtype[Any]
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        with self._faults():
            numbers = self._context.run(self.dataset.read, indexes, window=window, out_dtype=dtype)
            masks = self._context.run(self.dataset.read_masks, indexes, window=window)
        return numbers, masks > 0

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Raise what the opener met, whether GDAL stumbled over it or took it for the file's end."""
        try:
            yield
        finally:
            if self._opener is not None and self._opener.faults:
                raise self._opener.faults.pop()

    def close(self) -> None:
        with rasterio.Env():
            self._context.run(self.dataset.close)


class _Opener:
    """Give GDAL a file whose reads go through `ranges`: our retries, our counters."""

    def __init__(self, blob: Blob, size: int) -> None:
        self._blob = blob
        self._size = size
        self.faults: list[ZonalError] = []

    def __call__(self, path: str, mode: str = "rb", **_: Any) -> io.BufferedReader:
        if path != self._blob.path or "w" in mode:
            raise FileNotFoundError(path)  # side-cars are not looked for: each would cost a request
        return io.BufferedReader(_BlobFile(self._blob, self._size, self.faults), _BUFFER)


class _BlobFile(Seekable):
    """A file that keeps its faults, for no exception gets through GDAL."""

    def __init__(self, blob: Blob, size: int, faults: list[ZonalError]) -> None:
        super().__init__(blob, size, window=0)  # the buffer around it reads ahead
        self._faults = faults

    def readinto(self, buffer: Any) -> int:
        try:
            return super().readinto(buffer)
        except ZonalError as exc:
            self._faults.append(exc)
            return 0


def _close(handles: list[_Handle]) -> None:
    while handles:
        handles.pop().close()


def _chunk_side(block: int) -> int:
    """Return the pixels of a chunk's side: whole blocks, unless one block alone is too large."""
    return max(1, _CHUNK // block) * block if block <= _CHUNK else _CHUNK
