"""The package as a user installs it: from a wheel, and as this checkout, away from the repo's folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from builds import REPO


def python(*words: str, cwd: Path, path: Path | None = None) -> str:
    """Run Python in another folder, with a package folder in front where one is given."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    if path is not None:
        env["PYTHONPATH"] = str(path)
    done = subprocess.run([sys.executable, *words], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this checkout and unpacked where no checkout is."""
    folder = tmp_path_factory.mktemp("wheel")
    python("-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder), cwd=REPO)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


WHERE = (
    "import zonal, zonal.config.workflows as s; print(zonal.__file__); print(s.bundled('data_catalog.yaml'))"
)


def test_the_wheel_finds_its_catalog_and_workflows_without_the_repo(installed: Path, tmp_path: Path) -> None:
    package, catalog = python("-c", WHERE, cwd=tmp_path, path=installed).split()
    assert Path(package).is_relative_to(installed)
    assert Path(catalog).is_relative_to(installed)
    assert "aef_annual" in python("-m", "zonal", "catalog", "list", cwd=tmp_path, path=installed)
    load = "from zonal.config.workflows import load; print(load('washington-2020').max_land_km2)"
    assert python("-c", load, cwd=tmp_path, path=installed).strip() == "25.0"


def test_the_editable_install_finds_them_from_another_folder(tmp_path: Path) -> None:
    package, catalog = python("-c", WHERE, cwd=tmp_path).split()
    assert Path(package).parent == REPO / "zonal"
    assert Path(catalog) == REPO / "data_catalog.yaml"


def test_the_wheel_holds_the_license_the_types_mark_and_nothing_else_of_the_repo(installed: Path) -> None:
    names = {path.name for path in installed.iterdir()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"zonal"}
    (info,) = installed.glob("*.dist-info")
    assert (installed / "zonal" / "py.typed").exists()
    assert list(info.rglob("LICENSE"))
    assert "zonal = zonal.cli.app:main" in (info / "entry_points.txt").read_text()


def test_the_public_names_are_imported_when_first_used(tmp_path: Path) -> None:
    code = (
        "import sys, zonal; assert 'geopandas' not in sys.modules; "
        "print([callable(getattr(zonal, n)) for n in zonal.__all__])"
    )
    assert python("-c", code, cwd=tmp_path).strip() == str([True] * 7)
