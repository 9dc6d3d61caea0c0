"""The fingerprint of a run: all that decides its numbers, and what differs between two.

Knows settings and hashes; knows no file and no folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from zonal.config.settings import Settings

NUMBERS_VERSION = 1
"""Goes up when the same inputs give other numbers."""


def fingerprint(
    settings: Settings,
    year: int | None,
    reading: Mapping[str, Any],
    zones: str,
    tiles: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Gather what decides a table's numbers; equal values give equal tables.

    Parameters
    ----------
    settings : Settings
    year : int or None
        The one year of this table.
    reading : mapping
        How the catalog says that tiles are read: decode rule, bands.
    zones : str
        Hash of the staged zones.
    tiles : mapping of path to mapping
        Place, size and ETag of each tile that is read.
    """
    return {
        "numbers_version": NUMBERS_VERSION,
        "settings": settings.numbers() | {"year": year},
        "reading": dict(reading),
        "tiles": {path: dict(tile) for path, tile in tiles.items()},
        "zones": zones,
    }


def digest(value: Mapping[str, Any]) -> str:
    """SHA-256 of a fingerprint."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Name the first thing in which two fingerprints differ."""
    settings = old.get("settings", {})
    for name, value in new["settings"].items():
        if settings.get(name) != value:
            return f"its {name} is {_brief(settings.get(name))}, this run's is {_brief(value)}"
    for name, value in new["reading"].items():
        if old.get("reading", {}).get(name) != value:
            return f"its catalog says other {name} of the raster"
    tiles = old.get("tiles", {})
    for path, tile in new["tiles"].items():
        if tiles.get(path) != tile:
            return f"tile {path} {'has changed' if path in tiles else 'is new'}"
    for path in tiles:
        if path not in new["tiles"]:
            return f"it has tile {path}, this run has not"
    if old.get("zones") != new["zones"]:
        return "its zones have changed"
    return "it is from another version of zonal"


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
