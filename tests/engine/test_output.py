from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from zonal.engine.output import Output
from zonal.errors import LockedError, StoreError
from zonal.io.store.folder import Folder
from zonal.io.store.lock import Lock, locked
from zonal.io.table.names import LOCK, MANIFEST, RUN_FILE, TABLE, WORK

DATASET_FILES = ["stats/state=RI/part-00000.parquet", "stats/state=WA/part-00001.parquet"]


@pytest.fixture
def output(tmp_path: Path) -> Output:
    return Output(Folder(str(tmp_path / "out")))


@pytest.fixture
def lock(output: Output) -> Iterator[Lock]:
    with locked(output.folder.sub(WORK)) as lock:
        yield lock


def assembled(output: Output) -> Folder:
    """What a run has made when it begins to publish."""
    parts = output.folder.sub(WORK).sub("parts-mine")
    for name in ("part-00000.parquet", "part-00001.parquet", TABLE):
        parts.write(name, b"mine")
    output.folder.write_json(RUN_FILE, {"fingerprint": "mine"})
    return parts


def stopped_in_mid_publishing(
    monkeypatch: pytest.MonkeyPatch, output: Output, lock: Lock, files: list[str]
) -> None:
    """Have this process sleep when the first file has its name, and another run publish meanwhile."""
    act = Folder.move if files == [TABLE] else Folder.copy

    def stop(folder: Folder, name: str, target: str) -> None:
        act(folder, name, target)
        monkeypatch.undo()
        folder.write_json(f"{WORK}/{LOCK}", {"holder": "another"})
        folder.remove(f"{WORK}/parts-mine")
        for file in files:
            folder.write(file, b"theirs")
        folder.write_json(MANIFEST, {"fingerprint": "theirs", "files": files})
        lock._seen -= 1e6

    monkeypatch.setattr(Folder, act.__name__, stop)


@pytest.mark.parametrize("files", [[TABLE], DATASET_FILES])
def test_a_run_that_lost_its_lock_while_it_published_leaves_what_another_published(
    output: Output, lock: Lock, monkeypatch: pytest.MonkeyPatch, files: list[str]
) -> None:
    parts = assembled(output)
    stopped_in_mid_publishing(monkeypatch, output, lock, files)
    with pytest.raises(LockedError):
        output.commit({"fingerprint": "mine", "files": files}, parts, lock)
    assert {output.folder.read(name) for name in files} == {b"theirs"}
    assert output.published() == {"fingerprint": "theirs", "files": files}


def test_a_run_whose_publishing_failed_withdraws_nothing_that_another_run_published(
    output: Output, lock: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = assembled(output)

    def fail(folder: Folder, name: str, target: str) -> None:
        folder.write_json(f"{WORK}/{LOCK}", {"holder": "another"})
        folder.write(target, b"theirs")
        raise StoreError("gone")

    monkeypatch.setattr(Folder, "move", fail)
    with pytest.raises(StoreError):
        output.commit({"fingerprint": "mine", "files": [TABLE]}, parts, lock)
    assert output.folder.read(TABLE) == b"theirs"


def test_a_run_whose_publishing_failed_withdraws_its_own(
    output: Output, lock: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, move = assembled(output), Folder.move

    def fail(folder: Folder, name: str, target: str) -> None:
        if target == MANIFEST:
            raise StoreError("gone")
        move(folder, name, target)

    monkeypatch.setattr(Folder, "move", fail)
    with pytest.raises(StoreError):
        output.commit({"fingerprint": "mine", "files": [TABLE]}, parts, lock)
    assert output.folder.names() == [WORK]


def test_a_run_that_ends_this_very_moment_is_not_taken_for_a_table_of_another_program(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, exists = output.folder, Folder.exists
    folder.write_json(RUN_FILE, {"fingerprint": "mine"})
    folder.write(TABLE, b"table")

    def ends_meanwhile(self: Folder, name: str = "") -> bool:
        found = exists(self, name)
        if not exists(folder, MANIFEST):
            folder.write_json(MANIFEST, {"fingerprint": "mine", "files": [TABLE]})
            folder.remove(RUN_FILE)
        return found

    monkeypatch.setattr(Folder, "exists", ends_meanwhile)
    with output.locked(fresh=False):
        assert output.published()
