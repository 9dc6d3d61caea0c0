"""The lock of a folder: who holds it, its signs of life, and when another may take it over.

Knows one small file, processes of this machine, and clocks that may be wrong;
knows nothing of what the lock protects.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from zonal.errors import LockedError, ZonalError
from zonal.events import RUN_ID
from zonal.io.store.folder import Folder
from zonal.io.table.names import LOCK

BEAT = 10.0
"""Seconds between two signs of life; `ZONAL_BEAT` in the environment says otherwise, for tests."""

MISSED = 3
"""Beats without a sign after which a holder counts as gone: for others, and for itself."""


def _place() -> dict[str, Any]:
    """Say where a process number means something: one boot of one host, and one of its namespaces."""
    boot = namespace = None
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    return {"host": socket.gethostname(), "boot": boot, "namespace": namespace}


@dataclass(frozen=True)
class Holder:
    """What a lock says of who holds it.

    Parameters
    ----------
    data : bytes
        The file as it was read: any change of it is a sign of life.
    facts : mapping
        What it says; empty where it is not JSON.
    """

    data: bytes = field(repr=False)
    facts: Mapping[str, Any]

    @classmethod
    def of(cls, folder: Folder) -> Holder | None:
        """Read a folder's lock; None where there is none."""
        try:
            data = folder.read(LOCK)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            facts = json.loads(data)
        except ValueError:
            facts = None
        return cls(data, facts if isinstance(facts, dict) else {})

    @property
    def every(self) -> float:
        """Seconds between its signs of life."""
        value = self.facts.get("every")
        return float(value) if isinstance(value, int | float) and 0 < value <= 60 else BEAT

    @property
    def fresh(self) -> bool:
        """Whether its last sign of life, by our clock, is younger than three beats."""
        try:
            age = datetime.now(UTC) - datetime.fromisoformat(self.facts["beat"])
        except (KeyError, TypeError, ValueError):
            return False
        return abs(age.total_seconds()) < MISSED * self.every

    @property
    def dead(self) -> bool:
        """Whether it was a process of this very machine that has surely ended."""
        process, place = self.facts.get("process"), _place()
        if not isinstance(process, int) or process <= 0:
            return False
        # Only there does its number mean anything.
        if any(self.facts.get(name) != value for name, value in place.items()):
            return False
        if process == os.getpid():
            return self.facts.get("session") != RUN_ID  # else an ended one had our number
        try:
            os.kill(process, 0)
        except (ProcessLookupError, OverflowError):
            return True
        except PermissionError:
            return False
        return False

    def __str__(self) -> str:
        if not self.facts:
            return "an unreadable lock"
        text = f"process {self.facts.get('process')} on {self.facts.get('host')}"
        if self.facts.get("owner"):
            text += f" (owner {self.facts['owner']})"
        return f"{text} since {self.facts.get('since')}, last sign of life {self.facts.get('beat')}"


class Lock:
    """A lock that is held: it gives signs of life, and notices when it is lost.

    A thread rewrites the file every beat. Others take a lock over that has not changed for three beats, so
    a holder that could not write for as long asks the store before it goes on.

    Parameters
    ----------
    folder : Folder
    beat : float
        Seconds between two signs of life.

    Attributes
    ----------
    lost : LockedError or None
        Who has it now, as far as is known.
    """

    def __init__(self, folder: Folder, beat: float) -> None:
        self.folder = folder
        self.beat = beat
        self._facts = {
            "owner": os.environ.get("ZONAL_OWNER") or None,
            **_place(),
            "process": os.getpid(),
            "session": RUN_ID,
            "holder": uuid.uuid4().hex,
            "since": _now(),
            "every": beat,
        }
        self._count = 0
        self._seen = time.monotonic()
        self.lost: LockedError | None = None
        self._writing = threading.Lock()
        self._ended = threading.Event()

    def take(self, tell: Callable[[str], None]) -> None:
        """Take the lock, or take it over.

        Raises
        ------
        LockedError
            If a live process holds it, or another was faster.
        """
        holder = Holder.of(self.folder)
        if holder is not None and not self._may_have(holder):
            tell(f"{self.folder.shown()} is held by {holder}; watching it for {MISSED * holder.every:.0f} s")
            holder = self._watch(holder)
        # From before the write: who sees it counts its three beats from later.
        started = time.monotonic()
        if holder is None:
            self.folder.claim(LOCK, self._written())
        else:
            self.folder.write(LOCK, self._written(), durable=False)
            time.sleep(min(self.beat / 10, 1))  # who took it over at the same time has written by now
        now = Holder.of(self.folder)
        if now is None or not self._is_mine(now):
            raise LockedError(f"{self.folder.shown()} was taken this very moment by {now or 'another run'}")
        self._seen = started
        threading.Thread(target=self._live, name="zonal-lock", daemon=True).start()

    def _may_have(self, holder: Holder) -> bool:
        """Whether to take a lock over at once, and not after it was watched; LockedError where neither."""
        owner = self._facts["owner"]
        if holder.facts.get("session") != RUN_ID and owner and holder.facts.get("owner") == owner:
            return True
        if holder.dead:
            return True
        if holder.fresh:
            raise self._in_use(holder)
        return False

    def _watch(self, holder: Holder) -> Holder | None:
        """See for three beats, by no clock but our own, that a lock does not change; None if it goes away."""
        begun = time.monotonic()
        while time.monotonic() - begun < MISSED * holder.every:
            time.sleep(holder.every / 4)
            now = Holder.of(self.folder)
            if now is None:
                return None
            if now.data != holder.data:
                raise self._in_use(now)
        return holder

    def _in_use(self, holder: Holder) -> LockedError:
        return LockedError(f"{self.folder.shown()} is in use by {holder}; try again when it has ended")

    def check(self) -> None:
        """Raise LockedError if the lock is known to be lost; ask the store only after three beats."""
        if self.lost is not None:
            raise self.lost
        if time.monotonic() - self._seen > MISSED * self.beat:
            self.confirm()

    def confirm(self) -> None:
        """Read the lock again and give a sign of life.

        Raises
        ------
        LockedError
            If somebody took it over or removed it, or the store does not answer in time.
        ZonalError
            If the store cannot be read or written.
        """
        # Nobody else can have it before three beats have passed: a store that is away for less ends nothing.
        left = MISSED * self.beat - (time.monotonic() - self._seen)
        if not self._writing.acquire(timeout=max(self.beat, left)):
            raise LockedError(
                f"{self.folder.shown()}: its lock could not be confirmed for "
                f"{time.monotonic() - self._seen:.0f} s, so another run may have it; nothing more is written"
            )
        try:
            if self.lost is not None:
                raise self.lost
            started = time.monotonic()
            holder = Holder.of(self.folder)
            if holder is None or not self._is_mine(holder):
                what = f"was taken over by {holder}" if holder else "was unlocked by somebody"
                self.lost = LockedError(f"{self.folder.shown()} {what}; nothing more is written")
                raise self.lost
            self.folder.write(LOCK, self._written(), durable=False)
            self._seen = started
        finally:
            self._writing.release()

    def release(self) -> None:
        """Remove the lock if it is still ours."""
        self._ended.set()
        if not self._writing.acquire(timeout=self.beat):
            return  # the thread is stuck in the store, and so would we be
        try:
            holder = Holder.of(self.folder)
            if self.lost is None and holder is not None and self._is_mine(holder):
                self.folder.remove(LOCK)
            self.lost = LockedError(f"{self.folder.shown()} is not locked any more")
        finally:
            self._writing.release()

    def _live(self) -> None:
        while not self._ended.wait(self.beat) and self.lost is None:
            with contextlib.suppress(Exception):  # a store that is away may come back; `check` counts
                self.confirm()

    def _is_mine(self, holder: Holder) -> bool:
        return bool(holder.facts.get("holder") == self._facts["holder"])

    def _written(self) -> bytes:
        self._count += 1
        return json.dumps({**self._facts, "beat": _now(), "count": self._count}, indent=2).encode()


@contextlib.contextmanager
def locked(
    folder: Folder, *, beat: float | None = None, tell: Callable[[str], None] = lambda _: None
) -> Iterator[Lock]:
    """Hold a folder's lock.

    Parameters
    ----------
    folder : Folder
    beat : float, optional
        Seconds between two signs of life.
    tell : callable
        Told of a wait.

    Raises
    ------
    LockedError
        If another holds it.
    """
    lock = Lock(folder, beat or float(os.environ.get("ZONAL_BEAT", BEAT)))
    try:
        lock.take(tell)
        yield lock
    except BaseException:
        # Also of a lock that was taken and then not confirmed: left behind, it would hold up the next run.
        with contextlib.suppress(ZonalError):  # what ended the work matters more
            lock.release()
        raise
    lock.release()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
