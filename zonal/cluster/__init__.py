"""Who runs a graph and where workers come from: the only package that imports Dask."""
