"""A table drawn as a map, against colours of scikit-learn burned by rasterio."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import threading
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
import rasterio.features
import shapely
from affine import Affine
from PIL import Image
from rio_cogeo.cogeo import cog_validate
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler
from synthetic import jittered_blocks

from zonal.cluster.connection import connect
from zonal.cluster.runner import Runner, Threads
from zonal.config.analysis import MapSettings
from zonal.errors import InputError, UsageError
from zonal.events import Event, quiet
from zonal.findings.gram import Gram
from zonal.findings.map import canvas, polygons
from zonal.findings.map import draw as draw_module
from zonal.findings.map.draw import Map, draw
from zonal.findings.map.picture import painting, write_cog
from zonal.findings.map.style import qml
from zonal.findings.pca import Stretch, components_of
from zonal.geo.grid import Grid
from zonal.io.store.folder import Folder
from zonal.io.table.finished import load_table

FEATURES = [f"A{band:02d}_{stat}" for stat in ("mean", "std") for band in range(4)]
NO_STATISTICS = [7, 20]
HERE = Threads(1)
ABOUT = {
    "zone_id": "GEOID20",
    "year": 2024,
    "sources": ["https://example.org"],
    "citations": ["Somebody (2024)."],
    "licences": ["CC-BY-4.0"],
}


def zones(*, epsg: int = 32610, columns: int = 9, rows: int = 7, seed: int = 0) -> gpd.GeoDataFrame:
    """Block-like zones in EPSG:4269 that fill about 1.3 by 0.9 km, two of them without statistics."""
    box = (550_003.0, 5_200_004.0, 551_300.0, 5_200_900.0)
    frame = jittered_blocks(box, columns, rows, f"EPSG:{epsg}", seed)[["GEOID20", "geometry"]]
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((len(frame), 3)) @ rng.standard_normal((3, len(FEATURES)))
    values += 0.3 * rng.standard_normal(values.shape)
    values[NO_STATISTICS] = np.nan
    features = pd.DataFrame(values.astype(np.float32) * [1, 9, 2, 0.1, 1, 1, 1, 5], columns=FEATURES)
    features["pixel_count"] = 100.0
    return gpd.GeoDataFrame(pd.concat([frame, features.astype(np.float32)], axis=1), crs=frame.crs)


def written(path: Path, frame: gpd.GeoDataFrame, about: dict[str, Any] | None = None) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(path)
    if about is not None:
        table = pq.read_table(path)
        pq.write_table(
            table.replace_schema_metadata({**table.schema.metadata, "zonal": json.dumps(about)}), path
        )
    return str(path)


@dataclass
class Drawn:
    folder: Path
    maps: list[Map]
    events: list[Event]

    @property
    def json(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "pca.json").read_text()))

    def pixels(self, name: str = "pca.tif") -> np.ndarray:
        with rasterio.open(self.folder / name) as file:
            return np.moveaxis(file.read(), 0, 2)

    def warnings(self) -> list[str]:
        return [event.message for event in self.events if event.kind == "warning"]


def drawn(table: str, folder: Path, runner: Runner = HERE, **asked: Any) -> Drawn:
    events: list[Event] = []
    maps = draw(
        load_table(table),
        MapSettings(**asked),
        Folder(str(folder)),
        "pca",
        "stats.qml",
        runner,
        events.append,
    )
    return Drawn(folder, maps, events)


def colours_of(values: np.ndarray, *, standardize: bool = True, percentiles: Any = (2, 98)) -> np.ndarray:
    """RGBA of each row by scikit-learn and NumPy; without statistics all 0."""
    whole = np.isfinite(values).all(axis=1)
    exact = values[whole].astype(float)
    scaled = StandardScaler().fit_transform(exact) if standardize else exact
    pca = PCA(3, svd_solver="full").fit(scaled)
    largest = np.take_along_axis(pca.components_, np.abs(pca.components_).argmax(1)[:, None], 1)
    scores = pca.transform(scaled) * np.sign(largest)[:, 0]
    low, high = np.percentile(scores, percentiles, axis=0)
    found = np.zeros((len(values), 4), np.uint8)
    found[whole, :3] = np.rint(((scores - low) / (high - low)).clip(0, 1) * 255)
    found[whole, 3] = 255
    return found


def burned(frame: gpd.GeoDataFrame, colours: np.ndarray, crs: Any, resolution: float) -> np.ndarray:
    """The picture of zones that have a colour, by geopandas and rasterio."""
    shown = frame[colours[:, 3] > 0].to_crs(crs)
    west, south, east, north = shown.total_bounds / resolution
    west, south, east, north = np.floor(west), np.floor(south), np.ceil(east), np.ceil(north)
    numbers = rasterio.features.rasterize(
        [(polygon, number + 1) for number, polygon in enumerate(shown.geometry)],
        (int(north - south), int(east - west)),
        transform=Affine(resolution, 0, west * resolution, 0, -resolution, north * resolution),
        dtype="int32",
    )
    return np.vstack([np.zeros(4, np.uint8), colours[colours[:, 3] > 0]])[numbers]


def is_cog(path: Path) -> None:
    valid, errors, warnings = cog_validate(path, strict=True, quiet=True)
    assert valid, (errors, warnings)


# ------------------------------------------------------------------ pixels


@pytest.mark.parametrize(
    ("crs", "resolution", "drawn_in"),
    [
        (4269, 10.0, "EPSG:32610"),
        (4269, 3.7, "EPSG:32610"),
        (32610, 10.0, "EPSG:32610"),
        (3857, 10.0, "EPSG:32610"),
        (5070, 25.0, "EPSG:32610"),
        (4269, 12.5, "EPSG:5070"),
        (4326, 0.0001, "EPSG:4326"),
        (4269, 10.0, "+proj=laea +lat_0=47 +lon_0=-122 +datum=WGS84"),
    ],
)
def test_every_pixel_is_that_of_rasterio_and_sklearn(
    tmp_path: Path, crs: int, resolution: float, drawn_in: str
) -> None:
    frame = zones().to_crs(crs)
    asked = {} if drawn_in == "EPSG:32610" else {"crs": drawn_in}
    found = drawn(written(tmp_path / "stats.parquet", frame), tmp_path, resolution=resolution, **asked)
    expected = burned(frame, colours_of(frame[FEATURES].to_numpy()), drawn_in, resolution)
    np.testing.assert_array_equal(found.pixels(), expected)
    assert (expected[..., 3] == 255).mean() > 0.6 and len(np.unique(expected[..., :3], axis=0)) > 20
    assert found.warnings() == []
    is_cog(tmp_path / "pca.tif")
    (about,) = found.json["maps"]
    with rasterio.open(tmp_path / "pca.tif") as file:
        assert file.crs == rasterio.crs.CRS.from_user_input(drawn_in)
        assert file.bounds == pytest.approx(about["bounds"])
        assert [band.name for band in file.colorinterp] == ["red", "green", "blue", "alpha"]


@pytest.mark.parametrize(
    "asked", [{"standardize": False}, {"percentiles": (0, 100)}, {"percentiles": (10, 75)}], ids=str
)
def test_settings_of_the_colours_are_heard(tmp_path: Path, asked: dict[str, Any]) -> None:
    frame = zones()
    table = written(tmp_path / "stats.parquet", frame)
    found = drawn(table, tmp_path, **asked)
    values = frame[FEATURES].to_numpy()
    np.testing.assert_array_equal(found.pixels(), burned(frame, colours_of(values, **asked), 32610, 10))
    assert (found.pixels() != drawn(table, tmp_path / "default").pixels()).any()


@pytest.mark.parametrize("size", [512, 1024])
def test_windows_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    table = written(tmp_path / "stats.parquet", zones())
    whole = drawn(table, tmp_path / "whole", resolution=1)
    monkeypatch.setattr(canvas, "WINDOW", size)
    drawn(table, tmp_path / "cut", resolution=1)
    assert whole.json["maps"][0]["width"] > size
    for name in ("pca.tif", "pca.png", "pca.json", "stats.qml"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_the_same_table_and_settings_give_the_same_bytes_in_any_order_of_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canvas, "WINDOW", 512)
    table = written(tmp_path / "stats.parquet", zones(), ABOUT)
    one = drawn(table, tmp_path / "one", resolution=1)
    other = drawn(table, tmp_path / "other", Backwards(), resolution=1)
    assert {file for drawing in one.maps for file in drawing.files} == {
        path.name for path in (tmp_path / "one").iterdir()
    }
    for drawing, again in zip(one.maps, other.maps, strict=True):
        assert drawing == again
        for name in drawing.files:
            assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


@dataclass
class Backwards:
    """Runs tasks in this process, the last first, and counts."""

    threads: int = 1
    described: str = "here"
    rounds: list[int] = field(default_factory=list)

    def run(
        self, graph: dict[Any, Any], keys: Sequence[Any], avoid: Collection[str] = ()
    ) -> Iterator[tuple[Any, Any]]:
        self.rounds.append(len(keys))
        for key in reversed(keys):
            function, argument = graph[key]
            yield key, function(argument)

    def everywhere(self, function: Any, *arguments: Any) -> dict[str, Any]:
        raise AssertionError("a map asks nothing of all workers at once")


def test_windows_are_handed_out_some_at_a_time_and_none_without_zones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canvas, "WINDOW", 512)
    frame = zones()
    away = frame.geometry.to_crs(32610).translate(6_000, 0)  # nothing lies between
    frame.loc[30:, "geometry"] = away.to_crs(4269)[30:]
    table = written(tmp_path / "stats.parquet", frame)
    runner = Backwards()
    found = drawn(table, tmp_path, runner, resolution=1)
    (about,) = found.json["maps"]
    windows = -(-about["width"] // 512) * -(-about["height"] // 512)
    assert max(runner.rounds) <= draw_module.AT_ONCE and len(runner.rounds) > 1
    assert sum(runner.rounds) < 0.6 * windows
    with rasterio.open(tmp_path / "pca.tif") as file:
        holes = [file.tags(1, ns="TIFF").get(f"BLOCK_OFFSET_{x}_0") for x in range(about["width"] // 512)]
    assert None in holes  # nothing is stored of what is empty
    monkeypatch.setattr(polygons, "HELD", 1)
    alone = Backwards()
    drawn(table, tmp_path / "alone", alone, resolution=1)
    assert set(alone.rounds) == {1}
    assert (tmp_path / "alone" / "pca.tif").read_bytes() == (tmp_path / "pca.tif").read_bytes()


def test_processes_paint_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canvas, "WINDOW", 512)
    table = written(tmp_path / "stats.parquet", zones())
    here = drawn(table, tmp_path / "here", resolution=1)
    with connect("local", 2, 1) as runner:
        there = drawn(table, tmp_path / "there", runner, resolution=1)
    assert here.maps == there.maps
    assert (tmp_path / "here/pca.tif").read_bytes() == (tmp_path / "there/pca.tif").read_bytes()


# ------------------------------------------------------------------ zones


def test_a_zone_without_statistics_is_transparent_and_hides_nothing(tmp_path: Path) -> None:
    frame = zones()
    middle = frame.geometry.to_crs(32610).representative_point()
    cover = gpd.GeoSeries([shapely.box(550_000, 5_200_000, 551_000, 5_200_800)], crs=32610).to_crs(4269)
    frame.loc[len(frame) - 1, FEATURES] = None
    frame.loc[len(frame) - 1, "geometry"] = cover[0]
    found = drawn(written(tmp_path / "stats.parquet", frame), tmp_path)
    with rasterio.open(tmp_path / "pca.tif") as file:
        alphas = np.array([v[3] for v in file.sample(zip(middle.x, middle.y, strict=True))])
    without = [*NO_STATISTICS, len(frame) - 1]
    assert set(np.flatnonzero(alphas == 0)) == {*without}
    assert found.json["without_features"] == 3 and found.json["zones"] == len(frame)
    assert found.json["maps"][0]["zones"] == len(frame) - 3


def test_zones_that_show_nowhere_are_counted(tmp_path: Path) -> None:
    frame = zones()
    frame.loc[0, "geometry"] = None
    frame.loc[1, "geometry"] = shapely.Polygon()
    frame.loc[2, "geometry"] = frame.geometry[2].representative_point().buffer(1e-7)
    found = drawn(written(tmp_path / "stats.parquet", frame), tmp_path)
    (about,) = found.json["maps"]
    assert about["not_drawn"] == 3
    assert about["zones"] + about["not_drawn"] + found.json["without_features"] == len(frame)
    assert found.warnings() == []


def test_zones_beyond_the_reach_of_the_crs_are_counted_and_told(tmp_path: Path) -> None:
    frame = zones().to_crs(4326)
    frame.loc[0, "geometry"] = shapely.box(-122, -50, -121, -49)
    crs = "ESRI:102034"  # gnomonic, from the North Pole: no southern half of the world
    found = drawn(written(tmp_path / "stats.parquet", frame), tmp_path, crs=crs)
    assert found.json["maps"][0]["not_drawn"] == 1
    (warning,) = found.warnings()
    assert warning == "pca: 1 zone has no place in North_Pole_Gnomonic and no place on the map"
    expected = burned(frame[1:], colours_of(frame[FEATURES].to_numpy())[1:], crs, 10)
    np.testing.assert_array_equal(found.pixels(), expected)


def test_a_map_with_too_many_pixels_has_larger_ones_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (canvas, draw_module):
        monkeypatch.setattr(module, "MOST_PIXELS", 4_000)
    frame = zones()
    found = drawn(written(tmp_path / "stats.parquet", frame), tmp_path, resolution=5)
    (about,) = found.json["maps"]
    assert (about["resolution_asked"], about["resolution"]) == (5, 20)
    assert about["width"] * about["height"] < 4_000 <= 4 * about["width"] * about["height"]
    assert found.warnings() == [
        "pca: at 5 metre the map would have 4,000 pixels or more; it is drawn at 20 metre"
    ]
    np.testing.assert_array_equal(
        found.pixels(), burned(frame, colours_of(frame[FEATURES].to_numpy()), 32610, 20)
    )


def test_pixels_larger_than_most_zones_are_told(tmp_path: Path) -> None:
    found = drawn(written(tmp_path / "stats.parquet", zones()), tmp_path, resolution=400)
    (warning,) = found.warnings()
    assert "of 61 zones hold the centre of a pixel of 400 metre" in warning


def test_pixels_larger_than_all_zones_are_an_error(tmp_path: Path) -> None:
    table = written(tmp_path / "stats.parquet", zones())
    with pytest.raises(InputError, match="no zone holds the centre of a pixel of 10 degree"):
        drawn(table, tmp_path / "out", crs="EPSG:4326")
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------ files


def test_the_json_says_what_sklearn_finds(tmp_path: Path) -> None:
    frame = zones()
    found = drawn(written(tmp_path / "stats.parquet", frame, ABOUT), tmp_path)
    said = found.json
    whole = frame[FEATURES].dropna().to_numpy().astype(float)
    scaler = StandardScaler().fit(whole)
    pca = PCA(svd_solver="full").fit(scaler.transform(whole))
    np.testing.assert_allclose(said["explained"], pca.explained_variance_ratio_, rtol=1e-6)
    np.testing.assert_allclose(np.abs(said["loadings"]), np.abs(pca.components_[:3]), atol=1e-6)
    np.testing.assert_allclose(said["mean"], scaler.mean_, rtol=1e-6)
    np.testing.assert_allclose(said["scale"], scaler.scale_, rtol=1e-6)
    assert list(said) == [
        "schema_version", "zonal_version", "table", "year", "features", "standardized", "zones",
        "without_features", "percentiles", "explained", "loadings", "mean", "scale", "low", "high", "maps",
    ]  # fmt: skip
    assert (said["table"], said["year"], said["features"]) == ("stats.parquet", 2024, FEATURES)
    assert (said["zones"], said["without_features"], said["standardized"]) == (63, 2, True)
    (about,) = said["maps"]
    pixels = found.pixels()
    west, south, east, north = frame.drop(NO_STATISTICS).to_crs(32610).total_bounds / 10
    around = [10 * side for side in (np.floor(west), np.floor(south), np.ceil(east), np.ceil(north))]
    assert about == {
        "file": "pca.tif", "preview": "pca.png", "state": None, "crs": "EPSG:32610",
        "resolution": 10.0, "resolution_asked": 10.0, "bounds": around,
        "width": pixels.shape[1], "height": pixels.shape[0], "zones": 61, "not_drawn": 0,
    }  # fmt: skip


def test_the_rasters_own_metadata_say_what_the_colours_mean(tmp_path: Path) -> None:
    found = drawn(written(tmp_path / "stats.parquet", zones(), ABOUT), tmp_path)
    with rasterio.open(tmp_path / "pca.tif") as file:
        tags = file.tags()
        assert file.profile["blockxsize"] == file.profile["blockysize"] == 512
        assert file.profile["compress"] == "deflate"
    said = found.json
    for key in ("loadings", "features", "percentiles", "explained", "low", "high", "schema_version", "year"):
        assert json.loads(tags[key]) == said[key]
    assert tags["zonal_version"] == said["zonal_version"] and tags["table"] == "stats.parquet"
    for key in ("sources", "citations", "licences"):
        assert json.loads(tags[key]) == ABOUT[key]


def test_the_style_is_that_of_the_same_components(tmp_path: Path) -> None:
    frame = zones()
    drawn(written(tmp_path / "stats.parquet", frame), tmp_path)
    whole = frame[FEATURES].dropna().to_numpy()
    components = components_of(Gram.of(whole), FEATURES)
    stretch = Stretch.of(components.scores(whole), (2, 98))
    assert (tmp_path / "stats.qml").read_text() == qml(components, stretch)


def test_overviews_and_preview_show_the_same_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draw_module, "PREVIEW", 100)
    found = drawn(written(tmp_path / "stats.parquet", zones()), tmp_path, resolution=0.5)
    is_cog(tmp_path / "pca.tif")
    picture = np.asarray(Image.open(tmp_path / "pca.png"))
    pixels = found.pixels()
    assert max(picture.shape[:2]) == 100 and picture.shape[2] == 4
    rows, columns = ((np.arange(n) + 0.5) / n for n in picture.shape[:2])
    at = np.ix_((rows * pixels.shape[0]).astype(int), (columns * pixels.shape[1]).astype(int))
    near = np.abs(pixels[at].astype(int) - picture).max(axis=2) <= 2
    assert near.mean() > 0.7  # all but where zones meet
    with rasterio.open(tmp_path / "pca.tif") as file:
        assert len(file.overviews(1)) >= 2


def test_a_small_map_is_not_enlarged(tmp_path: Path) -> None:
    found = drawn(written(tmp_path / "stats.parquet", zones()), tmp_path)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "pca.png")), found.pixels())


def test_a_table_of_somebody_else_is_drawn(tmp_path: Path) -> None:
    frame = zones().rename(columns={name: f"f{n}" for n, name in enumerate(FEATURES)})
    frame = frame.rename(columns={"GEOID20": "id"}).drop(columns="pixel_count").rename_geometry("shape")
    frame["lon"], frame["lat"] = -121.5, 47.0  # no features
    frame["code"] = range(len(frame))
    found = drawn(written(tmp_path / "mine.parquet", frame), tmp_path)
    assert found.json["features"] == [f"f{n}" for n in range(8)]
    assert (found.json["table"], found.json["year"]) == ("mine.parquet", None)
    colours = colours_of(frame[found.json["features"]].to_numpy())
    np.testing.assert_array_equal(found.pixels(), burned(frame, colours, 32610, 10))
    with rasterio.open(tmp_path / "pca.tif") as file:
        assert not {"year", "sources"} & {*file.tags()}


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_than_three_features_are_grey_or_without_blue(tmp_path: Path, count: int) -> None:
    frame = zones()[["GEOID20", *FEATURES[:count], "geometry"]]
    found = drawn(written(tmp_path / "stats.parquet", frame), tmp_path)
    pixels = found.pixels()[found.pixels()[..., 3] > 0]
    assert len(found.json["loadings"]) == len(found.json["low"]) == count
    if count == 1:
        assert (pixels[:, 0] == pixels[:, 1]).all() and (pixels[:, 0] == pixels[:, 2]).all()
    else:
        assert (pixels[:, 2] == 0).all() and (pixels[:, 0] != pixels[:, 1]).any()


# ------------------------------------------------------------------ states


@pytest.fixture
def two_states(tmp_path: Path) -> tuple[Path, gpd.GeoDataFrame]:
    """A dataset of states in different UTM zones, its files in no order of the states."""
    west = zones(seed=1)
    east = zones(seed=2)
    east["geometry"] = east.geometry.translate(6, 0)
    frames = [west[:30], east, west[30:]]
    names = ["stats/state=WA/part-00000", "stats/state=ID/part-00001", "stats/state=WA/part-00002"]
    for name, frame in zip(names, frames, strict=True):
        written(tmp_path / f"out/{name}.parquet", frame, ABOUT)
    manifest = {"files": [f"{name}.parquet" for name in names], "table": "stats"}
    (tmp_path / "out/manifest.json").write_text(json.dumps(manifest))
    return tmp_path / "out", gpd.GeoDataFrame(pd.concat(frames, ignore_index=True))


def test_each_state_is_a_raster_and_colours_compare(
    tmp_path: Path, two_states: tuple[Path, gpd.GeoDataFrame]
) -> None:
    output, frame = two_states
    found = drawn(str(output), tmp_path / "map")
    values = frame[FEATURES].to_numpy()
    colours = colours_of(values)
    eastern = frame.geometry.bounds["minx"].to_numpy() > -118
    for state, here, crs in (("WA", ~eastern, 32610), ("ID", eastern, 32611)):
        expected = burned(frame[here], colours[here], crs, 10)
        np.testing.assert_array_equal(found.pixels(f"pca/state={state}.tif"), expected)
        is_cog(tmp_path / f"map/pca/state={state}.tif")
    said = found.json
    assert said["table"] == "stats" and said["zones"] == len(frame)
    assert [(one["state"], one["file"], one["preview"], one["crs"]) for one in said["maps"]] == [
        ("WA", "pca/state=WA.tif", "pca/state=WA.png", "EPSG:32610"),
        ("ID", "pca/state=ID.tif", "pca/state=ID.png", "EPSG:32611"),
    ]
    files = [file for one in found.maps for file in one.files]
    assert sorted(files) == sorted(
        path.relative_to(tmp_path / "map").as_posix()
        for path in (tmp_path / "map").rglob("*")
        if path.is_file()
    )
    assert files[0] == "pca/state=WA.tif"


def test_a_state_without_statistics_is_left_out_and_told(
    tmp_path: Path, two_states: tuple[Path, gpd.GeoDataFrame]
) -> None:
    output, _ = two_states
    path = output / "stats/state=ID/part-00001.parquet"
    frame = gpd.read_parquet(path)
    frame[FEATURES] = np.float32("nan")
    written(path, frame, ABOUT)
    found = drawn(str(output), tmp_path / "map")
    assert [one.about["state"] for one in found.maps] == ["WA"]
    (warning,) = found.warnings()
    assert warning.startswith("no map of ID: ") and "no zone with statistics" in warning


def test_states_in_one_file_are_one_raster(tmp_path: Path, two_states: tuple[Path, gpd.GeoDataFrame]) -> None:
    frame = two_states[1]
    found = drawn(written(tmp_path / "stats.parquet", frame), tmp_path, resolution=200)
    assert [one["file"] for one in found.json["maps"]] == ["pca.tif"]


# ------------------------------------------------------------------ folders, errors, interrupts


def test_a_map_is_written_to_a_store(tmp_path: Path) -> None:
    table = written(tmp_path / "stats.parquet", zones())
    here = drawn(table, tmp_path)
    maps = draw(
        load_table(table),
        MapSettings(),
        Folder("memory://maps"),
        ".work/steps/pca",
        "s.qml",
        Threads(1),
        quiet,
    )
    store = fsspec.filesystem("memory")
    assert [file for one in maps for file in one.files] == [
        ".work/steps/pca.tif", ".work/steps/pca.png", ".work/steps/pca.json", "s.qml",
    ]  # fmt: skip
    for name in ("pca.tif", "pca.png", "pca.json"):
        assert store.cat_file(f"/maps/.work/steps/{name}") == (here.folder / name).read_bytes()
    Image.open(io.BytesIO(store.cat_file("/maps/.work/steps/pca.png"))).verify()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda frame: frame[:0], "need two zones with statistics; there are 0"),
        (lambda frame: frame[:1], "need two zones with statistics; there are 1"),
        (
            lambda frame: frame.assign(**dict.fromkeys(FEATURES, np.float32("nan"))),
            "two zones with statistics",
        ),
        (
            lambda frame: frame.assign(**dict.fromkeys(FEATURES, np.float32(0.5))),
            "none of the 8 features varies",
        ),
        (lambda frame: frame.assign(geometry=frame.geometry.representative_point()), "has a polygon"),
        (lambda frame: frame.assign(geometry=None), "no row has a place on Earth"),
        (lambda frame: frame[["GEOID20", "geometry"]], "no column looks like a feature"),
    ],
)
def test_a_table_that_cannot_be_drawn_is_one_sentence_and_no_file(
    tmp_path: Path, change: Any, said: str
) -> None:
    table = written(tmp_path / "stats.parquet", gpd.GeoDataFrame(change(zones()), crs=4269))
    with pytest.raises(InputError, match=said):
        drawn(table, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_table_without_geometry_is_an_error(tmp_path: Path, shared: Path) -> None:
    pq.write_table(pa.table({name: [0.1, 0.2] for name in FEATURES}), tmp_path / "plain.parquet")
    for table in (tmp_path / "plain.parquet", shared / "data/aef_2024_points_sf_bay.csv"):
        with pytest.raises(InputError, match="has no geometry"):
            drawn(str(table), tmp_path / "out")


@pytest.mark.parametrize("crs", ["EPSG:999999", "nonsense"])
def test_a_crs_that_nobody_knows_is_a_usage_error(tmp_path: Path, crs: str) -> None:
    table = written(tmp_path / "stats.parquet", zones())
    with pytest.raises(UsageError, match=f"crs '{crs}': expected a code such as EPSG:32610"):
        drawn(table, tmp_path / "out", crs=crs)


def test_a_crs_without_a_plane_is_an_error(tmp_path: Path) -> None:
    table = written(tmp_path / "stats.parquet", zones())
    with pytest.raises(InputError, match="is no CRS of a map"):
        drawn(table, tmp_path / "out", crs="EPSG:4978")


def test_a_signal_is_heard_while_gdal_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stop(Exception):
        pass

    def stop(*_: Any) -> None:
        raise Stop

    gdal_ends = threading.Event()
    monkeypatch.setattr("rasterio.shutil.copy", lambda *_, **__: gdal_ends.wait(60))
    before = signal.signal(signal.SIGUSR1, stop)
    try:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        with pytest.raises(Stop):
            write_cog(tmp_path / "painted.tif", tmp_path / "map.tif")
        assert not gdal_ends.is_set()
    finally:
        gdal_ends.set()
        signal.signal(signal.SIGUSR1, before)


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    table = written(tmp_path / "stats.parquet", zones())
    monkeypatch.setattr(draw_module, "write_cog", lambda *_: (_ for _ in ()).throw(full))
    with pytest.raises(InputError, match=r"cannot write to .*: No space left on device"):
        drawn(table, tmp_path / "out")


def test_what_gdal_cannot_write_is_one_sentence(tmp_path: Path) -> None:
    grid = Grid("EPSG:32610", 0, 0, 10, -10, 600, 600, 512, 512)
    with (
        pytest.raises(InputError, match=r"the map cannot be written in .*; is the disk full\?"),
        painting(tmp_path / "nowhere" / "painted.tif", grid, {}),
    ):
        pass
    with painting(tmp_path / "painted.tif", grid, {}) as put:
        put(0, np.full((512, 512, 4), 255, np.uint8))
    with pytest.raises(InputError, match=r"the map cannot be written in .*; is the disk full\?"):
        write_cog(tmp_path / "painted.tif", tmp_path / "nowhere" / "map.tif")


def test_a_map_that_is_stopped_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    table = written(tmp_path / "stats.parquet", zones())

    def stop(*_: Any) -> None:
        assert list(scratch.iterdir())
        raise KeyboardInterrupt

    for place in ("write_cog", "preview"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(draw_module, place, stop)
            drawn(table, tmp_path / "out")
        assert list(scratch.iterdir()) == []
        assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []
    drawn(table, tmp_path / "out")
    assert list(scratch.iterdir()) == []
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "pca.tif",
        "pca.png",
        "pca.json",
        "stats.qml",
    }
