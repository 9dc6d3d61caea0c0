"""From table to findings. Takes a table and a `map`; knows neither io nor Dask."""
