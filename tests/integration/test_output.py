"""What a run does to its output folder, and what it refuses to do to it."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from rasterio.transform import from_origin
from servers import http_server
from synthetic import jittered_blocks, make_mirror, random_tile, utm_grid

from zonal.cluster.runner import Threads
from zonal.config.settings import Settings
from zonal.engine import run as engine
from zonal.engine.output import default_output
from zonal.errors import InputError, OtherRunError, UsageError

HERE = Threads(2)


@pytest.fixture
def raster(tmp_path: Path) -> Path:
    """A small raster of one band."""
    path = tmp_path / "elevation.tif"
    write(path, np.arange(400.0).reshape(1, 20, 20))
    return path


def write(path: Path, data: np.ndarray, **profile: Any) -> None:
    shape = {"count": len(data), "height": data.shape[1], "width": data.shape[2], "dtype": data.dtype}
    place = {"crs": "EPSG:32616", "transform": from_origin(500_000, 200, 10, 10)}
    with rasterio.open(path, "w", driver="GTiff", **shape, **place, **profile) as out:
        out.write(data)


def squares(*corners: float, crs: str = "EPSG:32616") -> gpd.GeoDataFrame:
    shapes = [shapely.box(500_000 + x, x, 500_000 + x + 33, x + 33) for x in corners]
    return gpd.GeoDataFrame({"id": [f"z{x}" for x in corners]}, geometry=shapes, crs=crs)


def settings(raster: Path | str, output: Path, **more: Any) -> Settings:
    return Settings(raster=(str(raster),), zone_id="id", output=str(output), **more)


def test_a_folder_of_the_users_own_named_stats_is_never_removed(raster: Path, tmp_path: Path) -> None:
    mine = tmp_path / "out" / "stats" / "thesis.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("years of work")
    with pytest.raises(OtherRunError, match=r"out/stats exists without manifest.json"):
        engine.run(settings(raster, tmp_path / "out"), frame=squares(20, 80), runner=HERE)
    engine.run(settings(raster, tmp_path / "out"), frame=squares(20, 80), runner=HERE, fresh=True)
    assert mine.read_text() == "years of work"
    assert (tmp_path / "out" / "stats.parquet").exists()


def test_other_zones_in_the_same_output_are_another_run(raster: Path, tmp_path: Path) -> None:
    asked = settings(raster, tmp_path / "out")
    engine.run(asked, frame=squares(20, 80), runner=HERE)
    (again,) = engine.run(asked, frame=squares(20, 80), runner=HERE)
    assert not again.fresh
    with pytest.raises(OtherRunError, match="its zones have changed"):
        engine.run(asked, frame=squares(20, 90), runner=HERE)
    more = squares(20, 80).assign(name=["a", "b"])
    with pytest.raises(OtherRunError, match="its zones have changed"):
        engine.run(asked, frame=more, runner=HERE)


def test_parts_of_another_size_are_the_same_run(raster: Path, tmp_path: Path) -> None:
    asked = settings(raster, tmp_path / "out")
    engine.run(asked, frame=squares(20, 80, 90), runner=HERE)
    (again,) = engine.run(asked.model_copy(update={"part_zones": 1}), frame=squares(20, 80, 90), runner=HERE)
    assert not again.fresh


def test_a_run_that_covers_no_valid_pixel_ends_with_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "nothing.tif"
    write(path, np.full((1, 20, 20), -1.0), nodata=-1)
    with pytest.raises(InputError, match=r"none of the 2 zones covers a valid pixel of .*nothing.tif"):
        engine.run(settings(path, tmp_path / "out"), frame=squares(20, 80), runner=HERE)
    assert not (tmp_path / "out").exists()


def test_credentials_of_a_rasters_address_are_in_no_file_and_no_message(raster: Path, tmp_path: Path) -> None:
    said: list[str] = []
    with http_server(raster.parent) as server:
        address = server.url.replace("http://", "http://me:pa55word@") + "/elevation.tif?sig=s1gnature"
        asked = settings(address, tmp_path / "out")
        (result,) = engine.run(
            asked, frame=squares(20, 80), runner=HERE, notify=lambda event: said.append(str(event))
        )
    written = json.dumps(result.manifest) + "".join(said)
    written += Path(result.table).read_bytes().decode("latin-1")
    assert "elevation.tif" in written
    assert "pa55word" not in written
    assert "s1gnature" not in written


@dataclass(frozen=True)
class Elsewhere(Threads):
    """Tasks that run in another working directory than the driver's."""

    folder: str = "/"

    def run(
        self, graph: dict[Any, Any], keys: Sequence[Any], avoid: Collection[str] = ()
    ) -> Iterator[tuple[Any, Any]]:
        here = Path.cwd()
        os.chdir(self.folder)
        try:
            values = list(super().run(graph, keys))
        finally:
            os.chdir(here)
        yield from values


def test_relative_paths_mean_the_same_to_workers_elsewhere(
    raster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(raster.parent)
    asked = Settings(raster=("elevation.tif",), zone_id="id", output="here")
    (result,) = engine.run(asked, frame=squares(20, 80), runner=Elsewhere(2, str(tmp_path.parent)))
    assert result.table == "here/stats.parquet"
    assert (raster.parent / "here" / "stats.parquet").exists()


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ({"state": "WA", "year": 2020}, "WA-2020"),
        ({"state": "WA,OR", "year": "2018,2020"}, "OR-WA"),
        ({"state": "all", "year": 2020}, "51-states-2020"),
        ({"state": "WA", "year": 2020, "zones": "census_tracts_2020"}, "WA-census_tracts_2020-2020"),
        ({"zones": "data/districts.gpkg", "year": 2024}, "districts-2024"),
        ({"zones": "d.gpkg", "raster": "https://h/elevation.tif?sig=x"}, "d-elevation"),
    ],
)
def test_the_default_output_is_named_by_what_was_asked(words: dict[str, Any], name: str) -> None:
    assert default_output(Settings(**words)) == f"./zonal-out/{name}"


def seam(tmp_path: Path, years: Sequence[int]) -> Settings:
    """A town on the seam of two UTM zones whose ground only the eastern tile holds, in some years."""
    rng = np.random.default_rng(3)
    east = random_tile(rng, utm_grid(32611, 269_000, 5_160_000, 256, 256, 64))
    for year in years:
        make_mirror(tmp_path / f"mirror-{year}", [east], year=year)
    blocks = jittered_blocks((-120.006, 46.545, -119.994, 46.555), 5, 4)
    blocks.to_parquet(tmp_path / "zones.parquet")
    return Settings(zones=str(tmp_path / "zones.parquet"), zone_id="GEOID20", output=str(tmp_path / "out"))


def test_adding_a_year_leaves_the_finished_years_as_they_are(tmp_path: Path) -> None:
    asked = seam(tmp_path, (2023, 2024))
    mirror = tmp_path / "mirror-2023"
    index = mirror / "tge-labs/aef/v1/annual/aef_index.parquet"
    other = tmp_path / "mirror-2024"
    rows = [gpd.read_parquet(m / index.relative_to(mirror)) for m in (mirror, other)]
    (other / "tge-labs/aef/v1/annual/2024").rename(mirror / "tge-labs/aef/v1/annual/2024")
    pd.concat(rows).to_parquet(index)
    asked = asked.model_copy(update={"mirror": str(mirror)})
    one = asked.model_copy(update={"year": (2023,), "output": str(tmp_path / "out-2023")})
    (first,) = engine.run(one, runner=HERE)
    assert first.manifest["zones"]["covered"] > 0
    both = asked.model_copy(update={"year": (2023, 2024)})
    old, new = engine.run(both, runner=HERE)
    assert (old.fresh, new.fresh) == (False, True)
    assert new.table == str(tmp_path / "out-2024" / "stats.parquet")
    assert not (tmp_path / "out-stage").exists()


def test_another_decode_rule_in_the_catalog_is_another_run(tmp_path: Path) -> None:
    from zonal.config.workflows import bundled

    asked = seam(tmp_path, (2024,)).model_copy(
        update={"year": (2024,), "mirror": str(tmp_path / "mirror-2024")}
    )
    engine.run(asked, runner=HERE)
    text = bundled("data_catalog.yaml").read_text().replace("rule: aef ", "rule: linear ")
    (tmp_path / "mine.yaml").write_text(text)
    other = asked.model_copy(update={"catalog": str(tmp_path / "mine.yaml")})
    with pytest.raises(OtherRunError, match="its catalog says other rule of the raster"):
        engine.run(other, runner=HERE)


def test_zones_that_a_filter_leaves_out_have_missing_values_in_a_notebook(raster: Path) -> None:
    import zonal

    frame = squares(20, 120)
    west, south, east, north = frame.to_crs("EPSG:4326").total_bounds
    table = zonal.zonal_stats(frame, raster, bbox=(west, south, (west + east) / 2 - 1e-4, north))
    assert table["band1_mean"].isna().tolist() == [False, True]
    with pytest.raises(UsageError, match="no use for 'output'"):
        zonal.zonal_stats(frame, raster, output="x")
    with pytest.raises(UsageError, match="one year at a time"):
        zonal.zonal_stats(frame, raster, year=(2020, 2021))
