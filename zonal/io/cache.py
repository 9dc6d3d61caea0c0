"""Placeholder."""

from __future__ import annotations

from dataclasses import dataclass

from zonal.io.raster import Stat


@dataclass(frozen=True)
class Cache:
    """Bytes."""

    folder: str
    limit: int

    def get(self, name: str, version: Stat, start: int, end: int) -> bytes | None:
        """Get."""
        return None

    def put(self, name: str, version: Stat, start: int, data: bytes) -> None:
        """Put."""
