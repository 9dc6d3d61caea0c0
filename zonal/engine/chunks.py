"""A unit's chunks one after the other, the next in flight while one is decoded and used.

Knows the order of fetching and decoding, and whose memory may be written over;
knows no statistics and no task.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from zonal.io.raster.raster import Pixels, Raster, Stored


class Scratch(threading.local):
    """Pixels that a thread needs no more, for its next unit to write over; stay behind when pickled."""

    pixels: Pixels | None = None

    def __reduce__(self) -> tuple[type[Scratch], tuple[()]]:
        return Scratch, ()


@contextmanager
def decoded(
    raster: Raster, chunks: Sequence[int], scratch: Scratch, then: Callable[[], None] | None = None
) -> Iterator[Iterator[tuple[int, Pixels]]]:
    """Begin to fetch chunks, and decode them as they are asked for.

    Memory: the pixels of one chunk, and the stored bytes of two that came over a network.

    Parameters
    ----------
    raster : Raster
    chunks : sequence of int
        At least one.
    scratch : Scratch
        Of the run.
    then : callable, optional
        Called while the last chunk is decoded; what it raises is raised after that chunk.

    Yields
    ------
    iterator of (int, Pixels)
        For each chunk the bytes read for it, and its pixels: those of the one before are written over.
    """
    ahead = ThreadPoolExecutor(1, "zonal-ahead")
    try:

        def follow(coming: Future[Any]) -> Iterator[tuple[int, Pixels]]:
            for after in (*chunks[1:], None):
                stored: Stored = coming.result()
                if after is not None:
                    coming = ahead.submit(raster.fetch, after)
                elif then is not None:
                    coming = ahead.submit(then)
                scratch.pixels = raster.decode(stored, scratch.pixels)
                yield stored.nbytes, scratch.pixels
            coming.result()

        yield follow(ahead.submit(raster.fetch, chunks[0]))
    finally:  # not waited for when this thread fails or is interrupted
        ahead.shutdown(wait=False, cancel_futures=True)
