"""Ground: grids, CRSs, and polygons in them. Knows neither files nor rasters."""
