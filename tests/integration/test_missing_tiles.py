"""A tile that the index lists and the store lacks: an error by name, or left out and counted."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
from seam import Seam, settings

from zonal.cluster.runner import Threads
from zonal.engine.run import Result, plan, run
from zonal.errors import InputError, MissingError, OtherRunError
from zonal.events import Event


@pytest.fixture
def lacking(seam: Seam, tmp_path: Path) -> tuple[Path, Path]:
    """The mirror without one of its two tiles, and that tile."""
    mirror = tmp_path / "mirror"
    shutil.copytree(seam.mirror, mirror)
    tile = sorted(mirror.rglob("*.tiff"))[1]
    return mirror, tile.rename(tmp_path / tile.name)


def go(mirror: Path, output: Path, said: list[Event] | None = None, **more: Any) -> Result:
    fresh = more.pop("fresh", False)
    notify = said.append if said is not None else lambda _: None
    (result,) = run(settings(mirror, output, **more), fresh=fresh, runner=Threads(2), notify=notify)
    return result


def test_a_missing_tile_ends_the_run_by_name_and_says_what_can_be_done(
    lacking: tuple[Path, Path], tmp_path: Path
) -> None:
    mirror, tile = lacking
    said = rf"tile .*{tile.name}: no such file, though .*aef_index.parquet lists it; --allow-missing leaves"
    with pytest.raises(MissingError, match=said) as caught:
        go(mirror, tmp_path / "out")
    assert caught.value.exit_code == 3
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match=tile.name):
        plan(settings(mirror, tmp_path / "out"), headers=True)
    told: list[Event] = []
    asked = settings(mirror, tmp_path / "out", allow_missing=True)
    (costs,) = plan(asked, headers=True, notify=told.append).values()
    assert costs.tiles == 1
    assert any(tile.name in event.message for event in told if event.kind == "warning")


def test_a_missing_tile_that_may_be_is_counted_and_its_ground_is_empty(
    seam: Seam, lacking: tuple[Path, Path], tmp_path: Path
) -> None:
    mirror, tile = lacking
    said: list[Event] = []
    manifest = go(mirror, tmp_path / "out", said, allow_missing=True).manifest
    (path,) = manifest["inputs"]["missing_tiles"]
    assert path.endswith(tile.name)
    assert len(manifest["inputs"]["tiles"]) == 1
    warnings = [event.message for event in said if event.kind == "warning"]
    assert any("1 tile that the index lists is missing" in text and tile.name in text for text in warnings)
    whole = gpd.read_parquet(seam.reference.path).set_index("GEOID20")
    found = gpd.read_parquet(tmp_path / "out/stats.parquet").set_index("GEOID20").loc[whole.index]
    same = found["pixel_count"] == whole["pixel_count"]
    assert 0 < same.sum() < len(found)
    statistics = [name for name in whole if name.endswith(("_mean", "_std"))]
    assert found.loc[same, statistics].equals(whole.loc[same, statistics])
    less = found[~same]
    assert (less["valid_fraction"] < whole.loc[~same, "valid_fraction"]).all()
    empty = less[less["pixel_count"] == 0]
    assert len(empty) and np.isnan(empty[statistics].to_numpy()).all()


def test_a_tile_that_came_after_all_is_told_of_and_not_passed_over(
    seam: Seam, lacking: tuple[Path, Path], tmp_path: Path
) -> None:
    mirror, tile = lacking
    out = tmp_path / "out"
    assert go(mirror, out, allow_missing=True).fresh
    assert not go(mirror, out, allow_missing=True).fresh
    (there,) = mirror.rglob("*.tiff")
    (place,) = [path for path in seam.mirror.rglob("*.tiff") if path.name == tile.name]
    shutil.copy2(tile, mirror / place.relative_to(seam.mirror))
    for allowed in (True, False):
        with pytest.raises(OtherRunError, match=rf"tile .*{tile.name} is new"):
            go(mirror, out, allow_missing=allowed)
    go(mirror, out, fresh=True)
    assert (out / "stats.parquet").read_bytes() == seam.reference.bytes
    (mirror / there.relative_to(mirror)).unlink()
    with pytest.raises(OtherRunError, match=rf"it has tile .*{there.name}, this run has not"):
        go(mirror, out, allow_missing=True)


def test_a_run_that_has_no_tile_left_is_an_error(lacking: tuple[Path, Path], tmp_path: Path) -> None:
    mirror, _ = lacking
    next(mirror.rglob("*.tiff")).unlink()
    with pytest.raises(InputError, match=r"no tile of 2024 in .* covers any"):
        go(mirror, tmp_path / "out", allow_missing=True)
