"""What the page says, for outputs with and without each of its parts."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import pytest
import rasterio.features
from affine import Affine
from outputs import blocks, make_output, manifest_of, write_table
from PIL import Image

from zonal.cluster.runner import Threads
from zonal.config.analysis import MapSettings
from zonal.errors import InputError
from zonal.events import quiet
from zonal.findings.evaluation.schema import Evaluation, Figure, Score
from zonal.findings.map.draw import draw
from zonal.findings.report import report as report_module
from zonal.findings.report.charts import ramp
from zonal.findings.report.post import CORRELATIONS, R2, beside, is_of
from zonal.findings.report.report import report
from zonal.io.store.folder import Folder
from zonal.io.table.finished import load_table

ATTRIBUTES = ["ALAND20", "AWATER20", "POP20", "HOUSING20", "UR20"]


class Cells(HTMLParser):
    """Rows of every table as lists of texts, in the order of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.inside = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.inside = False
            self.rows[-1][-1] = " ".join(self.rows[-1][-1].split())

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.rows[-1][-1] += data


def page_of(folder: Folder) -> str:
    report(folder, "report.html", table=load_table(folder.url), notify=quiet)
    return folder.read("report.html").decode()


def pictures(text: str) -> list[tuple[str, Image.Image]]:
    """Alternative texts and images of a page."""
    found = re.findall(r'<img src="data:image/png;base64,([^"]+)"[^>]*alt="([^"]*)"', text)
    return [(alt, Image.open(io.BytesIO(base64.b64decode(data)))) for data, alt in found]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    path = tmp_path_factory.mktemp("reported") / "out"
    return make_output(path, blocks(features=12), components=10, state=["WA"])


@pytest.fixture(scope="module")
def text(whole: Folder) -> str:
    return page_of(whole)


@pytest.fixture(scope="module")
def evaluation(whole: Folder) -> Evaluation:
    return Evaluation.model_validate_json(whole.read("evaluation.json"))


def test_the_page_is_the_same_twice_and_asks_for_nothing(whole: Folder, text: str) -> None:
    assert page_of(whole) == text
    assert not re.search(r"(src|href)=\"(?!data:|#)", text) and "<script" not in text and "url(" not in text
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:;" in text
    anchors = re.findall(r'href="#([^"]+)"', text)
    assert len(anchors) == 7 and all(f'id="{name}"' in text for name in anchors)


def written(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:z.{digits}f}".replace("-", "−")


def estimated(estimate: Figure | Score | None) -> str:
    """A figure with its interval, a score with its standard deviation too."""
    assert estimate and estimate.low is not None
    interval = f"[{written(estimate.low)}, {written(estimate.high)}]"
    if isinstance(estimate, Figure):
        return f"{written(estimate.value)} {interval}"
    return f"{written(estimate.mean)} ± {written(estimate.sd)} {interval}"


def test_every_figure_of_the_regressions_is_on_the_page_and_in_the_markdown(
    whole: Folder, text: str, evaluation: Evaluation
) -> None:
    lines = whole.read("evaluation.md").decode().splitlines()
    in_markdown = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]
    assert len([row for row in Cells(text).rows if row[:2] == ["attribute", "features"]]) == 1
    names = {"all": "All features", "pca": "PCA-10, standardised", "pca_raw": "PCA-10, as they are"}
    for one in evaluation.regressions:
        row = [one.target.replace("_", " "), names[one.features], f"{one.rows:,}", f"{one.dropped:,}"]
        row += map(estimated, (one.in_sample, one.random, one.spatial, one.gap))
        assert row in Cells(text).rows and row in in_markdown


def test_bars_are_as_long_as_the_figures_they_show(text: str, evaluation: Evaluation) -> None:
    values = [
        value
        for one in evaluation.regressions
        for value in (one.in_sample and one.in_sample.value, one.random and one.random.mean)
        if value is not None
    ]
    values += [one.spatial.mean for one in evaluation.regressions if one.spatial and one.spatial.mean]
    low = max(-1.0, np.floor(min(0.0, *values) * 4) / 4)
    one = next(one for one in evaluation.regressions if (one.target, one.features) == ("population", "all"))
    assert one.random and one.random.mean is not None
    width = round(round(100 * (one.random.mean - low) / (1 - low), 2) - round(-100 * low / (1 - low), 2), 2)
    drawn = re.search(
        r'<th scope="row">population</th>.*?class="fill random" style="left:[^;]+;width:([^%]+)%', text, re.S
    )
    assert drawn and float(drawn[1]) == pytest.approx(width, abs=0.011)


def test_the_correlations_and_the_confusion_matrix_are_on_the_page(text: str, evaluation: Evaluation) -> None:
    rows = Cells(text).rows
    for target in dict.fromkeys(one.target for one in evaluation.correlations):
        for features in ("pca", "pca_raw"):
            cells = [
                one for one in evaluation.correlations if (one.target, one.features) == (target, features)
            ]
            assert [target.replace("_", " "), *(written(one.r.value) for one in cells)] in rows
    (urban,) = [one for one in evaluation.classifications if one.features == "all"]
    assert urban.random and urban.random.accuracy.mean is not None
    for name, counts in zip(("rural", "urban"), urban.random.confusion, strict=True):
        shares = [f"{count:,}{100 * count / sum(counts):.1f} %" for count in counts]
        assert [name, *shares] in rows
    measures = next(row for row in rows if row[:3] == ["All features", "Logistic regression", "random folds"])
    accuracy = urban.random.accuracy
    mean, sd, low, high = (
        f"{100 * (value or 0):.1f} %" for value in (accuracy.mean, accuracy.sd, accuracy.low, accuracy.high)
    )
    assert measures[3] == f"{mean} ± {sd} [{low}, {high}]"


def test_the_post_stands_beside_washington_2020_and_nothing_else(text: str, evaluation: Evaluation) -> None:
    assert "Beside the reference post" in text
    rows = Cells(text).rows
    assert ["kept", "148,683", "144", "−148,539"] in rows
    assert ["dropped: all water", "8,272", "4", "−8,268"] in rows
    for target, posts in R2.items():
        expected = []
        for features, at in (("all", 0), ("pca", 1), ("pca_raw", 1)):
            (one,) = [
                one
                for one in evaluation.regressions
                if (one.target, one.features, one.model) == (target, features, "ols")
            ]
            assert one.in_sample and one.in_sample.value is not None
            less = written(one.in_sample.value - posts[at])
            sign = "" if less.startswith("−") else "+"
            expected += [written(posts[at]), written(one.in_sample.value), sign + less]
        assert [target.replace("_", " "), *expected] in rows
    for other in ({"year": 2021}, {"state": ["OR"]}, {"county": ["033"]}, {"raster": ["mine.tif"]}):
        assert not is_of(manifest_of(blocks(), **({"state": ["WA"]} | other)))
    assert not is_of(manifest_of(blocks(), state=["WA"], stats=["mean"]))


def test_a_component_whose_sign_differs_is_turned_to_the_posts(evaluation: Evaluation) -> None:
    tables = {one.title: one for one in beside(manifest_of(blocks(), state=["WA"]), evaluation)}
    table = tables["Correlations, principal components of standardised features"]
    ours = {
        (one.target, one.component): one.r.value for one in evaluation.correlations if one.features == "pca"
    }
    for number, name in enumerate(table.columns, 1):
        alike = sum(posts[number - 1] * (ours[target, number] or 0) for target, posts in CORRELATIONS.items())
        assert (name in table.note) == (alike < 0)
        for target, pairs in table.rows:
            pair = pairs[number - 1]
            assert pair and pair.ours == (ours[target, number] or 0) * (-1 if alike < 0 else 1)
            assert pair.difference == pair.ours - pair.post


def test_the_posts_ten_components_stand_beside_no_other_number_of_them(tmp_path: Path) -> None:
    text = page_of(make_output(tmp_path / "out", components=4, steps=("evaluate",), state=["WA"]))
    titles = re.findall(r'<th scope="colgroup" colspan="3">([^<]+)', text)
    assert not [title for title in titles if title.startswith("PCA")]
    assert "Correlations, principal components of standardised features" in text  # of single components


def test_the_posts_figures_are_those_of_the_design() -> None:
    (zones,) = beside(manifest_of(blocks(), state=["WA"]), None)
    assert [(name, pair.post) for name, (pair,) in zones.rows if pair] == [
        ("read", 158_093),
        ("dropped: all water", 8_272),
        ("dropped: over 25 km2", 1_138),
        ("kept", 148_683),
    ]


def test_the_map_of_valid_fraction_is_a_burn_of_the_column(text: str) -> None:
    (image,) = [np.asarray(image) for alt, image in pictures(text) if alt.startswith("Map of valid_fraction")]
    frame = blocks().to_crs("EPSG:32610")
    west, south, east, north = frame.total_bounds
    size = max(east - west, north - south) / 900
    assert max(image.shape[:2]) == 900
    shapes = zip(frame.geometry, range(len(frame)), strict=True)
    transform = Affine(size, 0, west, 0, -size, north)
    zone = rasterio.features.rasterize(shapes, image.shape[:2], fill=-1, transform=transform, dtype="int32")
    expected = ramp(np.where(zone >= 0, frame["valid_fraction"].to_numpy()[zone], np.nan))
    # The oracle projects corners only, and knows bounds to a hair's breadth less.
    assert (image == expected).all(axis=-1).mean() > 0.995
    assert "91.7 % of zones have them everywhere; 1 nowhere." in text


def test_the_scale_bar_is_as_long_as_it_says(text: str, whole: Folder) -> None:
    one = whole.read_json("pca.json")
    assert one
    west, south, east, north = one["maps"][0]["bounds"]
    to = pyproj.Transformer.from_crs(one["maps"][0]["crs"], 4326, always_xy=True)
    ends = [to.transform(x, (south + north) / 2) for x in (west, east)]
    ground = pyproj.Geod(ellps="GRS80").inv(*ends[0], *ends[1])[2]
    drawn = re.search(r'class="length" style="width:([\d.]+)%"></span><span class="words">([\d.]+) km', text)
    assert drawn and float(drawn[1]) / 100 * ground == pytest.approx(1000 * float(drawn[2]), rel=1e-3)


def test_two_states_have_a_map_each(tmp_path: Path) -> None:
    frame = blocks()
    folder = make_output(tmp_path / "out", frame, steps=(), state=["WA", "OR"])
    for state, part in (("WA", frame[:70]), ("OR", frame[70:])):
        place = tmp_path / "out" / "stats" / f"state={state}"
        place.mkdir(parents=True)
        write_table(place / "part-000.parquet", gpd.GeoDataFrame(part.reset_index(drop=True)))
    files = ["stats/state=OR/part-000.parquet", "stats/state=WA/part-000.parquet"]
    folder.write_json(
        "manifest.json", (folder.read_json("manifest.json") or {}) | {"files": files, "table": "stats"}
    )
    draw(load_table(folder.url), MapSettings(), folder, "pca", "stats.qml", Threads(2), quiet)
    folder.write_json("steps.json", {"pca": entry_of("pca.json")})
    text = page_of(folder)
    alts = [alt for alt, _ in pictures(text)]
    assert (
        len(alts) == 3 and alts[0].startswith("Map of OR: 74 zones") and alts[1].startswith("Map of WA: 69")
    )
    assert "<h1>Washington, Oregon, 2020</h1>" in text and 'read_parquet("stats")' in text


def test_previews_shrink_until_the_page_can_be_sent(whole: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    (before,) = [image for alt, image in pictures(page_of(whole)) if "principal components" in alt]
    assert max(before.size) > 300
    monkeypatch.setattr(report_module, "MOST_BYTES", 100)
    (after,) = [image for alt, image in pictures(page_of(whole)) if "principal components" in alt]
    assert max(after.size) == report_module.SIDES[-1]
    assert after.size[0] / after.size[1] == pytest.approx(before.size[0] / before.size[1], rel=0.02)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    folder = make_output(tmp_path / "out", steps=())
    folder.write_json(
        "steps.json", {"pca": {"key": "p", "files": [], "skipped": "too few zones.", "seconds": 0.1}}
    )
    text = page_of(folder)
    assert "There is no map: too few zones." in text
    assert "There is no evaluation: the step evaluate was not taken." in text
    assert "1 zone without a valid pixel" in text and "The map</h2>" not in text
    assert 'alt="Map of valid_fraction' in text


def test_a_table_without_attributes_says_why_nothing_is_predicted(tmp_path: Path) -> None:
    text = page_of(make_output(tmp_path / "out", blocks().drop(columns=ATTRIBUTES)))
    evaluation = Evaluation.model_validate_json((tmp_path / "out" / "evaluation.json").read_bytes())
    assert evaluation.regressions and all(one.skipped for one in evaluation.regressions)
    for one in evaluation.regressions:
        assert one.skipped and one.skipped.replace("'", "&#39;") in text


@pytest.mark.parametrize("count", [0, 1])
def test_a_table_of_one_zone_or_none_has_a_page(tmp_path: Path, count: int) -> None:
    text = page_of(make_output(tmp_path / "out", blocks().head(count), steps=()))
    assert f"<dt>zones</dt><dd>{count}</dd>" in text and ("<img" in text) == bool(count)


def test_null_statistics_leave_gaps_and_no_nan(tmp_path: Path) -> None:
    frame = blocks()
    frame["valid_fraction"] = np.nan
    frame["pixel_count"] = 0.0
    frame["ALAND20"] = pd.array([None] * len(frame), "Int64")
    text = page_of(make_output(tmp_path / "out", frame))
    assert "No zone has an area in pixels." in text and "nan" not in re.sub(r'base64,[^"]*', "", text).lower()
    assert "Pixels of a zone" not in text and "Land area of a zone" not in text and "<h3>PC1</h3>" in text


def test_words_of_others_are_shown_and_never_obeyed(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    frame = blocks().rename(columns={"A00_mean": f"A00{evil}_mean"})
    folder = make_output(
        tmp_path / evil.replace("/", "∕") / "out", frame, zones=f"/data/{evil}.gpkg", state=[]
    )
    text = page_of(folder)
    assert "<script" not in text and "&lt;script&gt;" in text


def test_zones_without_places_have_no_maps(tmp_path: Path) -> None:
    frame = blocks()
    folder = make_output(tmp_path / "out", frame, steps=())
    frame.drop(columns="geometry").to_parquet(tmp_path / "out" / "stats.parquet")
    assert "<img" not in page_of(folder)


def entry_of(name: str) -> dict[str, Any]:
    return {"key": "k", "files": [name], "skipped": None, "seconds": 0.1}


def test_what_an_earlier_table_left_is_not_taken_for_this_ones(tmp_path: Path) -> None:
    folder = make_output(tmp_path / "out")
    made = folder.read_json("steps.json") or {}
    del made["pca"]  # as where a run was killed while it replaced these files
    made["evaluate"]["key"] = None
    folder.write_json("steps.json", made)
    text = page_of(folder)
    assert "There is no map: the step pca was not taken." in text
    assert "There is no evaluation: the step evaluate was not taken." in text


def test_an_output_that_is_none_is_refused(tmp_path: Path, whole: Folder) -> None:
    with pytest.raises(InputError, match=r"no manifest\.json"):
        report(Folder(str(tmp_path)), "report.html", table=load_table(whole.url), notify=quiet)
    folder = make_output(tmp_path / "out", steps=())
    folder.write_json("steps.json", {name: entry_of(name) for name in ("evaluation.json", "pca.json")})
    folder.write("evaluation.json", b'{"rows": 1}')
    with pytest.raises(InputError, match=r"evaluation\.json is no evaluation of this version"):
        page_of(folder)
    folder.write_json("steps.json", {"pca": entry_of("pca.json")})
    folder.write_json("pca.json", (whole.read_json("pca.json") or {}) | {"schema_version": 7})
    with pytest.raises(InputError, match=r"pca\.json describes no map .*schema_version 7, expected 1"):
        page_of(folder)
    folder.write_json("pca.json", whole.read_json("pca.json") or {})
    with pytest.raises(InputError, match=r"pca\.png is gone; make it again with zonal pca"):
        page_of(folder)
