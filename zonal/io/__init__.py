"""Bytes: rasters, ranges and tables. Knows no statistics."""
