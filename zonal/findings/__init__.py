"""From a finished table to what it shows. Knows neither the engine nor Dask."""
