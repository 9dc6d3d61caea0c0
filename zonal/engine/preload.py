"""What a worker loads before its first task: ``dask worker --preload zonal.preload``.

Knows what tasks import, some of it not before it is used, and which loops they
run. Without it the first task of every worker would do this instead; the workers
that zonal starts have it.
"""

from __future__ import annotations

import gc
from typing import Any

PRELOAD = "zonal.preload"
"""The public name of this module, as ``dask worker --preload`` takes it."""

FORKED = "zonal.engine.forked"
"""What the process loads that workers of a command are forked from."""

MEMORY = 192 * 2**20
"""Bytes a thread: the pixels of an AEF chunk (64 MB); the rest for coverage, moments and tables."""


def load() -> None:
    """Import what tasks import, and fetch the compiled loops from numba's cache."""
    import fsspec
    import imagecodecs
    import numpy as np
    import pyarrow.parquet

    import zonal.engine.graph
    import zonal.io.raster.cog  # noqa: F401
    from zonal.stats.preload import preload

    preload()
    imagecodecs.zstd_decode(imagecodecs.zstd_encode(b"codecs are loaded when they are used"))
    fsspec.filesystem("file")
    pyarrow.table({"pandas": np.zeros(1)}).schema.pandas_metadata  # noqa: B018
    # Half a million objects that stay: to look through them for garbage takes a tenth of a second, and
    # happened in the first task.
    gc.freeze()


def dask_setup(worker: Any) -> None:
    """Load, and touch `MEMORY` a thread."""
    import numpy as np

    load()
    # The first touch of a page is slow, most of all on a virtual machine: 64 MB took a chunk's decoding three
    # times over. What a thread will need is touched now, while zones are staged.
    np.ones(worker.state.nthreads * MEMORY, np.uint8)  # and given back
