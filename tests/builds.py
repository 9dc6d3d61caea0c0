"""What many tests read and none changes: made once, and shared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd

REPO = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Run:
    """A finished run of the real data and where it came from."""

    folder: Path
    mirror: Path
    manifest: dict[str, Any]

    @property
    def path(self) -> Path:
        return self.folder / "stats.parquet"

    @property
    def table(self) -> gpd.GeoDataFrame:
        return gpd.read_parquet(self.path)
