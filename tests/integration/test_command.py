"""The command line as people meet it: its words, its sentences, its exit codes, its signals."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import psutil
import pytest
import tifffile
from servers import FolderServer, clean_environment, http_server, zonal
from synthetic import Tile, blocks_zip, jittered_blocks, make_mirror, random_tile, utm_grid

from zonal.cli import app
from zonal.cluster.runner import Threads
from zonal.config.settings import Settings
from zonal.demo.tiles import PREFIX
from zonal.engine.run import run
from zonal.io.raster.cog import Cog
from zonal.io.store.lock import _place

INDEX = f"{PREFIX}/aef_index.parquet"
WI = ("run", "--state", "WI", "--year", "2024")


@dataclass(frozen=True)
class Said:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str


Call = Callable[..., Said]


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Call]:
    """Call the command in this process: it ends before any worker starts."""
    old = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def command(*words: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["zonal", *map(str, words)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            app.main()
        said = capfd.readouterr()
        return Said(int(ended.value.code or 0), said.out, said.err)

    yield command
    for number, handler in old.items():
        signal.signal(number, handler)


@dataclass(frozen=True)
class Small:
    """A mirror with one small tile and the blocks of a state on it."""

    mirror: Path
    tile: Tile
    blocks: gpd.GeoDataFrame

    def copy(self, folder: Path) -> Path:
        """A mirror of one's own, to spoil."""
        return Path(shutil.copytree(self.mirror, folder / "mirror"))

    @property
    def key(self) -> str:
        return self.tile.key()


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    grid = utm_grid(32616, 400_000, 4_900_000, 256, 256)
    tile = random_tile(np.random.default_rng(4), grid)
    mirror = make_mirror(tmp_path_factory.mktemp("small"), [tile])
    blocks = jittered_blocks(grid.bounds, 8, 8, grid.crs, state_fips="55")
    blocks_zip(mirror, "55", blocks)
    return Small(mirror, tile, blocks)


def one_sentence(said: Said, code: int, says: str) -> None:
    assert said.code == code, said.err
    assert said.out == ""
    assert re.fullmatch(r"zonal: [^\n]+\n", said.err), said.err
    assert "Traceback" not in said.err
    assert re.search(says, said.err), said.err


# ------------------------------------------------------------------ wrong words


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("run", "--state", "Wisconsen"), r"state 'Wisconsen': no such state; did you mean 'Wisconsin'\?"),
        (("run", "--state", "WI", "--year", "20-24"), r"year '20-24': expected a year such as 2020"),
        (
            ("run", "--bbox", "-122.07", "47.49", "-122.44", "47.73"),
            r"west -122\.07 >= east -122\.44; .*W S E N",
        ),
        (("run", "--bbox", "-122.4", "47.7", "-122.0", "47.4"), r"south 47\.7 >= north 47\.4"),
        (("run", "--bbox", "-122.4", "47.7"), r"'--bbox' requires 4 arguments; see zonal"),
        (("run", "--states", "WI"), r"No such option: --states .*--state"),
        (("run", "--state"), r"'--state' requires an argument"),
        (("run", "--workers", "few"), r"'--workers'.*valid integer"),
        (("run", "--stats", "mean,media"), r"stats 'media': expected some of mean, std"),
        (("run", "--engine", "exactextract", "--coverage", "center"), r"no coverage 'center'"),
        (("run", "--coverage", "centre"), r"coverage.*'fractional' or 'center'"),
        (("run", "washington-2021"), r"no bundled workflow .*did you mean 'washington-2020'\?"),
        (("run", "--year", "2024"), r"one file a state: say which, for example --state WA"),
        (("run", "--state", "WI"), r"several years: say which, for example --year 2020"),
        (("run", "--raster", "aef_anual", "--state", "WI"), r"'aef_anual'.*did you mean 'aef_annual'\?"),
        (("export", "x.parquet", "--to", "shp"), r"'shp' is not one of"),
        (("frobnicate",), r"No such command 'frobnicate'; see zonal --help"),
        (("plan", "--fresh"), r"No such option: --fresh"),
    ],
    ids=lambda value: "-".join(value).replace("--", "") if isinstance(value, tuple) else "",
)
def test_a_wrong_word_is_named_in_one_sentence_with_exit_code_2(
    call: Call, small: Small, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], says: str
) -> None:
    monkeypatch.setenv("ZONAL_MIRROR", str(small.mirror))
    one_sentence(call(words[0], "--quiet", *words[1:]) if words[0] == "run" else call(*words), 2, says)


def test_a_typo_in_a_workflow_names_the_nearest_key(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("state: WI\nyear: 2024\nmax_land_km: 25\n")
    one_sentence(call("run", file), 2, r"mine\.yaml: .*max_land_km.*max_land_km2")


def test_words_that_contradict_each_other_are_refused(call: Call, small: Small, tmp_path: Path) -> None:
    zones, raster = tmp_path / "zones.parquet", tmp_path / "x.tif"
    small.blocks.to_parquet(zones)
    raster.touch()
    quiet = ("--year", "2024", "--mirror", small.mirror, "--quiet")
    one_sentence(call("run", "--zones", zones, *quiet), 2, r"their id column: --zone-id COLUMN")
    one_sentence(
        call("run", "--zones", zones, "--zone-id", "GEOID20", "--state", "WI", *quiet),
        2,
        r"--state does nothing",
    )
    one_sentence(
        call(*WI, "--mirror", small.mirror, "--raster", "aef_annual", "--raster", raster),
        2,
        r"one catalog source or files, not both",
    )


# ------------------------------------------------------------------ bad input

Spoil = Callable[[Small, Path], tuple[object, ...]]


def _index(small: Small, folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> tuple[object, ...]:
    mirror = small.copy(folder)
    change(gpd.read_parquet(mirror / INDEX)).to_parquet(mirror / INDEX)
    return (*WI, "--mirror", mirror)


def _tile(small: Small, folder: Path, tile: Tile) -> tuple[object, ...]:
    mirror = small.copy(folder)
    tile.write(mirror / small.key)
    return (*WI, "--mirror", mirror)


def _bytes(small: Small, folder: Path, name: str, data: bytes) -> tuple[object, ...]:
    mirror = small.copy(folder)
    (mirror / name).write_bytes(data)
    return (*WI, "--mirror", mirror)


def _zones(
    small: Small, folder: Path, zones: gpd.GeoDataFrame, zone_id: str = "GEOID20"
) -> tuple[object, ...]:
    zones.to_parquet(folder / "zones.parquet")
    words = ("run", "--zones", folder / "zones.parquet", "--zone-id", zone_id, "--year", "2024")
    return (*words, "--mirror", small.mirror)


def _shifted(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(utm_west=frame["utm_west"] - 10, utm_east=frame["utm_east"] - 10)


def _damaged(data: bytes) -> bytes:
    """Turn the bits of the first part of the members, and leave the directory at the end as it is."""
    half = len(data) // 2
    return bytes(byte ^ 0xFF for byte in data[200:half]).join((data[:200], data[half:]))


ZIP = "geo/tiger/TIGER2025/TABBLOCK20/tl_2025_55_tabblock20.zip"

BAD: dict[str, tuple[Spoil, str]] = {
    "a year that the index lacks": (
        lambda small, folder: (*WI[:-1], "1999", "--mirror", small.mirror),
        r"aef_index\.parquet: no tiles of 1999; it has 2024",
    ),
    "an index without a column": (
        lambda small, folder: _index(small, folder, lambda frame: frame.drop(columns="utm_west")),
        r"aef_index\.parquet: no column 'utm_west'; is it the index of another product\?",
    ),
    "an index that is no Parquet file": (
        lambda small, folder: _bytes(small, folder, INDEX, b"fid,path\n1,x\n"),
        r"tile index .*aef_index\.parquet cannot be read",
    ),
    "an index row whose bounds differ from the file": (
        lambda small, folder: _index(small, folder, _shifted),
        r"\.tiff: the file has 256 x 256 px of 10 at 400000, .*the index says .*399990",
    ),
    "a tile that the index lists and the store lacks": (
        lambda small, folder: _index(small, folder, lambda f: f.assign(path=f["path"] + "x")),
        r"\.tiffx: no such file",
    ),
    "a tile of 63 bands": (
        lambda small, folder: _tile(small, folder, replace(small.tile, data=small.tile.data[:63])),
        r"\.tiff: 63 bands.*expected 64 bands \(A00\.\.A63\); is it of another product\?",
    ),
    "a tile of another dtype": (
        lambda small, folder: _tile(
            small, folder, replace(small.tile, data=small.tile.data.view(np.uint8), nodata=None)
        ),
        r"\.tiff: .*uint8.*int8",
    ),
    "a tile that is no TIFF": (
        lambda small, folder: _bytes(small, folder, small.key, b"<html>404</html>" * 100),
        r"\.tiff: begins with .*not with a TIFF's header; the file is damaged or no GeoTIFF",
    ),
    "a zip file that is none": (
        lambda small, folder: _bytes(small, folder, ZIP, b"PK but not really"),
        r"tabblock20\.zip is not a readable zip file",
    ),
    "a zip file that was cut off": (
        lambda small, folder: _bytes(small, folder, ZIP, (small.mirror / ZIP).read_bytes()[:-500]),
        r"tabblock20\.zip is not a readable zip file",
    ),
    "a zip file with damaged members": (
        lambda small, folder: _bytes(small, folder, ZIP, _damaged((small.mirror / ZIP).read_bytes())),
        r"tabblock20\.zip.*(is not a readable zip file|is damaged)",
    ),
    "a state without a file": (
        lambda small, folder: ("run", "--state", "CO", "--year", "2024", "--mirror", small.mirror),
        r"tl_2025_08_tabblock20\.zip: no such file",
    ),
    "zones without a CRS": (
        lambda small, folder: _zones(small, folder, small.blocks.set_crs(None, allow_override=True)),
        r"zones\.parquet: the zones have no CRS",
    ),
    "zones with an id twice": (
        lambda small, folder: _zones(small, folder, pd.concat([small.blocks, small.blocks[:1]])),
        r"zones\.parquet: 1 ids in GEOID20 occur more than once, e\.g\. '55",
    ),
    "zones without the id column": (
        lambda small, folder: _zones(small, folder, small.blocks, "GEOID10"),
        r"zones\.parquet: no column 'GEOID10' for the zone id; it has STATEFP20",
    ),
    "zones that are lines": (
        lambda small, folder: _zones(small, folder, small.blocks.set_geometry(small.blocks.boundary)),
        r"64 zones are not polygons \(the first is a LineString\)",
    ),
    "a file of zones that is not there": (
        lambda small, folder: ("run", "--zones", folder / "no.gpkg", "--zone-id", "x", "--year", "2024"),
        r"zones .*no\.gpkg: no such file",
    ),
    "a raster that is not there": (
        lambda small, folder: (*WI, "--raster", folder / "no.tif"),
        r"raster .*no\.tif: no such file",
    ),
    "a workflow that is not there": (
        lambda small, folder: ("run", folder / "no.yaml"),
        r"no\.yaml.*no such file",
    ),
    "a catalog that is not there": (
        lambda small, folder: (*WI, "--catalog", folder / "no.yaml"),
        r"catalog .*no\.yaml.*no such file",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_with_exit_code_3_and_nothing_half_written(
    call: Call, small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.chdir(tmp_path)
    spoil, says = BAD[case]
    one_sentence(call(*spoil(small, tmp_path), "--output", tmp_path / "out", "--quiet"), 3, says)
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_written_is_exit_code_3(call: Call, small: Small, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    words = (*WI, "--mirror", small.mirror, "--quiet", "--output")
    one_sentence(call(*words, tmp_path / "file" / "out"), 3, r"cannot write to .*file/out.*: Not a directory")
    one_sentence(call(*words, "/proc/zonal"), 3, r"cannot write to /proc/zonal")


@pytest.fixture(scope="session")
def once_finished(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "out"
    settings = Settings(state="WI", year=2024, mirror=str(small.mirror), output=str(folder))
    run(settings, runner=Threads(1))
    return folder


@pytest.fixture
def finished(once_finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished output of one's own."""
    return Path(shutil.copytree(once_finished, tmp_path_factory.mktemp("finished") / "out"))


def test_the_output_of_another_run_is_left_alone_with_exit_code_6(
    call: Call, small: Small, finished: Path
) -> None:
    before = (finished / "stats.parquet").read_bytes()
    words = (*WI, "--mirror", small.mirror, "--output", finished, "--quiet", "--coverage", "center")
    one_sentence(call(*words), 6, r"holds a finished run: .*coverage.*--fresh to replace it")
    assert (finished / "stats.parquet").read_bytes() == before
    assert sorted(path.name for path in finished.iterdir()) == ["manifest.json", "stats.parquet"]


def test_the_same_command_again_has_nothing_to_do(call: Call, small: Small, finished: Path) -> None:
    said = call(*WI, "--mirror", small.mirror, "--output", finished, "--steps", "stats")
    assert said.code == 0
    assert re.search(r"stats\.parquet  \d+ zones, \d+ covered; nothing to do: already complete", said.out)


def test_an_output_that_a_live_process_holds_is_exit_code_5(call: Call, small: Small, tmp_path: Path) -> None:
    lock = tmp_path / "out" / ".work" / "lock.json"
    lock.parent.mkdir(parents=True)
    beat = {"every": 60, "beat": datetime.now(UTC).isoformat()}
    lock.write_text(json.dumps({**_place(), "process": os.getppid(), **beat}))
    words = (*WI, "--mirror", small.mirror, "--output", tmp_path / "out", "--quiet")
    one_sentence(call(*words), 5, rf"is in use by process {os.getppid()} on ")
    assert lock.exists()


def test_a_bug_is_a_traceback_and_exit_code_70(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a screw is loose")

    monkeypatch.setattr("zonal.config.catalog.Catalog.load", broken)
    said = call("catalog")
    assert said.code == 70
    assert "RuntimeError: a screw is loose" in said.err
    assert said.err.endswith("zonal: this is a bug; please report it with the lines above\n")


def test_json_logs_end_with_a_json_line_whatever_ended_the_run(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def last(*words: object) -> tuple[int, dict[str, object]]:
        said = call("run", "--json-logs", *words)
        lines = [json.loads(line) for line in said.err.splitlines()]
        assert all(line["level"] != "error" for line in lines[:-1])
        return said.code, lines[-1]

    code, line = last("--state", "Wisconsen", "--year", 2024)
    assert (code, line["level"], line["exit_code"]) == (2, "error", 2)
    assert "no such state" in str(line["message"])
    code, line = last("--no-such-option")
    assert (code, line["exit_code"]) == (2, 2)

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a screw is loose")

    monkeypatch.setattr("zonal.config.workflows.load", broken)
    code, line = last()
    assert (code, line["level"], line["exit_code"]) == (70, "error", 70)
    assert "a screw is loose" in str(line["traceback"])


@pytest.mark.parametrize("url", ["foo://somewhere/x", "gs://bucket/x"])
def test_an_output_that_nothing_here_opens_is_exit_code_3(
    call: Call, small: Small, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    one_sentence(call(*WI, "--mirror", small.mirror, "--output", url, "--quiet"), 3, "cannot be opened")


def test_the_installed_command_says_the_same(small: Small, tmp_path: Path) -> None:
    spoiled = _bytes(small, tmp_path, ZIP, b"PK but not really")
    for words, code, says in (
        (("run", "--state", "Wisconsen", "--year", "2024"), 2, "no such state"),
        ((*spoiled, "--quiet"), 3, "is not a readable zip file"),
    ):
        done = zonal(*words, folder=tmp_path)
        one_sentence(Said(done.returncode, done.stdout, done.stderr), code, says)


# ------------------------------------------------------------------ words that are understood


def test_every_setting_can_be_said_on_the_command_line(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Settings] = []
    monkeypatch.setattr("zonal.engine.run.plan", lambda settings, **_: heard.append(settings) or {})
    words = "--state WA,Oregon --state 16 --year 2018,2020-2021 --county 033 --county 001,003 --keep-water"
    words += " --bbox -122.44 47.49 -122.07 47.73 --max-land-km2 25 --stats mean,count --coverage center"
    words += " --zones census_tracts_2020 --zone-id GEOID --raster a.tif --raster b,c.tif --engine native"
    words += " --workers 2 --threads 3 --output out --catalog c.yaml --mirror m"
    assert call("plan", *words.split()).code == 0
    (settings,) = heard
    assert settings.public() == {
        **Settings().public(),
        "state": ["ID", "OR", "WA"],
        "year": [2018, 2020, 2021],
        "county": ["001", "003", "033"],
        "bbox": [-122.44, 47.49, -122.07, 47.73],
        "zones": "census_tracts_2020",
        "zone_id": "GEOID",
        "raster": ["a.tif", "b,c.tif"],
        "max_land_km2": 25.0,
        "keep_water": True,
        "stats": ["mean", "count"],
        "coverage": "center",
        "workers": 2,
        "threads": 3,
        "output": "out",
        "catalog": "c.yaml",
        "mirror": "m",
    }


def test_flags_override_the_workflow(call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    heard: list[Settings] = []
    monkeypatch.setattr("zonal.engine.run.plan", lambda settings, **_: heard.append(settings) or {})
    file = tmp_path / "mine.yaml"
    file.write_text("state: WI\nyear: 2024\nkeep_water: false\nmax_land_km2: 25\nmirror: theirs\n")
    monkeypatch.setenv("ZONAL_MIRROR", "of the environment")
    call("plan", file, "--year", "2023", "--keep-water")
    call("plan", file)
    assert [(s.year, s.keep_water, s.max_land_km2, s.mirror) for s in heard] == [
        ((2023,), True, 25.0, "theirs"),
        ((2024,), False, 25.0, "theirs"),
    ]
    call("plan", "--mirror", "ours")
    call("plan")
    assert [settings.mirror for settings in heard[2:]] == ["ours", "of the environment"]


# ------------------------------------------------------------------ plan, catalog, compare, export


def test_a_plan_counts_without_reading_a_pixel(
    call: Call, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(*_: object) -> None:
        raise AssertionError("a plan fetched a chunk")

    monkeypatch.setattr(Cog, "fetch", fetch)
    monkeypatch.chdir(tmp_path)
    words = ("plan", "--state", "WI", "--year", "2024", "--quiet")
    with http_server(shared / "mirror") as server:
        guessed = call(*words, "--mirror", server.url)
        assert not [path for _, path, _ in server.asked if path.endswith(".tiff")]
        exact = call(*words, "--mirror", server.url, "--headers")
    (path,) = (shared / "mirror").rglob("*.tiff")
    with tifffile.TiffFile(path) as file:
        sizes = np.array(file.pages.first.databytecounts).reshape(64, 64).sum(axis=0)
    ranges = [
        re.fullmatch(r"bytes=(\d+)-(\d+)", asked) for _, name, asked in server.asked if name in str(path)
    ]
    read = sum(int(found[2]) - int(found[1]) + 1 for found in ranges if found)
    assert read < 2_000_000
    for said in (guessed, exact):
        assert (said.code, said.err) == (0, "")
        lines = {
            line[:24].strip(): line[24:].split()[0] for line in said.out.splitlines()[1:] if line[24:].split()
        }
        assert lines["zones to summarise"] == "4,153"
        assert (lines["tiles"], lines["chunks"], lines["units"], lines["parts"]) == ("1", "4", "1", "1")
    touched = np.sort(sizes)[-4:].sum()  # all other chunks are nodata
    assert re.search(rf"to fetch +{touched / 1e6:.1f} MB", exact.out)
    assert re.search(rf"whole files +{path.stat().st_size / 1e6:.1f} MB", exact.out)
    assert re.search(r"to fetch +(about )?160 MB", guessed.out)
    assert list(tmp_path.iterdir()) == []


def test_the_catalog_lists_its_sources_and_whom_to_thank(call: Call) -> None:
    bare, listed = call("catalog"), call("catalog", "list")
    assert bare == listed
    assert bare.code == 0
    for word in ("aef_annual", "census_blocks_2020", "census_tracts_2020", "CC-BY-4.0", "Google DeepMind"):
        assert word in bare.out


def test_the_check_of_a_catalog_reads_one_header_of_each_source(
    call: Call, small: Small, tmp_path: Path
) -> None:
    mirror = small.copy(tmp_path)
    others = ("GEOIDFQ20", "NAME20", "MTFCC20", "UACE20", "FUNCSTAT20", "INTPTLAT20", "INTPTLON20")
    blocks_zip(mirror, "55", small.blocks.assign(**dict.fromkeys(others, "x")))
    with http_server(mirror) as server:
        said = call("catalog", "check", "--state", "WI", "--mirror", server.url)
        asked = {path for method, path, _ in server.asked if method == "GET"}
    lines = said.out.splitlines()
    assert said.code == 3
    assert re.fullmatch(
        r"ok +aef_annual +index of 1 tiles, 2024; .*\.tiff: 256 x 256 px, 64 bands, EPSG:32616, .*", lines[0]
    )
    assert re.fullmatch(r"ok +census_blocks_2020 .*: 64 zones, 17 columns, NAD83, .*", lines[1])
    assert [line.split()[0] for line in lines[2:]] == ["FAIL", "FAIL"]
    assert all("no such file" in line for line in lines[2:])
    assert {small.key, INDEX, ZIP} <= asked
    bare = call("catalog", "check", "census_blocks_2020", "--state", "WI", "--mirror", small.mirror)
    assert bare.code == 3
    assert "no column 'GEOIDFQ20'; it has STATEFP20" in bare.out
    one = call("catalog", "check", "aef_annual", "--year", "2024", "--mirror", small.mirror)
    assert (one.code, one.out.split()[0]) == (0, "ok")
    old = call("catalog", "check", "aef_annual", "--year", "1999", "--mirror", small.mirror)
    assert (old.code, old.out.split()[0]) == (3, "FAIL")
    assert "no tiles of 1999; it has 2024" in old.out
    typo = call("catalog", "check", "aef_anual")
    assert typo.code == 2
    assert "did you mean 'aef_annual'?" in typo.out


def test_the_check_of_the_shared_mirror_passes_for_what_it_holds(call: Call, shared: Path) -> None:
    words = ("catalog", "check", "aef_annual", "census_blocks_2020", "--state", "WI", "--year", "2024")
    said = call(*words, "--mirror", shared / "mirror")
    assert said.code == 0
    assert "8192 x 8192 px, 64 bands, EPSG:32616" in said.out
    assert "4,153 zones, 17 columns, NAD83" in said.out


def test_a_table_exported_as_csv_equals_itself(call: Call, finished: Path, tmp_path: Path) -> None:
    target = tmp_path / "table.csv"
    said = call("export", finished, "--to", "csv", "--output", target)
    assert (said.code, said.err) == (0, "")
    again = call("export", finished, "--to", "csv", "--output", target)
    one_sentence(again, 2, r"table\.csv exists; .*--overwrite")
    said = call("compare", finished, target)
    assert said.code == 0
    assert re.search(r"only in A +0 rows", said.out)
    largest = re.search(r"^mean +64 .* (\S+)  A\d\d_mean of 55\d{13}$", said.out, re.MULTILINE)
    assert largest and float(largest[1]) < 1e-7  # float32 in its shortest decimal form
    one_sentence(
        call("compare", finished, tmp_path / "no.parquet"), 3, r"no\.parquet: no such file or folder"
    )
    one_sentence(call("export", tmp_path, "--to", "gpkg"), 3, r"no table here")


def test_a_remote_table_is_compared_and_exported_to_the_working_directory(
    call: Call, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with http_server(finished.parent) as server:
        url = f"{server.url}/{finished.name}"
        said = call("compare", finished, url)
        assert said.code == 0
        assert re.search(r"^std +64 +[\d,]+ +0 +0$", said.out, re.MULTILINE)
        said = call("export", f"{url}/stats.parquet", "--to", "fgb")
    assert said.code == 0, said.err
    assert len(gpd.read_file(tmp_path / "stats.fgb")) == len(gpd.read_parquet(finished / "stats.parquet"))


def test_help_is_quick_because_nothing_heavy_is_imported(tmp_path: Path) -> None:
    code = "import atexit, sys\natexit.register(lambda: print(*sys.modules))\nimport zonal.__main__"
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"], capture_output=True, text=True, cwd=tmp_path
    )
    assert (done.returncode, "Usage: zonal" in done.stdout) == (0, True)
    heavy = {
        "numpy",
        "pandas",
        "geopandas",
        "pyarrow",
        "dask",
        "distributed",
        "numba",
        "rasterio",
        "pydantic",
    }
    assert not heavy & {*done.stdout.split()}


# ------------------------------------------------------------------ signals


def _command(small: Small, server: FolderServer, folder: Path, *more: str) -> list[str]:
    """A run of one worker that reads its tiles, and nothing else, from a server."""
    zones = folder / "zones.parquet"
    small.blocks.to_parquet(zones)
    words = ["run", "--zones", str(zones), "--zone-id", "GEOID20", "--year", "2024", "--mirror", server.url]
    words += ["--output", str(folder / "out"), "--workers", "1", "--threads", "2"]
    return [sys.executable, "-m", "zonal", *words, *more]


def _gone(children: list[psutil.Process]) -> bool:
    """Whether processes end."""
    return not psutil.wait_procs(children, timeout=60)[1]


def test_sigterm_ends_the_run_and_its_workers_and_the_same_command_goes_on(
    small: Small, tmp_path: Path
) -> None:
    with http_server(small.mirror) as server:
        command = _command(small, server, tmp_path, "--json-logs")
        with subprocess.Popen(
            command,
            cwd=tmp_path,
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if "dashboard" in json.loads(line)["message"]:
                    break
            server.gate.clear()
            time.sleep(0.5)  # the workers are in the middle of a request now
            children = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=200)
        server.gate.set()
        assert children
        assert process.returncode == 143
        last = json.loads(err.splitlines()[-1])
        assert (out, last["message"]) == ("", "terminated; the same command goes on where it stopped")
        assert (last["level"], last["exit_code"]) == ("error", 143)
        assert "Traceback" not in err
        assert _gone(children)
        assert not (tmp_path / "out/.work/lock.json").exists()
        assert not (tmp_path / "out/stats.parquet").exists()
        done = subprocess.run(command, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "covered; written" in done.stdout


def test_ctrl_c_on_a_terminal_ends_the_run_and_its_workers(small: Small, tmp_path: Path) -> None:
    with http_server(small.mirror) as server:
        command = _command(small, server, tmp_path)
        process, terminal = pty.fork()
        if process == 0:  # pragma: no cover
            os.chdir(tmp_path)
            os.execve(command[0], command, clean_environment(TERM="xterm"))
        shown, stopped_at = b"", 0
        children: list[psutil.Process] = []
        while True:
            try:
                some = os.read(terminal, 65536)
            except OSError:  # the other end is closed
                break
            shown += some
            if not stopped_at and b"dashboard" in shown:
                server.gate.clear()
                time.sleep(0.5)
                children = psutil.Process(process).children(recursive=True)
                stopped_at = len(shown)
                os.write(terminal, b"\x03")  # every process of the terminal gets it, workers too
        _, status = os.waitpid(process, 0)
        os.close(terminal)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    assert os.waitstatus_to_exitcode(status) == 130, text
    assert "━" in text[:stopped_at]
    assert re.search(r"dashboard\S* http://127\.0\.0\.1:\d+/status", text)
    assert text.rstrip().endswith("zonal: interrupted; the same command goes on where it stopped")
    assert "Traceback" not in text
    assert children
    assert _gone(children)
    assert not (tmp_path / "out/.work/lock.json").exists()


def test_a_signal_does_not_wait_for_a_server_that_hangs(small: Small, tmp_path: Path) -> None:
    with http_server(small.mirror) as server:
        server.gate.clear()
        # Were the server waited for, it would be for longer than this test may take.
        command = _command(small, server, tmp_path, "--stall", "3600")
        with subprocess.Popen(
            command, cwd=tmp_path, env=clean_environment(), stderr=subprocess.PIPE
        ) as process:
            while not server.asked:
                time.sleep(0.05)
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=200)  # the server hangs all the while, and has 300 seconds
        assert process.returncode == 130
        assert err.decode() == "zonal: interrupted; the same command goes on where it stopped\n"
        assert not (tmp_path / "out").exists()
