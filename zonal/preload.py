"""What a worker loads before its first task: ``dask worker --preload zonal.preload``.

Knows what tasks import and which loops they run. Without it the first task of
every worker would do this instead; the workers that zonal starts have it.
"""

from __future__ import annotations

from typing import Any


def dask_setup(worker: Any) -> None:
    """Import what tasks import, and fetch the compiled loops from numba's cache."""
    import zonal.io.cog
    import zonal.work  # noqa: F401
    from zonal.stats.preload import preload

    preload()
