from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
import pytest
from botocore.exceptions import ClientError
from fsspec.implementations.memory import MemoryFileSystem

import zonal.io.store.folder
from zonal.errors import InputError, StoreError
from zonal.io.store.folder import Folder


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


def test_a_file_and_then_its_name_reach_the_disk_before_the_writer_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[int, bool]] = []
    real = os.fsync

    def recorded(number: int) -> None:
        synced.append((os.fstat(number).st_ino, (tmp_path / "sub/table").exists()))
        real(number)

    monkeypatch.setattr(os, "fsync", recorded)
    Folder(str(tmp_path)).write("sub/table", b"1")
    here, sub, table = (path.stat().st_ino for path in (tmp_path, tmp_path / "sub", tmp_path / "sub/table"))
    assert synced == [(here, False), (table, False), (sub, True)]


def test_copies_and_removals_take_whole_folders(folder: Folder) -> None:
    folder.write("work/a", b"1")
    folder.copy("work/a", "final/b")
    folder.remove("work")
    folder.remove("never there")
    assert folder.read("final/b") == b"1"
    assert folder.names() == ["final"]


def test_a_removal_takes_names_as_they_are_and_not_as_patterns(folder: Folder) -> None:
    mine, others = folder.sub("run[1]*"), folder.sub("run1")
    for each in (mine, others):
        each.write("work/part", b"")
        each.write("table", b"")
    mine.remove("table")
    mine.remove("work")
    assert (mine.names(), others.names()) == ([], ["table", "work"])


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


@pytest.mark.parametrize("act", [lambda folder: folder.read("a"), lambda folder: folder.write("a", b"")])
@pytest.mark.parametrize("name", ["x" * 300, "loop"])
def test_a_name_that_no_disk_takes_is_not_worth_another_try(
    tmp_path: Path, name: str, act: Callable[[Folder], Any]
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError, match=r"(?i)name too long|symbolic links|file exists"):
        act(Folder(str(tmp_path / name)))


def test_options_never_show(tmp_path: Path) -> None:
    assert "secret" not in repr(Folder("s3://bucket/out", {"key": "me", "secret": "s3cr3t-secret"}))


@pytest.mark.parametrize(
    ("url", "says"),
    [("foo://bucket/x", "Protocol not known: foo"), ("gs://bucket/x", r"pip install 'zonal\[gs\]'")],
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

    exists = ls = find = cat_file = put_file = pipe_file = rm = cp_file = _fail


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
        lambda: folder.move("a", "b"),
        lambda: folder.claim("a", b""),
        folder.entries,
    ]
    for effect in effects:
        with pytest.raises(StoreError, match=r"cannot \w+( \w+)? gone://bucket/out: .*no route") as caught:
            effect()
        assert "s3cr3t" not in str(caught.value)


def test_a_file_is_claimed_by_the_first_only(folder: Folder) -> None:
    assert folder.claim("lock", b"first")
    assert not folder.claim("lock", b"second")
    assert folder.read("lock") == b"first"
    assert folder.names() == ["lock"], "no draft is left"


def test_a_disk_without_links_still_gives_a_file_to_the_first_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    folder = Folder(str(tmp_path))
    assert folder.claim("lock", b"first")
    assert not folder.claim("lock", b"second")
    assert (folder.read("lock"), folder.names()) == (b"first", ["lock"])


def test_a_claim_does_not_mind_a_run_that_ends_and_takes_its_empty_folder_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, make = Folder(str(tmp_path / "out" / ".work")), zonal.io.store.folder.make

    def pruned(path: Path) -> None:
        make(path)
        Folder(str(tmp_path / "out")).prune(".work")
        monkeypatch.undo()

    monkeypatch.setattr(zonal.io.store.folder, "make", pruned)
    assert folder.claim("lock", b"first")
    assert folder.read("lock") == b"first"


@pytest.mark.parametrize("links", [True, False])
def test_a_claim_that_finds_no_room_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, links: bool
) -> None:
    def link(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr(Path, "hardlink_to", link)
    folder = Folder(str(tmp_path / "out"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        with pytest.raises(InputError, match="File too large"):
            folder.claim("lock", b"more than there is room for")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert folder.names() == []


class _Racing(MemoryFileSystem):  # type: ignore[misc]
    """A store that says in its own way that another was faster."""

    protocol = "racing"
    status = 0

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        super().pipe_file(path, b"theirs")
        cause = ClientError({"Error": {}, "ResponseMetadata": {"HTTPStatusCode": self.status}}, "PutObject")
        raise OSError(errno.EINVAL, "another was faster") from cause


@pytest.mark.parametrize("status", [409, 412])
def test_who_is_refused_because_another_claims_at_the_same_time_was_not_the_first(
    monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    fsspec.register_implementation("racing", _Racing, clobber=True)
    monkeypatch.setattr(_Racing, "status", status)
    assert not Folder("racing://claims/out").claim("lock", b"ours")


class _Plain(MemoryFileSystem):  # type: ignore[misc]
    """A store whose client cannot create a file only where there is none."""

    protocol = "plain"

    def pipe_file(self, path: str, value: bytes) -> None:
        super().pipe_file(path, value)


def test_a_store_that_cannot_create_exclusively_is_written_to_plainly() -> None:
    fsspec.register_implementation("plain", _Plain, clobber=True)
    folder = Folder("plain://claims/out")
    assert folder.claim("lock", b"first")
    assert folder.claim("lock", b"second"), "whoever claims must read again"
    assert folder.read("lock") == b"second"


def test_a_moved_file_has_its_new_name_only_and_replaces_what_had_it(folder: Folder) -> None:
    folder.write("work/table", b"new")
    folder.write("table", b"old")
    folder.move("work/table", "table")
    assert folder.read("table") == b"new"
    assert folder.names("work") == []


def test_entries_tell_size_and_time(folder: Folder) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)
    folder.write("sub/a", b"123")
    folder.write("sub/deeper/b", b"")
    (name,), (entry,) = zip(*folder.entries("sub").items(), strict=True)
    assert (name, entry.size) == ("a", 3)
    assert entry.written is not None and before <= entry.written <= datetime.now(UTC)
    assert folder.entries("nowhere") == {}


def test_only_our_drafts_are_cleared_and_nothing_of_the_users(tmp_path: Path) -> None:
    draft = f".table.{'0' * 32}.tmp"
    for place in ("", ".work/", ".work/parts-1/", "mine/"):
        (tmp_path / place).mkdir(exist_ok=True)
        for name in (draft, ".table.tmp", ".other.0123.tmp", f".other.{'0' * 32}.tmp"):
            (tmp_path / place / name).write_text("")
    folder = Folder(str(tmp_path))
    folder.clear_drafts(lambda name: name.endswith("table"), ("", ".work/**/"))
    left = {path.relative_to(tmp_path).parent.as_posix() for path in tmp_path.rglob(draft)}
    assert left == {"mine"}
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 13


def test_a_folder_that_went_away_in_the_middle_of_a_write_is_one_sentence(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "out"))
    with pytest.raises(InputError, match=r"cannot write to .*out: No such file or directory"):  # noqa: SIM117
        with folder.create("table") as draft:
            draft.write_bytes(b"x")
            shutil.rmtree(tmp_path / "out")


def test_requests_to_an_s3_output_are_repeated_by_one_layer_only() -> None:
    fs = Folder(
        "s3://bucket/out", {"key": "me", "secret": "x", "config_kwargs": {"read_timeout": 5}}
    ).filesystem
    assert fs.retries == 1
    assert fs.config_kwargs["retries"] == {"total_max_attempts": 10, "mode": "standard"}
    assert fs.config_kwargs["read_timeout"] == 5, "the user's own comes first"
    assert fs.config_kwargs["user_agent_extra"].startswith("zonal/")


def test_a_web_address_is_asked_with_a_user_agent() -> None:
    fs = Folder("https://host/out", {"client_kwargs": {"headers": {"X-Mine": "1"}}}).filesystem
    assert fs.client_kwargs["headers"]["User-Agent"].startswith("zonal/")
    assert fs.client_kwargs["headers"]["X-Mine"] == "1"
