from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from zonal.errors import InputError, LockedError, StoreError
from zonal.io.folder import LOCK, Folder


@pytest.fixture(params=["disk", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    """The same promises on a disk and on a store (fsspec's own, in memory)."""
    if request.param == "disk":
        return Folder(str(tmp_path / "out"))
    return Folder(f"memory://{tmp_path.name}/out")


def test_what_is_written_is_read_back_and_listed(folder: Folder) -> None:
    assert folder.names() == []
    assert not folder.exists("a.json")
    folder.write_json("a.json", {"b": 1, "a": "é"})
    folder.write("sub/b.bin", b"bytes")
    assert folder.read_json("a.json") == {"b": 1, "a": "é"}
    assert folder.sub("sub").read("b.bin") == b"bytes"
    assert folder.names() == ["a.json", "sub"]
    assert folder.names("sub") == ["b.bin"]


def test_a_file_appears_only_when_its_writing_ended_without_error(folder: Folder) -> None:
    with pytest.raises(RuntimeError), folder.create("table") as draft:
        draft.write_bytes(b"half")
        assert not folder.exists("table")
        raise RuntimeError
    assert folder.names() == []


def test_an_interrupted_overwrite_leaves_the_old_file(folder: Folder) -> None:
    folder.write("table", b"old")
    with pytest.raises(KeyboardInterrupt), folder.create("table") as draft:
        draft.write_bytes(b"new, but only ha")
        raise KeyboardInterrupt
    assert folder.read("table") == b"old"


def test_copies_and_removals_take_whole_folders(folder: Folder) -> None:
    folder.write("work/a", b"1")
    folder.copy("work/a", "final/b")
    folder.remove("work")
    folder.remove("never there")
    assert folder.read("final/b") == b"1"
    assert folder.names() == ["final"]


def test_a_folder_that_is_not_of_zonal_is_said_to_be_none(folder: Folder) -> None:
    folder.write("manifest.json", b"not json")
    with pytest.raises(InputError, match=r"manifest.json is not JSON .*; is it a folder of zonal\?"):
        folder.read_json("manifest.json")
    folder.write("manifest.json", b"[1]")
    with pytest.raises(InputError, match="is not a JSON object"):
        folder.read_json("manifest.json")


def test_an_output_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write to .*file/out: Not a directory"):
        Folder(str(tmp_path / "file" / "out")).write("a", b"")


def test_a_lock_is_held_against_a_live_process_and_freed_after(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        folder.write_json(LOCK, {"host": socket.gethostname(), "process": other.pid})
        with pytest.raises(LockedError, match=f"in use by process {other.pid} on "), folder.locked():
            pass
        other.communicate(b"\n")
    with folder.locked():  # its owner is gone: taken over
        held = folder.read_json(LOCK)
        assert held is not None
        assert held["process"] == os.getpid()
    assert not folder.exists(LOCK)


def test_a_lock_of_another_machine_is_not_judged_from_here(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    folder.write_json(LOCK, {"host": "elsewhere", "process": 1})
    with pytest.raises(LockedError, match="on elsewhere"), folder.locked():
        pass


def test_options_never_show(tmp_path: Path) -> None:
    assert "secret" not in repr(Folder("s3://bucket/out", {"key": "me", "secret": "s3cr3t-secret"}))


def test_a_second_holder_in_the_same_process_is_refused_and_leaves_the_lock(folder: Folder) -> None:
    with folder.locked():
        with pytest.raises(LockedError, match=f"in use by process {os.getpid()} on "), folder.locked():
            pass
        assert folder.exists(LOCK)
    assert not folder.exists(LOCK)


def test_the_lock_of_an_ended_process_with_our_number_is_taken_over(folder: Folder) -> None:
    folder.write_json(LOCK, {"host": socket.gethostname(), "process": os.getpid(), "session": "before"})
    with folder.locked():
        assert folder.exists(LOCK)


@pytest.mark.parametrize(
    ("url", "says"),
    [("foo://bucket/x", "Protocol not known: foo"), ("gs://bucket/x", "Please install gcsfs")],
)
def test_a_store_that_nothing_here_opens_is_one_sentence(
    url: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(InputError, match=f"{url}: cannot be opened: .*{says}"):
        Folder(url).exists("a")


class _Gone(MemoryFileSystem):  # type: ignore[misc]
    """A store that stopped to answer."""

    protocol = "gone"

    def _fail(self, *_: object, **__: object) -> None:
        raise ConnectionError("no route to https://me:s3cr3t-secret@host/x?sig=s3cr3t-secret")

    exists = ls = find = cat_file = put_file = rm = cp_file = _fail


def test_a_store_that_does_not_answer_is_one_sentence_without_credentials() -> None:
    fsspec.register_implementation("gone", _Gone, clobber=True)
    folder = Folder("gone://bucket/out", {"secret": "s3cr3t-secret"})
    effects: list[Callable[[], object]] = [
        lambda: folder.exists("a"),
        folder.names,
        folder.below,
        lambda: folder.read_json("a"),
        lambda: folder.write("a", b""),
        lambda: folder.remove("a"),
        lambda: folder.copy("a", "b"),
    ]
    for effect in effects:
        with pytest.raises(StoreError, match=r"cannot \w+( \w+)? gone://bucket/out: .*no route") as caught:
            effect()
        assert "s3cr3t" not in str(caught.value)


def test_what_failed_first_is_told_when_the_lock_cannot_be_released(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder("memory://first/out")

    def broken(*_: object, **__: object) -> None:
        raise ConnectionError("later")

    with pytest.raises(InputError, match="the first"), folder.locked():
        monkeypatch.setattr(MemoryFileSystem, "cat_file", broken)
        raise InputError("the first")
