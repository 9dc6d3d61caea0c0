"""Rows and columns: GeoParquet, vector files, a run's table and the names in its output folder."""
