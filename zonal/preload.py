"""What a worker loads before its first task: ``dask worker --preload zonal.preload``."""

from zonal.engine.preload import dask_setup as dask_setup
