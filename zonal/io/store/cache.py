"""Byte ranges of remote files, kept in a folder of this machine: bounded, and checked at every use.

Knows files and hashes; knows no store, and not what the bytes mean. A range that
is not there, or not as it was put there, is absent: never wrong, never an error.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

UNIT = 64 * 1024
"""What an entry counts is a multiple of this, so that many small ones are bounded too: in number."""

_DIGEST = 16
_ENTRY, _DRAFT = ".zonal-range", ".zonal-draft"
_ABANDONED = 3600.0
"""Seconds after which nobody is taken to be still at work on a draft."""


@dataclass(frozen=True, slots=True)
class FileStat:
    """What a file was when it was looked at.

    Parameters
    ----------
    size : int
        Bytes.
    etag : str
        ETag, else the time of the last change (of a local file: nanoseconds), else ``""``.
    """

    size: int
    etag: str


# Not diskcache, which unpickles whatever lies in its folder, nor fsspec's own caches, which are neither
# bounded nor checked.
@dataclass(frozen=True)
class Cache:
    """A folder of byte ranges, shared by all threads and processes of a machine.

    Parameters
    ----------
    folder : str
        Where they lie; made, for its owner alone, when the first is put. Whoever can write to it can
        forge what is in it.
    limit : int
        Bytes that all entries together may take on the disk: while several processes write, one entry of
        each may come on top. There are never more than ``limit / UNIT`` entries.

    Notes
    -----
    The least recently used go first. To look at all of them at every put would take longer than to fetch
    a range: what was put since the last look is the length of a file, to which every process appends
    a byte a unit, and the look is due when that is a sixteenth of the limit.
    """

    folder: str
    limit: int

    def get(self, name: str, version: FileStat, start: int, end: int) -> bytes | None:
        """Return bytes `start` to `end` of that version of a file, or None where they are not here."""
        if not version.etag:
            return None
        key, path = self._entry(name, version, start, end)
        try:
            with path.open("rb", buffering=0) as file:
                digest, data = file.read(_DIGEST), file.read(end - start + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            _warn(self.folder, error.strerror)
            return None
        if len(data) == end - start and digest == _digest(key, data):
            with suppress(OSError):
                _touch(path)
            return data
        with suppress(OSError):
            path.unlink()
        return None

    def put(self, name: str, version: FileStat, start: int, data: bytes) -> None:
        """Keep bytes of a version of a file, from `start` on; one without an ETag is not kept."""
        units, slack = self.limit // UNIT, self.limit // UNIT // 16
        count = _units(len(data) + _DIGEST)
        if not version.etag or count > units - slack:
            return
        key, path = self._entry(name, version, start, start + len(data))
        try:
            Path(self.folder).mkdir(mode=0o700, parents=True, exist_ok=True)
            path.parent.mkdir(mode=0o700, exist_ok=True)
            handle, draft = tempfile.mkstemp(_DRAFT, dir=path.parent)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(_digest(key, data))
                    file.write(data)
                _touch(Path(draft))
                Path(draft).replace(path)
            except BaseException:
                Path(draft).unlink(missing_ok=True)
                raise
            # Named by the limit: who comes with another one looks at all of them first.
            tally = Path(self.folder, f"tally-{units}{_ENTRY}")
            with tally.open("ab", buffering=0) as file:
                file.write(bytes(count))
                put = file.tell()
            if put == count or put > slack:
                os.truncate(tally, 1)  # first, so that what others put meanwhile counts
                self._prune(units - slack)
        except OSError as error:  # a full disk, a folder that may not be written to, or that went away
            with suppress(OSError):
                path.unlink()  # what is not counted does not stay
            _warn(self.folder, error.strerror)

    def _entry(self, name: str, version: FileStat, start: int, end: int) -> tuple[bytes, Path]:
        what = "\0".join((name, str(version.size), version.etag, str(start), str(end)))
        key = hashlib.blake2b(what.encode("utf-8", "surrogateescape"), digest_size=32)
        text = key.hexdigest()
        return key.digest(), Path(self.folder, text[:2], f"{text[2:]}{_ENTRY}")

    def _prune(self, units: int) -> None:
        """Remove the least recently used entries beyond `units`; no file that is not ours."""
        for _, count, path in sorted(self._entries(), reverse=True):
            units -= count
            if units < 0:
                path.unlink(missing_ok=True)

    def _entries(self) -> Iterator[tuple[int, int, Path]]:
        long_ago = time.time() - _ABANDONED
        for path in Path(self.folder).glob("[0-9a-f][0-9a-f]/*.zonal-*"):
            with suppress(FileNotFoundError):  # another process prunes, too
                stat = path.stat()
                if path.suffix == _ENTRY:
                    yield stat.st_mtime_ns, _units(stat.st_size), path
                elif path.suffix == _DRAFT and stat.st_mtime < long_ago:
                    path.unlink(missing_ok=True)


def _units(size: int) -> int:
    return -(-size // UNIT)


def _digest(key: bytes, data: bytes) -> bytes:
    """Hash the bytes of one entry: under another's key they are as good as damaged."""
    return hashlib.blake2b(data, digest_size=_DIGEST, key=key).digest()


def _touch(path: Path) -> None:
    """Say that an entry was used now: to the nanosecond, which file systems left alone do not."""
    now = time.time_ns()
    os.utime(path, ns=(now, now))


@lru_cache(maxsize=16)
def _warn(folder: str, reason: str | None) -> None:
    """Say once what keeps the cache from working; the run needs none."""
    logging.getLogger("zonal").warning("cache %s: %s; going on without it", folder, reason)
