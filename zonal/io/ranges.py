"""Byte ranges through fsspec: coalescing, the only retries, counters.

Knows URLs, storage options, clients and their faults; not what the bytes mean.
Every range arrives exactly as long as asked, or an error names it.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from zonal.credentials import scrub_urls, secrets
from zonal.errors import InputError, StoreError
from zonal.io import clients
from zonal.io.raster import Counters, Stat

__all__ = ["GAP", "LONGEST_MERGE", "Blob", "Merged", "RetryPolicy", "Stat", "coalesce"]

GAP = 64 * 1024
"""Unwanted bytes read rather than sent for in a second request."""
LONGEST_MERGE = 8 * 1024 * 1024
"""No merged request grows beyond this, so that ranges still travel side by side."""

IN_FLIGHT = 64
"""Requests at once for one read: all ranges of an AEF chunk."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to insist on a request that fails.

    Parameters
    ----------
    attempts : int
        Requests for one range, the first included.
    delay : float
        Seconds before the second attempt; doubles every time, then jittered by 50 to 100 %.
    longest_delay : float
        Seconds; the doubling stops here.
    total : float
        Seconds after which no new attempt begins.
    stall : float
        Seconds without a byte after which an attempt has failed.
    """

    attempts: int = 10
    delay: float = 0.1
    longest_delay: float = 5.0
    total: float = 300.0
    stall: float = 30.0

    def delays(self) -> Iterator[float]:
        """Yield the pause after each failed attempt; ends when there is to be no further one."""
        deadline = time.monotonic() + self.total
        for attempt in range(self.attempts - 1):
            pause = min(self.delay * 2.0**attempt, self.longest_delay) * random.uniform(0.5, 1.0)
            if time.monotonic() + pause > deadline:
                return
            yield pause


@dataclass(frozen=True, slots=True)
class Merged:
    """One request that answers several ranges: bytes `start` to `end` hold the ranges `members`."""

    start: int
    end: int
    members: tuple[int, ...]


def coalesce(ranges: Sequence[tuple[int, int]], gap: int = GAP, longest: int = LONGEST_MERGE) -> list[Merged]:
    """Join neighbouring ranges into fewer requests.

    fsspec's own `merge_offset_ranges` is quadratic in some releases and drops
    exact duplicates; this is one sort and one pass.

    Parameters
    ----------
    ranges : sequence of (offset, length)
        In any order; empty ones are left out, duplicates and overlaps share a request.
    gap : int
        Ranges at most this many bytes apart are joined...
    longest : int
        ...unless the request would become longer than this. Overlapping ranges are
        joined regardless: no byte is asked for twice.

    Returns
    -------
    list of Merged
        By offset; every non-empty range is a member of exactly one.
    """
    merged: list[Merged] = []
    start = end = -1
    members: list[int] = []
    for index in sorted(range(len(ranges)), key=lambda i: ranges[i][0]):
        offset, length = ranges[index]
        if offset < 0 or length < 0:
            raise ValueError(f"a range needs offset >= 0 and length >= 0; got {offset=} {length=}")
        if length == 0:
            continue
        near = offset - end <= gap and max(end, offset + length) - start <= longest
        if members and (offset < end or near):
            end = max(end, offset + length)
        else:
            if members:
                merged.append(Merged(start, end, tuple(members)))
            start, end, members = offset, offset + length, []
        members.append(index)
    if members:
        merged.append(Merged(start, end, tuple(members)))
    return merged


class Blob:
    """The bytes behind a path or URL, read by ranges; safe to share between threads.

    Parameters
    ----------
    url : str
        A local path or anything fsspec resolves.
    storage_options : mapping, optional
        For the fsspec filesystem. Never shown in a message.
    policy : RetryPolicy, optional
        How often to try a remote store.

    Raises
    ------
    InputError
        No filesystem for that kind of URL.

    Attributes
    ----------
    name : str
        `url` without user, password and query: for messages.
    path : str
        The same as the filesystem knows it; not for messages.
    local : bool
        Whether this is a file of this machine.
    counters : Counters
        Requests, bytes and retries so far; gaps of merged ranges count as bytes.
    """

    def __init__(
        self,
        url: str,
        storage_options: Mapping[str, Any] | None = None,
        policy: RetryPolicy | None = None,
    ) -> None:
        self.name = scrub_urls(url)
        self.counters = Counters()
        self._policy = policy or RetryPolicy()
        self._secrets = tuple(secrets(storage_options or {}))
        self._lock = threading.Lock()
        self._size: int | None = None
        stall, total = self._policy.stall, self._policy.total
        cause = ""
        try:
            options = clients.client_options(url, storage_options, stall=stall, total=total)
            self._fs, self.path = url_to_fs(url, **options)
        except (ValueError, ImportError, TypeError) as exc:
            cause = self._hide(clients.explain(exc))
        if cause:  # outside the handler: the original may quote the options
            raise InputError(f"{self.name}: cannot be opened: {cause}")
        self.local = isinstance(self._fs, LocalFileSystem)
        if hasattr(self._fs, "retries"):
            self._fs.retries = 1  # s3fs: its own loop of 5 would multiply ours

    def __repr__(self) -> str:
        return f"Blob({self.name!r})"

    def stat(self) -> Stat:
        """Ask the store for the file's size and version; always asks anew.

        Raises
        ------
        InputError
            There is no such file, or it may not be read.
        StoreError
            The store failed after all retries.
        """
        (stat,) = self._persist(lambda _: [self._ask_stat()], ["size and version"])
        self._size = stat.size
        return stat

    def read(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Read byte ranges, near ones in one request, all requests at once.

        Parameters
        ----------
        ranges : sequence of (offset, length)
            In any order, duplicates allowed.

        Returns
        -------
        list of bytes
            One for each range, in the order given, exactly `length` bytes each.

        Raises
        ------
        InputError
            The file is missing, may not be read, or ends before a range does.
        StoreError
            The store failed after all retries.
        """
        return [bytes(view) for view in self.views(ranges)]

    def requests(self, ranges: Sequence[tuple[int, int]]) -> list[Merged]:
        """Return the requests that `read` sends for ranges."""
        # A seek costs nothing on a disk: there, only overlaps are worth joining.
        return coalesce(ranges, gap=0 if self.local else GAP)

    def views(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | memoryview]:
        """Read byte ranges like `read`, without copying a byte once it is here.

        Ranges that share a request are views of one memory.
        """
        merged = self.requests(ranges)
        if self._size is not None:
            for request in merged:
                self._check_end(request, self._size)
        names = [f"bytes {request.start} to {request.end}" for request in merged]
        ask = self._ask_local if self.local else self._ask_remote
        answers = self._persist(lambda todo: ask([merged[i] for i in todo]), names)
        pieces: list[bytes | memoryview] = [b""] * len(ranges)
        for request, answer in zip(merged, answers, strict=True):
            for index in request.members:
                offset, length = ranges[index]
                at = offset - request.start
                pieces[index] = answer if length == len(answer) else memoryview(answer)[at : at + length]
        return pieces

    def foresee(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Have the kernel read ranges of a file of this machine into its own memory, without waiting for it.

        Raises
        ------
        InputError
            The file is missing, or ends before a range does.
        """
        self.stat()
        for request in (requests := self.requests(ranges)):
            self._check_end(request, self._size or 0)
        if hasattr(os, "posix_fadvise"):  # only advice: whoever reads the ranges gets them anyway
            with suppress(OSError), Path(self.path).open("rb", buffering=0) as file:
                for request in requests:
                    length = request.end - request.start
                    os.posix_fadvise(file.fileno(), request.start, length, os.POSIX_FADV_WILLNEED)

    def _persist(self, ask: Callable[[list[int]], Sequence[T | Exception]], names: list[str]) -> list[T]:
        """Ask for items 0..n until each is there; only those that failed are asked for again."""
        answers: dict[int, T] = {}
        todo = list(range(len(names)))
        delays = self._policy.delays()
        tries = 0
        while todo:
            tries += 1
            failed: dict[int, Exception] = {}
            for index, answer in zip(todo, ask(todo), strict=True):
                if isinstance(answer, Exception):
                    failed[index] = answer
                else:
                    answers[index] = answer
            for error in failed.values():
                self._raise_if_permanent(error)
            todo = list(failed)
            if not todo:
                break
            pause = next(delays, None)
            if pause is None:
                index = todo[0]
                raise StoreError(
                    f"{self.name}: {names[index]}: {self._hide(clients.explain(failed[index]))} "
                    f"({tries} attempts); try again later"
                )
            self._count(retries=len(todo))
            time.sleep(pause)
        return [answers[index] for index in range(len(names))]

    def _ask_stat(self) -> Stat | Exception:
        self._count(requests=1)
        try:
            if self.local:
                found = Path(self.path).stat()
                if not Path(self.path).is_file():
                    return IsADirectoryError(self.path)
                return Stat(found.st_size, str(found.st_mtime_ns))
            self._fs.invalidate_cache(self.path)  # a listing kept by the client would answer with the past
            info = self._fs.info(self.path)
        except Exception as exc:
            return exc
        if info.get("type") == "directory":
            return IsADirectoryError(self.path)
        if info.get("size") is None:
            return OSError("the server does not tell the file's size")
        keys = ("ETag", "etag", "Last-Modified", "LastModified", "last_modified", "mtime", "created")
        etag = next((str(info[key]) for key in keys if info.get(key)), "")
        return Stat(int(info["size"]), etag)

    def _ask_local(self, requests: list[Merged]) -> list[bytes | Exception]:
        answers: list[bytes | Exception] = []
        try:
            with Path(self.path).open("rb", buffering=0) as file:
                for request in requests:
                    file.seek(request.start)
                    parts = []
                    left = request.end - request.start
                    while left and (part := file.read(left)):  # one call gives 2 GiB at most
                        parts.append(part)
                        left -= len(part)
                    if left:
                        self._check_end(request, request.end - left)
                    answers.append(parts[0] if len(parts) == 1 else b"".join(parts))
        except OSError as exc:
            return [exc] * len(requests)
        self._count(requests=len(requests), received=sum(r.end - r.start for r in requests))
        return answers

    def _ask_remote(self, requests: list[Merged]) -> list[bytes | Exception]:
        starts = [request.start for request in requests]
        ends = [request.end for request in requests]
        try:
            found = self._fs.cat_ranges(
                [self.path] * len(requests), starts, ends, on_error="return", batch_size=IN_FLIGHT
            )
        except Exception as exc:
            found = [exc] * len(requests)
        answers: list[bytes | Exception] = []
        for request, answer in zip(requests, found, strict=True):
            if isinstance(answer, Exception):
                answers.append(answer)
            elif isinstance(answer, BaseException):  # a cancelled task, or Ctrl-C in the client's thread
                raise answer
            elif len(answer) != request.end - request.start:
                wanted = request.end - request.start
                answers.append(OSError(f"{len(answer)} bytes came instead of {wanted}"))
            else:
                answers.append(bytes(answer))
        received = sum(len(answer) for answer in found if not isinstance(answer, BaseException))
        self._count(requests=len(requests), received=received)
        return answers

    def _check_end(self, request: Merged, size: int) -> None:
        if request.end > size:
            raise InputError(
                f"{self.name}: bytes {request.start} to {request.end} lie beyond the end of the file "
                f"({size} bytes); is it truncated?"
            )

    def _raise_if_permanent(self, error: Exception) -> None:
        if isinstance(error, (TypeError, AttributeError, NameError, NotImplementedError)):
            raise error  # a bug, here or in a client
        reason = clients.permanent(error, local=self.local)
        if reason:
            raise InputError(f"{self.name}: {self._hide(reason)}")

    def _hide(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def _count(self, requests: int = 0, received: int = 0, retries: int = 0) -> None:
        with self._lock:
            self.counters.requests += requests
            self.counters.bytes += received
            self.counters.retries += retries
