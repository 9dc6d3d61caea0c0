"""The byte cache against a dict, under damage, on bad folders, and with many processes at once."""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zonal.io.store import cache
from zonal.io.store.cache import UNIT, Cache, FileStat

NAME = "https://host/tile.tiff"
V1 = FileStat(10_000_000, '"one"')
LARGE = 1024 * UNIT


def content(seed: object, size: int) -> bytes:
    return hashlib.shake_128(repr(seed).encode()).digest(size)


def entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("??/*") if path.suffix == ".zonal-range")


def taken(folder: Path) -> int:
    return sum(path.stat().st_size for path in entries(folder))


# ------------------------------------------------------------------ against a dict

KEYS = st.tuples(
    st.sampled_from(["a", "b", "s3://bucket/é b\0c"]),
    st.sampled_from([FileStat(9, "x"), FileStat(9, "y"), FileStat(10, "x"), FileStat(9, "")]),
    st.integers(0, 3),
    st.sampled_from([1, 500, UNIT - 16, UNIT - 15, 2 * UNIT]),
)


@given(
    steps=st.lists(st.tuples(st.booleans(), KEYS), max_size=40),
    units=st.integers(0, 40),
)
def test_a_cache_is_a_dict_that_forgets_the_least_recently_used(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[bool, tuple]], units: int
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    kept = Cache(str(folder), units * UNIT + 5)
    put: dict[tuple, bytes] = {}
    recent: dict[tuple, int] = {}  # units of each, the least recently used first
    for puts, key in steps:
        name, version, start, size = key
        weight = -(-(size + 16) // UNIT)
        if puts:
            put[key] = content(key, size)
            kept.put(name, version, start, put[key])
            if version.etag and weight <= units - units // 16:
                recent.pop(key, None)
                recent[key] = weight
            assert taken(folder) <= kept.limit
            assert len(entries(folder)) <= units
        else:
            found = kept.get(name, version, start, start + size)
            assert found in (None, put.get(key))
            if found is not None:
                recent[key] = recent.pop(key)
        room = units - units // 16
        for key, weight in reversed(recent.items()):
            room -= weight
            if room < 0:
                break
            name, version, start, size = key
            path = kept._entry(name, version, start, start + size)[1]
            assert path.exists(), "nothing goes that the limit has room for"


def test_another_name_version_or_range_is_absent(tmp_path: Path) -> None:
    kept = Cache(str(tmp_path), LARGE)
    kept.put(NAME, V1, 100, b"bytes")
    assert kept.get(NAME, V1, 100, 105) == b"bytes"
    assert kept.get(NAME, V1, 100, 104) is None
    assert kept.get(NAME, V1, 101, 105) is None
    assert kept.get(NAME, FileStat(V1.size, '"two"'), 100, 105) is None
    assert kept.get(NAME, FileStat(V1.size + 1, V1.etag), 100, 105) is None
    assert kept.get(NAME + "f", V1, 100, 105) is None


def test_a_version_without_an_etag_is_never_kept(tmp_path: Path) -> None:
    kept = Cache(str(tmp_path / "c"), LARGE)
    kept.put(NAME, FileStat(10, ""), 0, b"bytes")
    assert kept.get(NAME, FileStat(10, ""), 0, 5) is None
    assert not (tmp_path / "c").exists()


def test_a_cache_travels_to_another_process_as_it_is(tmp_path: Path) -> None:
    kept = Cache(str(tmp_path), LARGE)
    kept.put(NAME, V1, 0, memoryview(b"of a view"))
    assert pickle.loads(pickle.dumps(kept)) == kept
    assert pickle.loads(pickle.dumps(kept)).get(NAME, V1, 0, 9) == b"of a view"


# ------------------------------------------------------------------ damage


@pytest.mark.parametrize("how", ["cut", "longer", "empty", "first bit", "last bit", "digest", "another's"])
def test_a_damaged_entry_is_absent_and_goes(tmp_path: Path, how: str) -> None:
    kept = Cache(str(tmp_path), LARGE)
    kept.put(NAME, V1, 0, content(1, 5000))
    (path,) = entries(tmp_path)
    data = bytearray(path.read_bytes())
    if how == "cut":
        del data[-1]
    elif how == "longer":
        data += b"x"
    elif how == "empty":
        data.clear()
    elif how == "another's":
        kept.put(NAME, V1, 5000, content(2, 5000))
        (other,) = (entry for entry in entries(tmp_path) if entry != path)
        data = bytearray(other.read_bytes())
    else:
        data[{"first bit": 16, "last bit": -1, "digest": 0}[how]] ^= 1
    path.write_bytes(data)
    assert kept.get(NAME, V1, 0, 5000) is None
    assert not path.exists()
    kept.put(NAME, V1, 0, content(1, 5000))
    assert kept.get(NAME, V1, 0, 5000) == content(1, 5000)


@given(bit=st.integers(0, 8 * (16 + 100) - 1))
def test_no_flipped_bit_is_ever_served(tmp_path_factory: pytest.TempPathFactory, bit: int) -> None:
    folder = tmp_path_factory.mktemp("bit")
    kept = Cache(str(folder), LARGE)
    kept.put(NAME, V1, 0, content(1, 100))
    (path,) = entries(folder)
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
    assert kept.get(NAME, V1, 0, 100) is None


# ------------------------------------------------------------------ the folder


def test_the_folder_and_all_in_it_are_for_their_owner_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        Cache(str(tmp_path / "a" / "cache"), LARGE).put(NAME, V1, 0, b"bytes")
    finally:
        os.umask(old)
    folder = tmp_path / "a" / "cache"
    (path,) = entries(folder)
    assert folder.stat().st_mode & 0o777 == path.parent.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_mode & 0o777 == 0o600


def test_files_of_others_are_never_removed(tmp_path: Path) -> None:
    mine = [tmp_path / "ab" / "thesis.txt", tmp_path / "notes", tmp_path / "x" / "1.zonal-range"]
    for file in mine:
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content(file.name, 4 * UNIT))
    kept = Cache(str(tmp_path), 2 * UNIT)
    for start in range(20):
        kept.put(NAME, V1, start, b"bytes")
    assert len(list(tmp_path.glob("??/*.zonal-range"))) == 2
    assert all(file.read_bytes() == content(file.name, 4 * UNIT) for file in mine)


def test_drafts_of_processes_that_died_go_in_time(tmp_path: Path) -> None:
    kept = Cache(str(tmp_path), 4 * UNIT)
    kept.put(NAME, V1, 0, b"bytes")
    (path,) = entries(tmp_path)
    old, new = path.with_name("old.zonal-draft"), path.with_name("new.zonal-draft")
    for draft in (old, new):
        draft.write_bytes(b"half")
    os.utime(old, (1, 1))
    kept.put(NAME, V1, 1, b"bytes")
    assert not old.exists() and new.exists()


def test_a_smaller_limit_holds_from_its_first_put(tmp_path: Path) -> None:
    large, small = Cache(str(tmp_path), LARGE), Cache(str(tmp_path), 20 * UNIT)
    for start in range(50):
        large.put(NAME, V1, start, content(start, 1000))
    small.put(NAME, V1, 50, b"bytes")
    assert len(entries(tmp_path)) <= 20
    assert small.get(NAME, V1, 50, 55) == b"bytes"
    assert small.get(NAME, V1, 49, 1049) == content(49, 1000)
    assert small.get(NAME, V1, 0, 1000) is None


def test_the_folder_is_not_looked_through_at_every_put(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    entries_of = Cache._entries
    monkeypatch.setattr(Cache, "_entries", lambda self: looks.append(1) or entries_of(self))
    kept = Cache(str(tmp_path), 160 * UNIT)
    for start in range(1000):
        kept.put(NAME, V1, start, b"bytes")
    assert 90 <= len(looks) <= 102  # of a unit each: once in ten
    assert 140 <= len(entries(tmp_path)) <= 160


def test_a_folder_that_vanished_is_an_empty_cache(tmp_path: Path) -> None:
    kept = Cache(str(tmp_path / "c"), LARGE)
    kept.put(NAME, V1, 0, b"bytes")
    (tmp_path / "c").rename(tmp_path / "gone")
    assert kept.get(NAME, V1, 0, 5) is None
    kept.put(NAME, V1, 0, b"bytes")
    assert kept.get(NAME, V1, 0, 5) == b"bytes"


@pytest.mark.parametrize("folder", ["a file", "/proc/cache", "/dev/null/cache"])
def test_a_folder_that_cannot_be_is_no_cache_and_one_warning(
    tmp_path: Path, folder: str, caplog: pytest.LogCaptureFixture
) -> None:
    cache._warn.cache_clear()
    if folder == "a file":
        folder = str(tmp_path / "file")
        Path(folder).write_text("not a folder")
    kept = Cache(folder, LARGE)
    for start in range(3):
        kept.put(NAME, V1, start, b"bytes")
        assert kept.get(NAME, V1, start, start + 5) is None
    assert 1 <= len(caplog.messages) <= 2
    assert "going on without it" in caplog.text


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full to write to")
def test_a_full_disk_is_no_cache_and_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache._warn.cache_clear()
    kept = Cache(str(tmp_path), LARGE)
    kept.put(NAME, V1, 0, b"before")

    def full(*_: object, dir: Path) -> tuple[int, str]:
        draft = dir / "x.zonal-draft"
        draft.touch()
        return os.open("/dev/full", os.O_WRONLY), str(draft)

    with monkeypatch.context() as patch:
        patch.setattr(cache.tempfile, "mkstemp", full)
        for start in range(1, 4):
            kept.put(NAME, V1, start, b"bytes")
            assert kept.get(NAME, V1, start, start + 5) is None
    assert kept.get(NAME, V1, 0, 6) == b"before"
    assert len(entries(tmp_path)) == 1 and not list(tmp_path.glob("*/*.zonal-draft"))
    (said,) = caplog.messages
    assert os.strerror(errno.ENOSPC) in said


def test_a_tally_that_cannot_be_written_keeps_nothing_uncounted(tmp_path: Path) -> None:
    kept = Cache(str(tmp_path), 4 * UNIT)
    (tmp_path / "tally-4.zonal-range").mkdir()
    for start in range(20):
        kept.put(NAME, V1, start, b"bytes")
    assert not entries(tmp_path)


# ------------------------------------------------------------------ many at once

WORK = """
import hashlib, random, sys
from zonal.io.store.cache import UNIT, Cache
from zonal.io.store.cache import FileStat
folder, seed = sys.argv[1], int(sys.argv[2])
rng, kept, hits = random.Random(seed), Cache(folder, 64 * UNIT), 0
for _ in range(1500):
    start = min(int(rng.expovariate(1 / 40)), 400)
    size = 1000 * (1 + start % 90)
    data = hashlib.shake_128(str(start).encode()).digest(size)
    found = kept.get("x", FileStat(1, "v"), start, start + size)
    assert found in (None, data), "wrong bytes"
    hits += found is not None
    if found is None:
        kept.put("x", FileStat(1, "v"), start, data)
print(hits)
"""


def test_processes_share_a_folder_that_stays_right_and_within_its_limit(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", WORK, tmp_path, str(seed)], stdout=subprocess.PIPE)
        for seed in range(4)
    ]
    most = 0
    while any(process.poll() is None for process in processes):
        found = 0
        for path in entries(tmp_path):
            with suppress(FileNotFoundError):  # removed meanwhile
                found += path.stat().st_size
        most = max(most, found)
        time.sleep(0.01)
    hits = [int(process.communicate()[0]) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert min(hits) > 100
    assert 0 < most <= (64 + 4) * UNIT
    assert taken(tmp_path) <= 64 * UNIT
    assert not list(tmp_path.glob("*/*.zonal-draft"))


def test_threads_share_a_folder(tmp_path: Path) -> None:
    kept = Cache(str(tmp_path), 16 * UNIT)
    wrong: list[int] = []

    def work(seed: int) -> None:
        for step in range(200):
            start = (seed * 7 + step * 13) % 40
            found = kept.get(NAME, V1, start, start + 2000)
            if found not in (None, content(start, 2000)):
                wrong.append(start)
            kept.put(NAME, V1, start, content(start, 2000))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert 0 < len(entries(tmp_path)) <= 16
