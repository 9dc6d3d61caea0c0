"""Pixels: what every raster format must offer, and the formats."""
