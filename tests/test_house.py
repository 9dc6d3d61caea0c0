from __future__ import annotations

import importlib
import pkgutil
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import get_args

import geopandas as gpd
import pytest
import shapely

import zonal
from zonal import steps
from zonal.cluster.runner import Threads
from zonal.config.settings import STEPS, Stat
from zonal.config.sources import RasterSource
from zonal.findings.table import KINDS
from zonal.io.raster.reader import RasterDriver
from zonal.stats.moments import STATISTICS

ROOT = Path(zonal.__file__).resolve().parent
PYPROJECT = ROOT.parent / "pyproject.toml"
WITHOUT_DASK = {
    "config": "parse.py",
    "findings": "report/page.py",
    "io": "table/table.py",
    "planning": "zones.py",
    "stats": "coverage.py",
}
"""A module of each package that must not know Dask."""

# Imported for what they do: one is the command line, the other makes a process what workers are forked from.
ACTING = ("zonal.__main__", "zonal.engine.forked")


@pytest.fixture(scope="module", autouse=True)
def modules() -> list[str]:
    """Names of all modules; they are imported from here on, and so are attributes of their packages."""
    names = [module.name for module in pkgutil.walk_packages(zonal.__path__, "zonal.")]
    for name in names:
        if name not in ACTING:
            importlib.import_module(name)
    return names


def test_no_module_hides_a_public_name(modules: list[str]) -> None:
    assert len(modules) > 100
    for name in zonal.__all__:
        assert f"zonal.{name}" not in modules
        public = getattr(zonal, name)
        assert callable(public)
        assert not isinstance(public, ModuleType)


def test_every_public_name_can_be_called_when_all_is_imported(tmp_path: Path) -> None:
    settings = zonal.Settings(zones=str(tmp_path / "no.gpkg"), zone_id="id", output=str(tmp_path / "out"))
    assert settings.stats == ("mean", "std")
    with pytest.raises(zonal.ZonalError, match=r"no\.gpkg"):
        zonal.run(settings, runner=Threads(1))
    with pytest.raises(zonal.ZonalError, match=r"no\.gpkg"):
        zonal.plan(settings)
    frame = gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)], crs="EPSG:32610")
    with pytest.raises(zonal.ZonalError, match=r"no\.tif"):
        zonal.zonal_stats(frame, tmp_path / "no.tif")
    # These two come out of a run.
    assert "tiles" in {field.name for field in fields(zonal.Costs)}
    assert "manifest" in {field.name for field in fields(zonal.Result)}


def test_what_workers_preload_has_the_names_that_manifests_and_images_call() -> None:
    from zonal import preload as workers
    from zonal.stats import preload as loops

    assert callable(workers.dask_setup)
    assert callable(loops.preload)


def test_the_hall_is_small() -> None:
    assert len([*ROOT.glob("*.py")]) <= 10


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What lint-imports says of a house whose lower floors import Dask, and with a room on no floor."""
    house = tmp_path_factory.mktemp("house")
    shutil.copy(PYPROJECT, house)
    shutil.copytree(ROOT, house / "zonal", ignore=shutil.ignore_patterns("__pycache__", "*.nb?"))
    for package, module in WITHOUT_DASK.items():
        with (house / "zonal" / package / module).open("a") as file:
            file.write("\nimport dask\n")
    (house / "zonal" / "shed.py").write_text('"""A room on no floor."""\n')
    linter = Path(sys.executable).with_name("lint-imports")
    ended = subprocess.run(
        [linter, "--no-cache"], cwd=house, capture_output=True, text=True, timeout=240, check=False
    )
    assert ended.returncode == 1, ended.stdout + ended.stderr
    return ended.stdout


def test_dask_in_a_lower_floor_breaks_a_contract(broken: str) -> None:
    imports = {line.split(" -> ")[0].strip(" -") for line in broken.splitlines() if " -> dask" in line}
    assert imports == {
        f"zonal.{package}.{module.removesuffix('.py').replace('/', '.')}"
        for package, module in WITHOUT_DASK.items()
    }


def test_a_module_without_a_floor_breaks_a_contract(broken: str) -> None:
    assert "zonal.shed" in broken


def test_what_several_floors_name_is_named_alike() -> None:
    # They must not import each other, so each has its own list.
    assert get_args(Stat) == tuple(STATISTICS) == KINDS
    assert ("stats", *(step.name for step in steps.STEPS)) == STEPS
    assert get_args(RasterSource.model_fields["driver"].annotation) == get_args(RasterDriver)
