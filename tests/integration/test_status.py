"""What `zonal status` says of an output, and that it only looks."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from builds import Run
from servers import S3Server, http_server, zonal
from town import Stopping, Town, Unplugged

from zonal.config.settings import Settings
from zonal.engine.run import run
from zonal.engine.status import Status, status_of
from zonal.errors import InputError
from zonal.io.store.folder import Folder
from zonal.io.store.lock import locked
from zonal.io.table.names import LOCK


@pytest.fixture
def stopped(town: Town, tmp_path: Path) -> Path:
    """An output with 7 of 26 parts."""
    with pytest.raises(Unplugged):
        run(Settings(**town.settings(tmp_path / "out")), runner=Stopping(7))
    return tmp_path / "out"


@pytest.fixture
def finished(town_table: Run) -> Path:
    return town_table.folder


def look(output: Path) -> Status:
    return status_of(Folder(str(output)))


def everything(output: Path) -> dict[str, tuple[int, bytes]]:
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes() if p.is_file() else b"") for p in output.rglob("*")}


def test_an_unfinished_output_tells_what_is_done_and_left_and_is_not_touched(
    town: Town, stopped: Path, tmp_path: Path
) -> None:
    before = everything(stopped)
    done = zonal("status", "out", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = dict(
        line.split(maxsplit=1) for line in done.stdout.replace("zones done", "zones_done").splitlines()
    )
    assert lines["status"] == "unfinished"
    assert lines["parts"] == "7 of 26, 19 left"
    assert lines["zones_done"] == "140 of 520, 380 left"
    assert lines["coverage"] == "fractional" and lines["year"] == "2024"
    assert (lines["state"], lines["zones"]) == ("WA", "census_blocks_2020")
    assert lines["next"] == "the same command goes on where it stopped"
    assert re.search(r"^last step +20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00$", done.stdout, re.MULTILINE)
    assert everything(stopped) == before


def test_a_finished_output_tells_of_its_table(finished: Path, tmp_path: Path) -> None:
    done = zonal("status", finished, "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    table = finished / "stats.parquet"
    assert (found["state"], found["table"], found["table_zones"]) == ("finished", str(table), 520)
    assert found["table_bytes"] == table.stat().st_size
    assert found["parts"] is found["holder"] is None
    assert found["moved"] and found["settings"]["raster"] == ["aef_annual"]
    assert found["next"] == "nothing; the same command again has nothing to do"
    assert "table " in str(look(finished)) and "520 zones" in str(look(finished))


def test_a_held_output_is_running_and_its_holder_is_named(stopped: Path) -> None:
    with locked(Folder(str(stopped)).sub(".work")):
        seen = look(stopped)
        assert seen.state == "running" and seen.parts == (7, 26)
        assert re.search(r"process \d+ on .* since .*, last sign of life ", str(seen))
    assert look(stopped).state == "unfinished"


def test_before_its_parts_are_known_a_run_is_running(tmp_path: Path) -> None:
    with locked(Folder(str(tmp_path / "out/.work"))):
        seen = look(tmp_path / "out")
    assert (seen.state, seen.parts, seen.settings) == ("running", None, {})


def test_a_lock_without_signs_of_life_is_not_running(stopped: Path) -> None:
    facts = {"host": "elsewhere", "process": 12, "beat": "2020-01-01T00:00:00+00:00", "since": "2020"}
    (stopped / ".work" / LOCK).write_text(json.dumps(facts))
    seen = look(stopped)
    assert seen.state == "unfinished" and "process 12 on elsewhere" in (seen.holder or "")
    assert "once it has seen that the lock's holder is gone" in seen.next


def test_a_finished_table_that_is_being_replaced_is_told_of_too(
    town: Town, finished: Path, tmp_path: Path
) -> None:
    output = Path(shutil.copytree(finished, tmp_path / "out"))
    with pytest.raises(Unplugged):
        run(Settings(**town.settings(output, coverage="center")), runner=Stopping(3), fresh=True)
    seen = look(output)
    assert (seen.state, seen.parts, seen.settings["coverage"]) == ("unfinished", (3, 26), "center")
    assert seen.table == str(output / "stats.parquet")
    assert "it stays until the new one replaces it" in str(seen)


@pytest.mark.parametrize("what", ["nothing", "a folder of the user's", "a file"])
def test_where_there_is_no_output_the_exit_code_is_3(tmp_path: Path, what: str) -> None:
    if what == "a folder of the user's":
        (tmp_path / "here").mkdir()
        (tmp_path / "here/thesis.txt").write_text("years of work")
    elif what == "a file":
        (tmp_path / "here").write_text("")
    with pytest.raises(InputError, match="here: no output of zonal here, finished or begun") as caught:
        look(tmp_path / "here")
    assert caught.value.exit_code == 3


def test_a_status_over_http_and_s3_reads_and_hides_credentials(
    finished: Path, s3: S3Server, tmp_path: Path
) -> None:
    s3.upload(finished, "looked-at", "out")
    done = zonal("status", "s3://looked-at/out", folder=tmp_path, **s3.environment)
    assert done.returncode == 0, done.stderr
    assert "finished" in done.stdout and "s3://looked-at/out/stats.parquet, 520 zones" in done.stdout
    assert s3.secret not in done.stdout + done.stderr
    with http_server(finished.parent, login="me:pa55word") as server:
        url = server.url.replace("://", "://me:pa55word@")
        seen = status_of(Folder(f"{url}/out"))
    assert seen.state == "finished" and seen.table == f"{server.url}/out/stats.parquet"
    assert "pa55word" not in str(seen) + seen.as_json()
    with pytest.raises(InputError, match="s3://looked-at/elsewhere: no output of zonal here"):
        status_of(Folder("s3://looked-at/elsewhere", replace(s3).options))
