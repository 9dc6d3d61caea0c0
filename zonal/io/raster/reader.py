"""How tiles are opened: the same on the driver and on every worker.

Knows readers and what a source says its tiles are; reads headers, and no pixel.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from zonal.errors import InputError, ZonalError
from zonal.io.raster.raster import DecodeRule, Raster
from zonal.io.store.ranges import Blob, FileStat, ReadPolicy

RasterDriver = Literal["cog", "rasterio"]


@dataclass(frozen=True)
class Reader:
    """How tiles are opened: the same on the driver and on every worker.

    Parameters
    ----------
    driver : {"cog", "rasterio"}
    rule : {"aef", "linear"}
        Decode rule of the source.
    bands : tuple of str
        Bands that every tile must have; empty for whatever the first one has.
    options : mapping
        fsspec storage options; never printed.
    nodata : float or None
        Stored value that every tile must state as nodata; None for whatever it states.
    policy : ReadPolicy
        How often to try a remote store.
    """

    driver: RasterDriver
    rule: DecodeRule
    bands: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    nodata: float | None = None
    policy: ReadPolicy = field(default_factory=ReadPolicy)

    def open(self, url: str, stat: FileStat | None = None, header: Any = None) -> Raster:
        """Open a tile; what its header says is read once a run, or once a process where it cannot be shared.

        Parameters
        ----------
        url : str
        stat : FileStat, optional
            Size and version that the file should have; None asks the store for what it has now.
        header : optional
            `Raster.header` of the same file, if it has one.

        Raises
        ------
        InputError
            If the file has other bands or another nodata than the source, or is not the one that
            `stat` tells of (with a `header` nobody looks: see `check_unchanged`).
        """
        if header is not None and stat is not None:
            from zonal.io.raster.cog import Cog

            return Cog(self.blob(url, stat), header, stat, self.rule)
        stat = stat or self.blob(url).stat()
        with _opening(url):
            raster = _open(self.driver, self.rule, url, pickle.dumps(dict(self.options)), self.policy, stat)
        if raster.stat != stat:
            raise _replaced(raster.name)
        self.check(raster)
        return raster

    def check_unchanged(self, url: str, stat: FileStat) -> None:
        """Raise InputError if a tile is not any more the file (size, version) that it was."""
        blob = self.blob(url)
        if blob.stat() != stat:
            raise _replaced(blob.name)

    def blame_replacement(self, url: str, stat: FileStat) -> None:
        """After a failure: raise InputError if the tile was replaced, which says more than what came of it.

        Asks once; where there is no answer, the failure at hand is the one to tell.
        """
        blob = Blob(url, self.options, replace(self.policy, attempts=1))
        now = stat
        with suppress(ZonalError):
            now = blob.stat()
        if now != stat:
            raise _replaced(blob.name)

    def blob(self, url: str, stat: FileStat | None = None) -> Blob:
        """Return a tile's bytes; `stat` is what they are known to be."""
        return Blob(url, self.options, self.policy, stat)

    def check(self, raster: Raster) -> None:
        """Raise InputError if a tile has other bands or another nodata than the source."""
        if self.bands and raster.bands != self.bands:
            raise InputError(
                f"tile {raster.name}: {_named(raster.bands)}, expected {_named(self.bands)}; "
                "is it of another product?"
            )
        if self.nodata is not None:
            _check_nodata(raster, self.nodata)


def _replaced(name: str) -> InputError:
    return InputError(
        f"tile {name}: it is not the file (size, version) that the plan was made from; was it replaced?"
    )


@lru_cache(maxsize=1024)
def _opening(url: str) -> threading.Lock:
    """Threads that need the same tile wait for the first to read its header, and for no other tile's."""
    return threading.Lock()


@lru_cache(maxsize=64)
def _open(
    driver: RasterDriver, rule: DecodeRule, url: str, options: bytes, policy: ReadPolicy, stat: FileStat
) -> Raster:
    # `stat` is only in the key: a file that was replaced is another file.
    # Imported here, so that a worker that reads chunks does not load GDAL, nor the other way round.
    if driver == "cog":
        from zonal.io.raster.cog import Cog

        return Cog.open(url, pickle.loads(options), rule=rule, policy=policy)
    from zonal.io.raster.gdal import GdalRaster

    return GdalRaster.open(url, pickle.loads(options), policy)


def _check_nodata(raster: Raster, expected: float) -> None:
    for band, stated in zip(raster.bands, raster.nodata, strict=True):
        if stated is None and raster.rule == "aef":
            continue  # the rule itself says what nodata is
        # A float32 file states the catalog's decimal number as the nearest float32.
        if stated is None or not np.isclose(stated, expected, rtol=1e-6, atol=0, equal_nan=True):
            statement = "no nodata" if stated is None else f"nodata {stated:g}"
            raise InputError(
                f"tile {raster.name}: band {band} states {statement}, the catalog says {expected:g}; "
                "correct the one that is wrong"
            )


def _named(bands: Sequence[str]) -> str:
    return (
        f"{len(bands)} bands ({bands[0]}..{bands[-1]})" if len(bands) > 1 else f"1 band ({', '.join(bands)})"
    )
