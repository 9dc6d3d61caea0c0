from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from zonal.errors import InputError, LockedError, ZonalError
from zonal.io.store.folder import Folder
from zonal.io.store.lock import BEAT, MISSED, Holder, Lock, _place, locked
from zonal.io.table.names import LOCK

QUICK = 0.1
"""Seconds of a beat here."""


@pytest.fixture(autouse=True)
def _nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZONAL_OWNER", raising=False)
    monkeypatch.delenv("ZONAL_BEAT", raising=False)


def held_by(folder: Folder, **facts: Any) -> None:
    """Leave a lock of somebody on another machine; its last sign of life stays young for minutes."""
    now = datetime.now(UTC).isoformat()
    there = {"host": "elsewhere", "boot": "b", "namespace": 1, "process": 12, "session": "s", "holder": "h"}
    folder.write_json(LOCK, {"owner": None, **there, "since": now, "every": BEAT * 6, "beat": now} | facts)


def count(folder: Folder) -> int:
    """How many signs of life a lock has given; 0 while it is being written."""
    holder = Holder.of(folder)
    return int(holder.facts.get("count", 0)) if holder else 0


def old(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


# ------------------------------------------------------------------ held and released


def test_a_lock_says_who_holds_it_and_goes_when_it_is_released(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZONAL_OWNER", "job-7f3a")
    with locked(folder) as lock:
        held = folder.read_json(LOCK)
        assert held is not None
        assert (held["owner"], held["process"], held["every"]) == ("job-7f3a", os.getpid(), BEAT)
        assert held["host"] == socket.gethostname()
        lock.check()
    assert not folder.exists(LOCK)
    assert folder.names() == []


def test_a_second_holder_in_the_same_process_is_refused_and_leaves_the_lock(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZONAL_OWNER", "job-7f3a")  # the same owner: and yet not the same run
    with locked(folder):
        with (
            pytest.raises(LockedError, match=rf"in use by process {os.getpid()} on .* \(owner job-7f3a\)"),
            locked(folder),
        ):
            pass
        assert folder.exists(LOCK)
    assert not folder.exists(LOCK)


def test_signs_of_life_come_every_beat_however_busy_the_interpreter_is(folder: Folder) -> None:
    busy = True

    def spin() -> None:
        while busy:
            sum(range(1000))

    with locked(folder, beat=QUICK) as lock:
        threads = [threading.Thread(target=spin) for _ in range(4)]
        for thread in threads:
            thread.start()
        first = count(folder)
        eventually(lambda: count(folder) - first >= 3)
        busy = False
        for thread in threads:
            thread.join()
        lock.check()


def test_what_failed_first_is_told_when_the_lock_cannot_be_released(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder("memory://first/out")

    def broken(*_: object, **__: object) -> None:
        raise ConnectionError("later")

    with pytest.raises(InputError, match="the first"), locked(folder):
        monkeypatch.setattr(MemoryFileSystem, "cat_file", broken)
        raise InputError("the first")


# ------------------------------------------------------------------ who may take it over


def test_a_lock_is_held_against_a_live_process_and_taken_over_from_a_dead_one(folder: Folder) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        held_by(folder, process=other.pid, **_place())
        with pytest.raises(LockedError, match=f"in use by process {other.pid} on "), locked(folder):
            pass
        other.communicate(b"\n")
    said: list[str] = []
    with locked(folder, beat=QUICK, tell=said.append):  # though its last sign of life is young
        assert not said, "at once, without a wait"
        assert json.loads(folder.read(LOCK))["process"] == os.getpid()
    assert not folder.exists(LOCK)


@pytest.mark.parametrize("differs", ["host", "boot", "namespace"])
def test_a_process_number_means_nothing_elsewhere(folder: Folder, differs: str) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    held_by(folder, process=gone.pid, **_place() | {differs: "another"})
    with pytest.raises(LockedError, match=f"process {gone.pid} on "), locked(folder):
        pass


def test_the_lock_of_an_ended_process_with_our_number_is_taken_over(folder: Folder) -> None:
    held_by(folder, process=os.getpid(), session="before", **_place())
    with locked(folder, beat=QUICK):
        assert json.loads(folder.read(LOCK))["session"] != "before"


def test_the_same_owner_takes_over_at_once(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZONAL_OWNER", "job-7f3a")
    held_by(folder, owner="job-7f3a")
    with locked(folder, beat=QUICK):
        assert json.loads(folder.read(LOCK))["process"] == os.getpid()
    held_by(folder, owner="job-other")
    with pytest.raises(LockedError, match=r"process 12 on elsewhere \(owner job-other\)"), locked(folder):
        pass


def test_a_young_sign_of_life_is_believed_and_its_holder_named(folder: Folder) -> None:
    held_by(folder, beat=old(0.9 * MISSED * BEAT), every=BEAT)
    said: list[str] = []
    with (
        pytest.raises(LockedError, match=r"in use by process 12 on elsewhere since .*, last sign of life "),
        locked(folder, tell=said.append),
    ):
        pass
    assert not said, "at once, without a wait"


@pytest.mark.parametrize(
    "beat", [old(3600), old(-3600), "yesterday", 7, None], ids=["old", "future", "text", "number", "none"]
)
def test_an_old_or_strange_sign_of_life_is_watched_and_its_lock_taken_over(
    folder: Folder, beat: object
) -> None:
    held_by(folder, beat=beat, every=QUICK)
    said: list[str] = []
    started = time.monotonic()
    with locked(folder, beat=QUICK, tell=said.append):
        assert time.monotonic() - started >= MISSED * QUICK
        assert json.loads(folder.read(LOCK))["process"] == os.getpid()
    assert len(said) == 1 and "held by process 12 on elsewhere" in said[0]


def test_a_holder_whose_clock_is_wrong_keeps_its_lock(folder: Folder) -> None:
    held_by(folder, beat=old(3600), every=BEAT)
    timer = threading.Timer(2 * QUICK, lambda: held_by(folder, beat=old(3599), every=BEAT))
    timer.start()
    with pytest.raises(LockedError, match="in use by process 12 on elsewhere"), locked(folder, beat=QUICK):
        pass
    timer.join()


def test_a_lock_that_goes_while_it_is_watched_is_free(folder: Folder) -> None:
    held_by(folder, beat=old(36_000), every=3600)  # three of its beats are longer than this test may take
    timer = threading.Timer(0.1, lambda: folder.remove(LOCK))
    timer.start()
    with locked(folder, beat=QUICK):
        pass
    timer.join()


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b"\xff"])
def test_a_lock_that_nobody_can_read_is_watched_first(
    folder: Folder, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zonal.io.store.lock.BEAT", QUICK)
    folder.write(LOCK, data)
    said: list[str] = []
    with locked(folder, beat=QUICK, tell=said.append):
        assert json.loads(folder.read(LOCK))["process"] == os.getpid()
    assert "an unreadable lock" in said[0]


@pytest.mark.parametrize("process", [0, -1, 2**70, True, "12", None])
def test_a_process_number_that_is_none_is_nobodys_death(folder: Folder, process: object) -> None:
    held_by(folder, process=process, **_place())
    held = Holder.of(folder)
    assert held is not None
    assert held.dead == (process == 2**70)


@pytest.mark.parametrize("stale", [False, True])
def test_of_many_who_take_a_lock_at_the_same_time_one_holds_it(folder: Folder, stale: bool) -> None:
    if stale:
        held_by(folder, process=os.getpid(), session="before", **_place())
    start = threading.Barrier(8)
    outcomes: list[str] = []
    holding = threading.Event()

    def contend() -> None:
        start.wait()
        try:
            with locked(folder, beat=1) as lock:
                holding.wait(3)  # three beats
                lock.confirm()
                outcomes.append("held")
        except LockedError:
            outcomes.append("refused")

    threads = [threading.Thread(target=contend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["held", *["refused"] * 7]
    assert not folder.exists(LOCK)


# ------------------------------------------------------------------ lost


def eventually(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_lost(lock: Lock) -> bool:
    try:
        lock.check()
    except LockedError:
        return True
    return False


def test_a_holder_notices_within_a_beat_that_another_has_taken_over_and_leaves_that_lock(
    folder: Folder,
) -> None:
    with (
        pytest.raises(
            LockedError, match=r"was taken over by process 12 on elsewhere .*; nothing more is written"
        ),
        locked(folder, beat=QUICK) as lock,
    ):
        lock.check()
        held_by(folder)
        eventually(lambda: is_lost(lock))
        lock.check()
    held = folder.read_json(LOCK)
    assert held is not None and held["process"] == 12, "the other's lock is not touched"


def test_a_lock_that_somebody_removed_is_lost(folder: Folder) -> None:
    with (
        pytest.raises(LockedError, match="was unlocked by somebody; nothing more is written"),
        locked(folder, beat=60) as lock,
    ):
        folder.remove(LOCK)
        lock.check()  # nobody has looked yet
        lock.confirm()
    assert not folder.exists(LOCK)


class _Away(MemoryFileSystem):  # type: ignore[misc]
    """A store that can be away."""

    protocol = "away"
    away = False

    def cat_file(self, *words: Any, **more: Any) -> Any:
        if _Away.away:
            raise ConnectionError("no route to host")
        return super().cat_file(*words, **more)


def test_a_store_that_is_away_for_a_while_ends_nothing_and_for_three_beats_stops_the_holder() -> None:
    fsspec.register_implementation("away", _Away, clobber=True)
    with locked(Folder("away://here/out"), beat=0.2) as lock:
        _Away.away = True
        time.sleep(0.3)
        lock.check()
        _Away.away = False
        time.sleep(0.9)  # were it not seen to be back, that would be too long
        lock.check()
        _Away.away = True
        time.sleep(0.9)
        with pytest.raises(ZonalError, match="no route to host"):
            lock.check()
        _Away.away = False
        lock.check()  # asks again: it is still ours


class _Slow(MemoryFileSystem):  # type: ignore[misc]
    """A store that may take its time to answer."""

    protocol = "slow"
    seconds = 0.0

    def cat_file(self, *words: Any, **more: Any) -> Any:
        time.sleep(_Slow.seconds)
        return super().cat_file(*words, **more)


def test_a_store_that_answers_within_three_beats_ends_nothing_that_waits_for_it() -> None:
    fsspec.register_implementation("slow", _Slow, clobber=True)
    with locked(Folder("slow://here/out"), beat=0.5) as lock:
        _Slow.seconds = 0.9
        time.sleep(0.55)  # the thread is asking now
        _Slow.seconds = 0.0
        lock.confirm()


@pytest.mark.parametrize("error", [InputError("no answer"), KeyboardInterrupt()])
def test_a_lock_that_was_taken_in_vain_is_free_again(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    of = Holder.of

    def fails_once(place: Folder) -> Holder | None:
        if place.exists(LOCK):
            monkeypatch.undo()
            raise error
        return of(place)

    monkeypatch.setattr(Holder, "of", fails_once)
    with pytest.raises(type(error)), locked(folder):
        pass
    with locked(folder):
        pass
