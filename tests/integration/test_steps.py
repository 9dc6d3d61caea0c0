"""The steps of a run after its table: what they make, when they are done again, what they leave behind."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd
import pytest
import shapely
from builds import Builds
from processes import wait_for
from seam import FINE, Seam
from servers import S3Server, clean_environment, http_server, zonal

from zonal import steps
from zonal.cluster.runner import Threads
from zonal.config.settings import Settings
from zonal.config.workflows import load
from zonal.demo.town import Sample
from zonal.engine.run import Result
from zonal.engine.run import run as make_table
from zonal.errors import InputError, LockedError, UsageError
from zonal.events import Event
from zonal.findings.evaluation.schema import Evaluation
from zonal.io.store.folder import Folder
from zonal.io.store.lock import locked

HERE = Threads(2)
MADE = {
    "pca": {"pca.tif", "pca.png", "pca.json", "stats.qml"},
    "evaluate": {"evaluation.json", "evaluation.md"},
    "report": {"report.html"},
}


@dataclass(frozen=True)
class Town:
    """The demo's town, and a finished table of it."""

    sample: Sample
    table: Path


@pytest.fixture(scope="session")
def town(sample: Sample, builds: Builds) -> Town:
    def make(folder: Path) -> None:
        make_table(asked(sample, folder / "out"), runner=HERE)

    return Town(sample, builds.folder("town-table", make) / "out")


@pytest.fixture(scope="session")
def whole(town: Town, builds: Builds) -> Path:
    """An output with all that a run makes."""

    def make(folder: Path) -> None:
        taken(town, Path(shutil.copytree(town.table, folder / "whole")))

    return builds.folder("town-whole", make) / "whole"


@pytest.fixture
def output(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "out"))


FEW: dict[str, Any] = {"folds": 2}
"""Of an evaluation, to be quick."""


def asked(sample: Sample, output: Path, evaluate: dict[str, Any] | None = FEW, **more: Any) -> Settings:
    places = {"zones": str(sample.zones), "mirror": str(sample.mirror), "output": str(output)}
    section = {} if evaluate is None else {"evaluate": FEW | evaluate}
    return load("demo", places | section | more)


def taken(town: Town, output: Path, *, fresh: bool = False, **more: Any) -> tuple[Result, list[Event]]:
    events: list[Event] = []
    (result,) = steps.run(asked(town.sample, output, **more), fresh=fresh, notify=events.append, runner=HERE)
    return result, events


def times(output: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in output.iterdir() if path.is_file()}


def changed(before: dict[str, int], output: Path) -> set[str]:
    after = times(output)
    return {name for name in before | after if before.get(name) != after.get(name)} - {"steps.json"}


def test_a_run_makes_the_table_its_map_its_evaluation_and_its_report(whole: Path) -> None:
    files = set().union(*MADE.values()) | {"stats.parquet", "manifest.json", "steps.json"}
    assert {path.name for path in whole.iterdir()} == files
    Evaluation.model_validate_json((whole / "evaluation.json").read_bytes())


def test_the_same_run_again_makes_nothing_anew(town: Town, output: Path) -> None:
    before = times(output)
    result, events = taken(town, output)
    assert changed(before, output) == set()
    made = {step: {Path(file).name for file in files} for step, files in result.files.items()}
    assert not result.fresh and made == MADE
    assert events == []


@pytest.mark.parametrize(
    ("more", "again"),
    [
        ({"pca": {"standardize": False}}, ("pca", "report")),
        ({"evaluate": {"seed": 1}}, ("evaluate", "report")),
    ],
)
def test_other_settings_of_a_step_make_it_anew_and_the_report(
    town: Town, output: Path, more: dict[str, Any], again: Sequence[str]
) -> None:
    before = times(output)
    taken(town, output, **more)
    assert changed(before, output) >= set().union(*(MADE[step] for step in again))
    kept = set(MADE) - {*again}
    others = set().union({"stats.parquet", "manifest.json"}, *(MADE[step] for step in kept))
    assert not changed(before, output) & others


def test_a_file_that_went_away_is_made_again(town: Town, output: Path) -> None:
    (output / "evaluation.md").unlink()
    before = times(output)
    taken(town, output, steps="stats,pca,evaluate")
    assert changed(before, output) == MADE["evaluate"]


def test_attributes_that_changed_are_evaluated_anew(town: Town, output: Path, tmp_path: Path) -> None:
    rent = tmp_path / "rent.csv"
    ids = gpd.read_parquet(output / "stats.parquet", columns=["GEOID20", "geometry"])["GEOID20"]
    frame = pd.DataFrame({"GEOID20": ids, "rent": range(len(ids))})
    wanted = {"evaluate": {"attributes": str(rent)}, "steps": "evaluate"}
    frame.to_csv(rent, index=False)
    taken(town, output, **wanted)
    first = Evaluation.model_validate_json((output / "evaluation.json").read_bytes())
    assert first.attributes is not None and first.attributes.matched == len(ids)
    before = times(output)
    taken(town, output, **wanted)
    assert changed(before, output) == set()
    frame.iloc[5:].to_csv(rent, index=False)
    taken(town, output, **wanted)
    second = Evaluation.model_validate_json((output / "evaluation.json").read_bytes())
    assert second.attributes is not None and second.attributes.table_unmatched == 5


def test_a_new_table_removes_what_was_made_of_the_old_one(town: Town, output: Path) -> None:
    taken(town, output, fresh=True, steps="stats")
    assert {path.name for path in output.iterdir()} == {"stats.parquet", "manifest.json"}


def test_steps_without_a_table_say_which_step_makes_it(town: Town, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no finished table here; the step 'stats' makes it"):
        taken(town, tmp_path / "none", steps="pca")


def squares(count: int) -> gpd.GeoDataFrame:
    """Zones of the town, without any attribute."""
    boxes = [shapely.box(-120.02 + 0.002 * n, 46.56, -120.0185 + 0.002 * n, 46.562) for n in range(count)]
    return gpd.GeoDataFrame({"id": [f"z{n}" for n in range(count)]}, geometry=boxes, crs=4269)


def test_a_run_goes_as_far_as_its_zones_allow(town: Town, tmp_path: Path) -> None:
    squares(1).to_parquet(tmp_path / "one.parquet")
    words = {"zones": str(tmp_path / "one.parquet"), "zone_id": "id", "evaluate": None}
    result, events = taken(town, tmp_path / "out", **words)
    warnings = [event.message for event in events if event.kind == "warning"]
    assert any(text.startswith("no map: ") for text in warnings)
    assert result.files["pca"] == () and (tmp_path / "out" / "report.html").exists()
    before = times(tmp_path / "out")
    _, events = taken(town, tmp_path / "out", **words)
    assert changed(before, tmp_path / "out") == set()
    assert [e.message for e in events if e.kind == "warning" and e.message.startswith("no map: ")]
    with pytest.raises(InputError, match="two zones"):
        taken(town, tmp_path / "out", steps="pca", fresh=True, **words)
    with pytest.raises(InputError, match="two zones"):  # its section asks for it too
        taken(town, tmp_path / "out", **words | {"evaluate": FEW})


def test_zones_without_attributes_have_an_evaluation_that_says_so(town: Town, tmp_path: Path) -> None:
    squares(30).to_parquet(tmp_path / "zones.parquet")
    taken(town, tmp_path / "out", zones=str(tmp_path / "zones.parquet"), zone_id="id")
    found = Evaluation.model_validate_json((tmp_path / "out" / "evaluation.json").read_bytes())
    assert found.pca and all(row.skipped for row in found.regressions)


def test_a_step_that_could_not_be_written_is_taken_again(
    town: Town, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise InputError("the map cannot be written in /tmp: is the disk full?")

    before = times(output)
    with monkeypatch.context() as patch, pytest.raises(InputError, match="disk full"):
        patch.setattr("zonal.findings.map.draw.write_cog", full)
        taken(town, output, pca={"resolution": 20}, steps="pca")
    assert changed(before, output) == set()
    shutil.rmtree(output)
    shutil.copytree(town.table, output)
    with monkeypatch.context() as patch, pytest.raises(InputError, match="disk full"):
        patch.setattr("zonal.findings.map.draw.write_cog", full)
        taken(town, output)
    result, _ = taken(town, output, steps="pca")
    assert {Path(file).name for file in result.files["pca"]} == MADE["pca"]


def test_a_new_table_also_removes_files_that_were_being_replaced(
    town: Town, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Folder.move

    def killed(self: Folder, name: str, target: str) -> None:
        if target == "pca.json":
            raise KeyboardInterrupt
        old(self, name, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Folder, "move", killed)
        taken(town, output, pca={"resolution": 20}, steps="pca")
    taken(town, output, fresh=True, steps="stats")
    assert {path.name for path in output.iterdir()} == {"stats.parquet", "manifest.json"}


def test_an_output_in_use_is_left_alone(town: Town, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = times(output)
    with locked(Folder(str(output / ".work"))), pytest.raises(LockedError):
        monkeypatch.setenv("ZONAL_OWNER", "somebody else")
        taken(town, output, pca={"resolution": 20}, steps="pca")
    assert changed(before, output) == set()


def test_a_lone_table_has_its_files_beside_it(output: Path, tmp_path: Path) -> None:
    table = tmp_path / "mine.parquet"
    frame = gpd.read_parquet(output / "stats.parquet").drop(columns=["bbox"], errors="ignore")
    keep = [name for name in frame if name.endswith(("_mean", "_std"))]
    frame[["GEOID20", *keep, "geometry"]].rename(columns={"GEOID20": "id"}).to_parquet(table)
    before = set(tmp_path.iterdir())
    for step in ("pca", "evaluate"):
        done = zonal(step, table, "--quiet", folder=tmp_path)
        assert done.returncode == 0, done.stderr
    made = {path.name for path in {*tmp_path.iterdir()} - before}
    assert made == {"mine-map.tif", "mine-map.png", "mine-map.json", "mine-map.qml"} | {
        "mine-evaluation.json",
        "mine-evaluation.md",
    }


def test_what_is_asked_wrongly_of_a_table_is_a_usage_error(output: Path, tmp_path: Path) -> None:
    table = str(output / "stats.parquet")
    for step, target, says in (
        ("pca", str(tmp_path / "map.png"), "expected a name that ends in .tif"),
        ("report", None, "a report is about a run"),
        ("pca", str(output / "pca.tif"), "a run's own file; leave --output out"),
    ):
        with pytest.raises(UsageError, match=says):
            steps.take(load(None, {"steps": step, "output": table}), target)


def test_the_commands_make_an_outputs_files_anew(output: Path) -> None:
    for step in MADE:
        before = times(output)
        done = zonal(step, output, folder=output.parent)
        assert done.returncode == 0, done.stderr
        assert changed(before, output) == MADE[step]
        assert {Path(line).name for line in done.stdout.splitlines()} == MADE[step]


@pytest.mark.parametrize(
    ("number", "code"), [pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow), (signal.SIGKILL, -9)]
)
def test_a_run_stopped_in_a_step_keeps_what_is_done_and_goes_on_there(
    town: Town, tmp_path: Path, number: int, code: int
) -> None:
    output = tmp_path / "out"
    shutil.copytree(town.table, output)
    ids = gpd.read_parquet(output / "stats.parquet", columns=["GEOID20", "geometry"])["GEOID20"]
    served = tmp_path / "served"
    served.mkdir()
    pd.DataFrame({"GEOID20": ids, "rent": range(len(ids))}).to_csv(served / "rent.csv", index=False)
    with http_server(served) as server:
        server.gate.clear()  # the attributes never come: the run hangs in the evaluation
        more = {"evaluate": {"attributes": f"{server.url}/rent.csv"}, "stall": 300}
        workflow = tmp_path / "mine.yaml"  # JSON is YAML too
        workflow.write_text(
            json.dumps(asked(town.sample, output, **more).model_dump(mode="json", exclude_unset=True))
        )
        command = [sys.executable, "-m", "zonal", "run", str(workflow)]
        with subprocess.Popen(command, env=clean_environment(), stderr=subprocess.PIPE, text=True) as process:
            try:
                wait_for(
                    lambda: (output / "pca.tif").exists() or process.poll() is not None, "no map was made"
                )
                wait_for(lambda: server.asked or process.poll() is not None, "nothing was asked for")
                assert process.poll() is None, process.stderr and process.stderr.read()
                process.send_signal(number)
                process.wait(300)
            finally:
                process.kill()
        server.gate.set()
        assert process.returncode == code
        kept = {"stats.parquet", "manifest.json", "steps.json"} | MADE["pca"]
        assert {path.name for path in output.iterdir()} - {".work"} == kept
        before = times(output)
        done = zonal("run", workflow, folder=tmp_path, ZONAL_OWNER="the same")
        assert done.returncode == 0, done.stderr
    assert changed(before, output) == MADE["evaluate"] | MADE["report"]
    assert {path.name for path in output.iterdir()} == kept | MADE["evaluate"] | MADE["report"]


def test_an_output_on_s3_has_the_same_files(town: Town, whole: Path, s3: S3Server) -> None:
    fs = s3.filesystem()
    fs.mkdirs("findings", exist_ok=True)
    fs.put(f"{town.table}/", "findings/town/", recursive=True)
    taken(town, "s3://findings/town", storage_options={"s3": s3.options})  # type: ignore[arg-type]
    assert {key.removeprefix("town/") for key in s3.keys("findings")} == {
        path.name for path in whole.iterdir()
    }
    for name in sorted(MADE["pca"] | MADE["evaluate"]):
        here, there = (whole / name).read_bytes(), fs.cat_file(f"findings/town/{name}")
        assert without_place(here) == without_place(there), name


def without_place(data: bytes) -> bytes:
    """An evaluation and a map's figures name the table that they are of."""
    return b"" if b"findings/town" in data or b"/whole" in data else data


def test_several_states_and_years_have_a_map_each_and_one_evaluation(wide_seam: Seam, tmp_path: Path) -> None:
    words = {"state": "WA,OR", "year": "2023,2024", "mirror": str(wide_seam.mirror), "keep_water": True}
    settings = load(None, words | {"output": str(tmp_path / "out"), **FINE})
    results = steps.run(settings, runner=HERE)
    assert len(results) == 2
    for result in results:
        folder = Path(result.output)
        assert {path.name for path in (folder / "pca").iterdir()} == {
            *(f"state={state}.{end}" for state in ("OR", "WA") for end in ("tif", "png"))
        }
        assert (folder / "evaluation.json").exists() and (folder / "report.html").exists()
    again = steps.run(settings, runner=HERE)
    assert [result.files for result in again] == [result.files for result in results]
    steps.run(settings.model_copy(update={"steps": ("stats",)}), fresh=True, runner=HERE)
    assert not (Path(results[0].output) / "pca").exists()


def test_status_names_what_the_steps_made(output: Path) -> None:
    done = zonal("status", output, "--json", folder=output.parent)
    assert {*json.loads(done.stdout)["findings"]} == set().union(*MADE.values())
