from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import pytest
from seam import Reference, Seam, build
from servers import S3Server, s3_server

from zonal.clusters import Threads
from zonal.engine import run
from zonal.settings import Settings


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


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ZONAL_MIRROR", "AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def wisconsin(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder, mirror = tmp_path_factory.mktemp("wi") / "out", shared / "mirror"
    settings = Settings(state="WI", year=2024, mirror=str(mirror), output=str(folder))
    (result,) = run(settings, runner=Threads(2))
    return Run(folder, mirror, result.manifest)


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture(scope="session")
def seam(tmp_path_factory: pytest.TempPathFactory) -> Seam:
    folder = tmp_path_factory.mktemp("seam")
    mirror = build(folder / "mirror")
    return Seam(mirror, Reference.of(mirror, folder / "out"))
