"""Byte ranges through fsspec: the only retries, counters.

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
from zonal.errors import InputError, MissingError, StoreError
from zonal.io.store import clients
from zonal.io.store.cache import Cache, FileStat
from zonal.io.store.merged import GAP, Merged, coalesce

__all__ = ["Blob", "Counters", "FileStat", "ReadPolicy"]

IN_FLIGHT = 64
"""Requests at once for one read: all ranges of an AEF chunk."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ReadPolicy:
    """How long to insist on a request that fails, and how far to trust one that does not.

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
    twice : bool
        Read every range of a remote file twice; two answers that differ are a failed attempt.
    cache : Cache, optional
        Where ranges of remote files are kept, and looked for before they are asked for.
    """

    attempts: int = 10
    delay: float = 0.1
    longest_delay: float = 5.0
    total: float = 300.0
    stall: float = 30.0
    twice: bool = False
    cache: Cache | None = None

    def delays(self) -> Iterator[float]:
        """Yield the pause after each failed attempt; ends when there is to be no further one."""
        deadline = time.monotonic() + self.total
        for attempt in range(self.attempts - 1):
            pause = min(self.delay * 2.0**attempt, self.longest_delay) * random.uniform(0.5, 1.0)
            if time.monotonic() + pause > deadline:
                return
            yield pause


@dataclass(slots=True)
class Counters:
    """What was read so far: requests sent, bytes received, requests sent again, bytes that the cache had."""

    requests: int = 0
    bytes: int = 0
    retries: int = 0
    cached: int = 0


class Blob:
    """The bytes behind a path or URL, read by ranges; safe to share between threads.

    Parameters
    ----------
    url : str
        A local path or anything fsspec resolves.
    storage_options : mapping, optional
        For the fsspec filesystem. Never shown in a message.
    policy : ReadPolicy, optional
        How often to try a remote store, and what to keep.
    stat : FileStat, optional
        What the file is known to be; `stat()` finds out.

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
        policy: ReadPolicy | None = None,
        stat: FileStat | None = None,
    ) -> None:
        self.name = scrub_urls(url)
        self.counters = Counters()
        self._policy = policy or ReadPolicy()
        self._secrets = tuple(secrets(storage_options or {}))
        self._lock = threading.Lock()
        self._stat = stat
        self._distrusted = 0  # times that bytes were of no use, by `until_usable` calls under way
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

    def stat(self) -> FileStat:
        """Ask the store for the file's size and version; always asks anew.

        Raises
        ------
        InputError
            There is no such file, or it may not be read.
        StoreError
            The store failed after all retries.
        """
        (self._stat,) = self._retry(lambda _: [self._ask_stat()], ["size and version"])
        return self._stat

    def read(self, ranges: Sequence[tuple[int, int]], what: str = "") -> list[bytes]:
        """Read byte ranges, near ones in one request, all requests at once.

        Parameters
        ----------
        ranges : sequence of (offset, length)
            In any order, duplicates allowed.
        what : str
            What lies there, for messages.

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
        return [bytes(view) for view in self.views(ranges, what)]

    def until_usable(self, use: Callable[[], T], what: str) -> T:
        """Call `use`, which reads from this blob, until it can make something of what it read.

        Parameters
        ----------
        use : callable
            Raises ValueError or RuntimeError where the bytes cannot be what was written.
        what : str
            What is read, for messages.

        Raises
        ------
        StoreError
            They could not be used after all retries.
        """

        def ask(_: list[int]) -> list[T | Exception]:
            try:
                return [use()]
            except (ValueError, RuntimeError) as error:
                self._distrusted += 1  # what is kept of it may be no better
                return [OSError(str(error))]

        trusted = self._distrusted
        try:
            return self._retry(ask, [what])[0]
        finally:
            self._distrusted = trusted

    def requests(self, ranges: Sequence[tuple[int, int]]) -> list[Merged]:
        """Return the requests that `read` sends for ranges."""
        # A seek costs nothing on a disk: there, only overlaps are worth joining.
        return coalesce(ranges, gap=0 if self.local else GAP)

    def views(self, ranges: Sequence[tuple[int, int]], what: str = "") -> list[bytes | memoryview]:
        """Read byte ranges like `read`, without copying a byte once it is here.

        Ranges that share a request are views of one memory.
        """
        merged = self.requests(ranges)
        if self._stat is not None:
            for request in merged:
                self._check_end(request, self._stat.size)
        where = f"{what}, " if what else ""
        names = [f"{where}bytes {request.start} to {request.end}" for request in merged]
        ask = self._ask_local if self.local else self._ask_remote
        answers = self._retry(lambda todo: ask([merged[i] for i in todo]), names)
        pieces: list[bytes | memoryview] = [b""] * len(ranges)
        for request, answer in zip(merged, answers, strict=True):
            for index in request.members:
                offset, length = ranges[index]
                at = offset - request.start
                pieces[index] = answer if length == len(answer) else memoryview(answer)[at : at + length]
        return pieces

    def prefetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Have the kernel read ranges of a file of this machine into its own memory, without waiting for it.

        Raises
        ------
        InputError
            The file is missing, or ends before a range does.
        """
        size = self.stat().size
        for request in (requests := self.requests(ranges)):
            self._check_end(request, size)
        if hasattr(os, "posix_fadvise"):  # only advice: whoever reads the ranges gets them anyway
            with suppress(OSError), Path(self.path).open("rb", buffering=0) as file:
                for request in requests:
                    length = request.end - request.start
                    os.posix_fadvise(file.fileno(), request.start, length, os.POSIX_FADV_WILLNEED)

    def _retry(self, ask: Callable[[list[int]], Sequence[T | Exception]], names: list[str]) -> list[T]:
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

    def _ask_stat(self) -> FileStat | Exception:
        self._count(requests=1)
        try:
            if self.local:
                stat = Path(self.path).stat()
                if not Path(self.path).is_file():
                    return IsADirectoryError(self.path)
                return FileStat(stat.st_size, str(stat.st_mtime_ns))
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
        return FileStat(int(info["size"]), etag)

    def _ask_local(self, requests: list[Merged]) -> list[bytes | Exception]:
        answers: list[bytes | Exception] = []
        try:
            with Path(self.path).open("rb", buffering=0) as file:
                for request in requests:
                    file.seek(request.start)
                    blocks = []
                    left = request.end - request.start
                    while left and (block := file.read(left)):  # one call gives 2 GiB at most
                        blocks.append(block)
                        left -= len(block)
                    if left:
                        self._check_end(request, request.end - left)
                    answers.append(blocks[0] if len(blocks) == 1 else b"".join(blocks))
        except OSError as exc:
            return [exc] * len(requests)
        self._count(requests=len(requests), received=sum(r.end - r.start for r in requests))
        return answers

    def _ask_remote(self, requests: list[Merged]) -> list[bytes | Exception]:
        """Answer requests from the cache, else by the store, as often as the policy wants to hear it."""
        kept = [self._kept(request) for request in requests]
        todo = [request for request, data in zip(requests, kept, strict=True) if data is None]
        answers = self._ask_store(todo) if todo else []
        if self._policy.twice and todo:
            for at, again in enumerate(self._ask_store(todo)):
                first = answers[at]
                if isinstance(first, bytes) and isinstance(again, bytes) and first != again:
                    answers[at] = OSError("two reads of it gave different bytes")
                elif isinstance(again, Exception):
                    answers[at] = again
        self._keep(todo, answers)
        fetched = iter(answers)
        return [next(fetched) if data is None else data for data in kept]

    def _kept(self, request: Merged) -> bytes | None:
        """Return what the cache has of the file that this is known to be."""
        cache = self._policy.cache
        if cache is None or self._stat is None or self._distrusted:
            return None
        data = cache.get(self._cached_name, self._stat, request.start, request.end)
        if data is not None:
            self._count(cached=len(data))
        return data

    def _keep(self, requests: list[Merged], answers: list[bytes | Exception]) -> None:
        cache, stat = self._policy.cache, self._stat
        came = [(r, data) for r, data in zip(requests, answers, strict=True) if isinstance(data, bytes)]
        if cache is None or stat is None or not came:
            return
        # A range does not say what it is of: if the file was replaced, the older one must not have it.
        if self._ask_stat() == stat:
            for request, data in came:
                cache.put(self._cached_name, stat, request.start, data)

    @property
    def _cached_name(self) -> str:
        """What was read once is not good enough for a run that reads twice; a query may name the file."""
        return f"{'twice ' if self._policy.twice else ''}{self.name} {self.path}"

    def _ask_store(self, requests: list[Merged]) -> list[bytes | Exception]:
        if hasattr(self._fs, "call_s3"):
            clients.check_s3_answers(self._fs)
        starts = [request.start for request in requests]
        ends = [request.end for request in requests]
        try:
            results = self._fs.cat_ranges(
                [self.path] * len(requests), starts, ends, on_error="return", batch_size=IN_FLIGHT
            )
        except Exception as exc:
            results = [exc] * len(requests)
        answers: list[bytes | Exception] = []
        for request, answer in zip(requests, results, strict=True):
            if isinstance(answer, Exception):
                answers.append(answer)
            elif isinstance(answer, BaseException):  # a cancelled task, or Ctrl-C in the client's thread
                raise answer
            elif len(answer) != request.end - request.start:
                length = request.end - request.start
                answers.append(OSError(f"{len(answer)} bytes came instead of {length}"))
            else:
                answers.append(bytes(answer))
        received = sum(len(answer) for answer in results if not isinstance(answer, BaseException))
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
        if reason == clients.MISSING:
            raise MissingError(f"{self.name}: {reason}")
        if reason:
            raise InputError(f"{self.name}: {self._hide(reason)}")

    def _hide(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def _count(self, requests: int = 0, received: int = 0, retries: int = 0, cached: int = 0) -> None:
        with self._lock:
            self.counters.requests += requests
            self.counters.bytes += received
            self.counters.retries += retries
            self.counters.cached += cached
