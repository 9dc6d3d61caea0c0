"""Files of an output are whole or not there: full disks, lost stores, kills at the worst moment."""

from __future__ import annotations

import gc
import json
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builds import Run
from faulty_proxy import FAULTS, faulty_proxy, seeded
from servers import S3Server
from town import Stopping, Town, Unplugged, ended, parts_of

from zonal.cluster.runner import Threads
from zonal.config.settings import Settings
from zonal.engine.output import Output
from zonal.engine.run import Result, run
from zonal.engine.status import status_of
from zonal.errors import InputError, OtherRunError, ZonalError
from zonal.io.store.folder import Folder
from zonal.io.store.lock import locked


@pytest.fixture
def reference(town_table: Run) -> bytes:
    return town_table.bytes


def here(town: Town, output: Path, *, fresh: bool = False, parts: int = -1, **more: Any) -> Result:
    """Run in this process, to the end or until some parts are written."""
    runner = Threads(2) if parts < 0 else Stopping(parts)
    (result,) = run(Settings(**town.settings(output, **more)), runner=runner, fresh=fresh)
    return result


def names(output: Path) -> list[str]:
    return sorted(path.name for path in output.iterdir())


# ------------------------------------------------------------------ killed at the worst moment

KILLED = """
import json, os, signal, sys
from zonal.cluster.runner import Threads
from zonal.engine.run import run
from zonal.io.store.folder import Folder
from zonal.config.settings import Settings

name, target, settings = sys.argv[1:]
real = getattr(Folder, name)

def deadly(self, *words):
    if self.shown(words[-2 if name == "write_json" else -1]).endswith(target):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, *words)

setattr(Folder, name, deadly)
run(Settings(**json.loads(settings)), runner=Threads(1))
"""


def killed_at(town: Town, output: Path, name: str, target: str) -> None:
    """Run in another process, which is killed when it is about to call a method of its folder for a file."""
    settings = json.dumps(town.settings(output))
    done = ended([sys.executable, "-c", KILLED, name, target, settings])
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize(
    ("name", "target", "left"),
    [
        ("write_json", ".work/run.json", [".work"]),
        ("move", "out/stats.parquet", [".work"]),
        ("move", "out/manifest.json", [".work", "stats.parquet"]),
    ],
)
def test_a_run_killed_before_its_manifest_is_no_finished_run_and_goes_on(
    town: Town, reference: bytes, tmp_path: Path, name: str, target: str, left: list[str]
) -> None:
    output = tmp_path / "out"
    killed_at(town, output, name, target)
    assert names(output) == left
    if "stats.parquet" in left:
        assert (output / "stats.parquet").read_bytes() == reference, "whole, though not published"
    assert status_of(Folder(str(output))).state == "unfinished"
    assert parts_of(output) == (0 if target.endswith("run.json") else 26)
    assert here(town, output).fresh
    assert (output / "stats.parquet").read_bytes() == reference
    assert names(output) == ["manifest.json", "stats.parquet"]


def test_a_run_killed_after_its_manifest_is_finished(town: Town, reference: bytes, tmp_path: Path) -> None:
    output = tmp_path / "out"
    killed_at(town, output, "remove", ".work/run.json")
    assert (output / ".work/run.json").exists()
    assert status_of(Folder(str(output))).state == "finished"
    assert not here(town, output).fresh
    with pytest.raises(OtherRunError, match="holds a finished run"):
        here(town, output, coverage="center")
    assert names(output) == ["manifest.json", "stats.parquet"], "who came with the lock has tidied up"
    assert (output / "stats.parquet").read_bytes() == reference


def test_drafts_of_a_killed_process_are_removed_and_nothing_else(town: Town, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with pytest.raises(Unplugged):
        here(town, output, parts=3)
    (parts,) = output.glob(".work/parts-*")
    drafts = [output / f".stats.parquet.{'a' * 32}.tmp", parts / f".part-00009.parquet.{'b' * 32}.tmp"]
    mine = [output / f".thesis.{'a' * 32}.tmp", output / ".stats.parquet.tmp"]
    for path in (*drafts, *mine):
        path.write_bytes(b"half a file")
    with Output(Folder(str(output))).locked(fresh=False):
        assert [path.exists() for path in (*drafts, *mine)] == [False, False, True, True]
    assert parts_of(output) == 3


# ------------------------------------------------------------------ publishing fails


@pytest.mark.parametrize("target", ["stats.parquet", "manifest.json"])
def test_a_run_that_cannot_publish_leaves_nothing_under_a_final_name(
    town: Town, reference: bytes, tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    real = Path.replace

    def full(self: Path, final: Path) -> Path:
        if final == output / target:
            raise OSError(28, "No space left on device")
        return real(self, final)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(InputError, match=r"cannot write to .*out: No space left on device") as caught:
            here(town, output)
    assert caught.value.exit_code == 3
    assert names(output) == [".work"]
    assert not (output / ".work/lock.json").exists()
    with pytest.raises(Unplugged):  # no part is missing: nothing runs
        run(Settings(**town.settings(output)), runner=Nothing(0))
    assert (Path(here(town, output).table)).read_bytes() == reference


class Nothing(Stopping):
    """Refuses to run a task."""

    def run(self, graph: dict[Any, Any], keys: Any, avoid: Collection[str] = ()) -> Iterator[tuple[Any, Any]]:
        assert not keys
        raise Unplugged


# ------------------------------------------------------------------ a finished run that is replaced


def test_a_finished_table_stays_whole_until_the_run_that_replaces_it_publishes(
    town: Town, reference: bytes, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    old = here(town, output)
    other = {"coverage": "center"}
    with pytest.raises(Unplugged):
        here(town, output, fresh=True, parts=4, **other)
    assert (output / "stats.parquet").read_bytes() == reference
    assert json.loads((output / "manifest.json").read_text()) == old.manifest
    again = here(town, output)
    assert not again.fresh and again.manifest == old.manifest, "its own command: nothing to do"
    assert parts_of(output) == 4, "and the other run is as it was"
    with pytest.raises(OtherRunError, match=r"holds an unfinished run: its (coverage|stats) is"):
        here(town, output, stats="mean")
    new = here(town, output, **other)  # goes on, without --fresh
    assert new.fresh and new.manifest["settings"]["coverage"] == "center"
    assert (output / "stats.parquet").read_bytes() != reference
    assert names(output) == ["manifest.json", "stats.parquet"]


def test_a_run_that_is_made_anew_uses_no_older_part_and_goes_on_by_the_plain_command(
    town: Town, reference: bytes, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with pytest.raises(Unplugged):
        here(town, output, parts=9)
    with pytest.raises(Unplugged):
        here(town, output, fresh=True, parts=2)
    assert parts_of(output) == 2
    old = here(town, output)
    with pytest.raises(Unplugged):
        here(town, output, fresh=True, parts=5)  # the same run over its own finished table
    assert parts_of(output) == 5
    assert (output / "stats.parquet").read_bytes() == reference
    new = here(town, output)
    assert new.fresh and new.manifest["fingerprint"] == old.manifest["fingerprint"]
    assert not here(town, output).fresh
    assert (output / "stats.parquet").read_bytes() == reference


# ------------------------------------------------------------------ a full disk

FULL = """
mkdir -p {out}
mount -t tmpfs -o size={size} none {out}
{run}; echo "code $?"
echo "left $(ls -A {out} | tr '\\n' ' ')"
echo "work $(ls -A {out}/.work | tr '\\n' ' ')"
echo "parts $(ls {out}/.work/parts-*/part-*.parquet 2>/dev/null | wc -l)"
mount -o remount,size=64m {out}
{run}; echo "then $?"
cp {out}/stats.parquet {copy}
"""


def may_mount() -> bool:
    try:
        asked = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]
        return subprocess.run(asked, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not may_mount(), reason="no user namespaces here: a small disk cannot be mounted")
@pytest.mark.parametrize(
    ("size", "some"),
    [
        pytest.param("900k", True, id="in the middle of parts"),
        pytest.param("1900k", False, id="at the table"),
    ],
)
def test_a_full_disk_is_one_sentence_and_the_run_goes_on_when_there_is_room(
    town: Town, reference: bytes, tmp_path: Path, size: str, some: bool
) -> None:
    output, copy = tmp_path / "out", tmp_path / "copy.parquet"
    words = {"out": output, "copy": copy, "run": shlex.join(town.command(output)), "size": size}
    done = ended(["unshare", "-rm", "sh", "-c", FULL.format(**words)])
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    assert said["code"] == "3", done.stderr
    sentences = [line for line in done.stderr.splitlines() if line.startswith("zonal: ")]
    assert len(sentences) == 1
    assert "cannot write to" in sentences[0] and sentences[0].endswith("No space left on device")
    assert "Traceback" not in done.stderr
    assert "stats.parquet" not in said["left"] and "manifest.json" not in said["left"]
    assert "lock.json" not in said["work"]
    assert 3 <= int(said["parts"]) < 26 if some else int(said["parts"]) == 26
    assert f"{said['parts']} of 26 parts are there already" in done.stderr
    assert said["then"] == "0"
    assert copy.read_bytes() == reference


# ------------------------------------------------------------------ object stores


@pytest.fixture(scope="module")
def bucket(s3: S3Server) -> S3Server:
    s3.filesystem().makedirs("atomic", exist_ok=True)
    return s3


def test_three_of_ten_requests_may_fail_and_every_effect_happens_as_asked(bucket: S3Server) -> None:
    with faulty_proxy(bucket.url, seeded(4, 0.3)) as proxy:
        folder = Folder("s3://atomic/faults", replace(bucket, url=proxy.url).options)

        def all_of_it(number: int) -> None:
            mine = folder.sub(f"{number}")
            data = bytes([number]) * 50_000
            assert mine.claim("lock", data)
            assert not mine.claim("lock", b"")
            mine.write("a", data)
            assert mine.read("a") == data
            mine.copy("a", "b")
            mine.move("a", "c")
            assert mine.names() == ["b", "c", "lock"]
            assert mine.entries()["c"].size == len(data)
            assert mine.read("c") == data
            mine.remove("b")
            assert not mine.exists("b")
            assert mine.exists("c")

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(all_of_it, range(6)))
        assert all(proxy.seen[fault] for fault in FAULTS), proxy.seen
    found = [name for name in bucket.keys("atomic") if name.startswith("faults/")]
    assert found == [f"faults/{n}/{name}" for n in range(6) for name in ("c", "lock")]


def large(folder: Path) -> Path:
    """A file that travels in parts: 50 MB each, from 100 MB on."""
    path = folder / "large"
    with path.open("wb") as file:
        file.truncate(101 * 2**20)
    return path


def test_an_upload_that_fails_in_its_middle_leaves_no_file_and_no_open_upload(
    bucket: S3Server, tmp_path: Path
) -> None:
    def second_part(method: str, path: str) -> str | None:
        return "forbidden" if "partNumber=2" in path else None

    with faulty_proxy(bucket.url, second_part) as proxy:
        folder = Folder("s3://atomic/large", replace(bucket, url=proxy.url).options)
        with (
            pytest.raises(ZonalError, match="cannot write to s3://atomic/large"),
            folder.create("table") as draft,
        ):
            large(tmp_path).rename(draft)
        assert proxy.seen["forbidden"], "the upload had begun"
    assert not [name for name in bucket.keys("atomic") if name.startswith("large/")]


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Have SIGINT raise KeyboardInterrupt where it arrives, whatever tests before this one left."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    # An error that is raised while Dask looks at a collection of garbage goes no further.
    gc.disable()
    yield
    gc.enable()
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_upload_that_a_signal_ends_leaves_no_file_and_no_open_upload(
    bucket: S3Server, tmp_path: Path
) -> None:
    reached, stopped = threading.Event(), threading.Event()

    def wait_at_second_part(method: str, path: str) -> str | None:
        if "partNumber=2" in path:
            if not reached.is_set():
                reached.set()
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            stopped.wait(20)
        return None

    with faulty_proxy(bucket.url, wait_at_second_part) as proxy:
        folder = Folder("s3://atomic/signal", replace(bucket, url=proxy.url).options)
        with pytest.raises(KeyboardInterrupt), folder.create("table") as draft:
            large(tmp_path).rename(draft)
        open_ones = [name for name in bucket.keys("atomic") if name.startswith("signal/")]
        stopped.set()
    assert open_ones == []
    assert not [name for name in bucket.keys("atomic") if name.startswith("signal/")]


def test_uploads_that_a_killed_run_left_are_ended_by_the_next_and_no_others(bucket: S3Server) -> None:
    fs = bucket.filesystem()
    ours = [
        "out/stats.parquet",
        "out/.work/parts-1/part-00001.parquet",
        "out/stats/state=WA/part-00001.parquet",
    ]
    others = ["out/thesis.parquet", "out2/stats.parquet", "stats.parquet"]
    for key in (*ours, *others):
        fs.call_s3("create_multipart_upload", Bucket="atomic", Key=f"uploads/{key}")
    with Output(Folder("s3://atomic/uploads/out", bucket.options)).locked(fresh=False):
        pass
    left = [name for name in bucket.keys("atomic") if name.startswith("uploads/")]
    assert sorted(left) == sorted(f"uploads/{key} (unfinished upload)" for key in others)


def test_a_run_stopped_on_s3_goes_on_there(town: Town, reference: bytes, bucket: S3Server) -> None:
    options = {"storage_options": {"s3": bucket.options}}
    given = Settings(**town.settings("s3://atomic/resumed", **options))
    with pytest.raises(Unplugged):
        run(given, runner=Stopping(7))
    folder = Folder("s3://atomic/resumed", bucket.options)
    seen = status_of(folder)
    assert (seen.state, seen.parts) == ("unfinished", (7, 26)) and seen.moved
    (result,) = run(given, runner=Threads(2))
    assert folder.read("stats.parquet") == reference
    assert folder.names() == ["manifest.json", "stats.parquet"]
    assert status_of(folder).table_bytes == len(reference)
    assert bucket.secret not in json.dumps(result.manifest) + str(seen) + seen.as_json()


def test_of_two_runs_on_s3_one_has_the_lock(bucket: S3Server) -> None:
    folder = Folder("s3://atomic/lock", bucket.options)
    with locked(folder), pytest.raises(ZonalError, match="in use by process"), locked(folder):
        pass
    assert folder.names() == []
