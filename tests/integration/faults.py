"""Stores that fail as real ones do, on purpose: a folder over HTTP, and an S3 store behind a proxy.

What happens to each attempt at each range is drawn from a seed, whatever the order in which they come.
"""

from __future__ import annotations

import functools
import os
import random
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import unquote, urlsplit

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from servers import Answer, FolderServer, Handler, S3Server, http_server, send, serving

ANY = ("500", "503", "reset", "stall")
"""May befall every request: an error, a connection that ends before the answer, silence."""
BODY = ("torn", "hushed", "ended")
"""And every body: a reset in its middle, silence from there on, an orderly end too soon."""
RANGE = ("short", "long")
"""And every range: fewer bytes than asked for, or more, under a Content-Length that says so."""
HTTP = ("403", "429", "elsewhere")
"""Over plain HTTP: throttling in other words; other bytes than asked for, and a header that says so."""
TILE = "garbage"
"""And a tile's chunks: bytes that cannot be decoded. In other files nothing but their own checks tells."""
FLIP = "flip"
"""One bit of a chunk, after which it is decoded as before, to other pixels."""
WRITE = "lost"
"""And what changes a store: it was done, and the answer did not arrive."""

SLOW = b"""<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>SlowDown</Code><Message>Slow down.</Message><RequestId>1</RequestId></Error>"""


@dataclass(frozen=True)
class Blocks:
    """Where a tile's blocks lie, and how many bytes each is decoded to."""

    offsets: NDArray[np.int64]
    counts: NDArray[np.int64]
    size: int

    @classmethod
    def of(cls, path: Path) -> Blocks:
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            offsets, counts = (np.array(n, np.int64) for n in (page.dataoffsets, page.databytecounts))
            return cls(offsets[counts > 0], counts[counts > 0], page.tilewidth * page.tilelength)

    def flipped(self, draw: random.Random, start: int, body: bytes) -> bytes:
        """Flip a bit that cannot be seen: the block is as long as before, nodata is where it was."""
        inside = (self.offsets >= start) & (self.offsets + self.counts <= start + len(body))
        places = list(zip(self.offsets[inside] - start, self.counts[inside], strict=True))
        for _ in range(10_000):
            at, count = draw.choice(places)
            bit = draw.randrange(int(count) * 8)
            spoiled = bytearray(body)
            spoiled[at + bit // 8] ^= 1 << bit % 8
            was, now = (self._decoded(bytes(data[at : at + count])) for data in (body, spoiled))
            if now is not None and was is not None and (now != was).any() and not _nodata_moved(was, now):
                return bytes(spoiled)
        raise AssertionError("no bit of these blocks can be flipped unseen")

    def _decoded(self, block: bytes) -> NDArray[np.int8] | None:
        try:
            data = imagecodecs.zstd_decode(block)
        except imagecodecs.ZstdError:
            return None
        return np.frombuffer(data, np.int8) if len(data) == self.size else None


def _nodata_moved(was: NDArray[np.int8], now: NDArray[np.int8]) -> bool:
    return bool(((was == -128) != (now == -128)).any())


@dataclass
class Faults:
    """What goes wrong with which attempt.

    Parameters
    ----------
    seed : int
    mirror : Path
        The folder that is served, under whatever prefix: its tiles tell where chunks lie.
    rate : float
        Share of requests that fail.
    flips : bool
        Half of the faults in chunks are flipped bits.
    stall : float
        Seconds without a byte: more than a client's patience with one attempt.
    broken : (str, int), optional
        End of a path, and a byte of it that never arrives.
    kinds : tuple of str, optional
        Nothing else goes wrong.
    """

    seed: int
    mirror: Path
    rate: float = 0.2
    flips: bool = False
    stall: float = 4.0
    broken: tuple[str, int] | None = None
    kinds: tuple[str, ...] = ()
    injected: Counter[str] = field(default_factory=Counter)
    attempts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.blocks = {
            path.relative_to(self.mirror).as_posix(): Blocks.of(path) for path in self.mirror.rglob("*.tiff")
        }

    def mend(self) -> None:
        """Let nothing go wrong from now on."""
        self.rate, self.broken = 0.0, None

    def of(self, path: str) -> Blocks | None:
        return next((blocks for key, blocks in self.blocks.items() if path.endswith(key)), None)

    def draw(
        self, method: str, path: str, span: tuple[int, int] | None, kinds: tuple[str, ...]
    ) -> tuple[str, random.Random]:
        """Say what goes wrong, or "", and give what else there is to draw for this attempt."""
        # The names of a run's own folders and drafts are drawn anew each time: without them it is one seed.
        name = (method, re.sub(r"[0-9a-f]{16,}", "*", path), str(span))
        with self.lock:
            attempt = self.attempts[name]
            self.attempts[name] += 1
        draw = random.Random(f"{self.seed} {name} {attempt}")
        kinds = tuple(kind for kind in kinds if not self.kinds or kind in self.kinds)
        kind = draw.choice(kinds) if draw.random() < self.rate and kinds else ""
        if self.broken and span and path.endswith(self.broken[0]) and span[0] <= self.broken[1] < span[1]:
            kind = "503"
        if kind:
            with self.lock:
                self.injected[kind] += 1
        return kind, draw


class _Faulty(BaseHTTPRequestHandler):
    """Sends answers as `Faults` will have them."""

    faults: Faults
    kinds: tuple[str, ...] = ANY

    def reply(self, answer: Answer) -> None:
        path, span = self._asked()
        kinds = self.kinds
        blocks = self.faults.of(path) if span else None
        in_chunks = blocks is not None and span is not None and span[0] >= int(blocks.offsets.min())
        if len(answer.body) > 1:
            kinds += BODY + (RANGE if span else ()) + ((TILE,) if in_chunks else ())
        if not span or answer.status != 206:
            kinds = tuple(kind for kind in kinds if kind != "elsewhere")
        if in_chunks and self.faults.flips:
            kinds += (FLIP,) * len(kinds)
        kind, draw = self.faults.draw(self.command, path, span, kinds)
        if kind == FLIP:
            assert blocks is not None and span is not None
            answer = replace(answer, body=blocks.flipped(draw, span[0], answer.body))
        elif kind == TILE:
            answer = replace(answer, body=draw.randbytes(len(answer.body)))
        self.spoil(kind, answer)

    def spoil(self, kind: str, answer: Answer) -> None:
        """Send an answer, or something else."""
        body, headers = answer.body, answer.headers
        half = len(body) // 2
        if kind.isdigit():
            head = {"Content-Type": "application/xml", "Content-Length": str(len(SLOW))}
            send(self, Answer(int(kind), head, b"" if self.command == "HEAD" else SLOW))
        elif kind == "reset":
            self._cut()
        elif kind == "stall":
            self.faults.over.wait(self.faults.stall)
            self._cut()
        elif kind in ("torn", "hushed", "ended"):
            send(self, replace(answer, body=body[:half]))
            if kind == "torn":
                self._cut()
            elif kind == "hushed":
                self.faults.over.wait(self.faults.stall)
                self._cut()
            self.close_connection = True
        elif kind in ("short", "long"):
            body = body[:half] if kind == "short" else body + b"more"
            send(self, Answer(answer.status, headers | {"Content-Length": str(len(body))}, body))
        elif kind == "elsewhere":
            first, last, size = map(int, re.findall(r"\d+", headers["Content-Range"]))
            by = -1 if first else 1
            stated = f"bytes {first + by}-{last + by}/{max(size, last + by + 1)}"
            send(self, Answer(answer.status, headers | {"Content-Range": stated}, body[1:] + body[:1]))
        else:
            send(self, answer)

    def _asked(self) -> tuple[str, tuple[int, int] | None]:
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        return unquote(urlsplit(self.path).path), (int(match[1]), int(match[2]) + 1) if match else None

    def _cut(self) -> None:
        """Reset the connection, with whatever is still on its way."""
        self.close_connection = True
        try:
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())
        except OSError:  # the client was faster
            pass


class _FaultyFolder(_Faulty, Handler):
    kinds = ANY + HTTP

    def __init__(self, faults: Faults, served: FolderServer, *args: object) -> None:
        self.faults = faults
        super().__init__(served, *args)


class _FaultyProxy(_Faulty):
    """Hands requests on to a store, and its answers back."""

    protocol_version = "HTTP/1.1"

    def __init__(self, faults: Faults, store: str, *args: object) -> None:
        self.faults, self.store = faults, store
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self.reply(self._ask(b""))

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        kind, _ = self.faults.draw(self.command, self.path, None, (*ANY, WRITE, WRITE, WRITE))
        answer = self._ask(body) if kind in ("", WRITE) else Answer(200, {})
        self.spoil("reset" if kind == WRITE else kind, answer)

    do_POST = do_DELETE = do_PUT

    def _ask(self, body: bytes) -> Answer:
        connection = HTTPConnection(urlsplit(self.store).netloc, timeout=60)
        try:
            connection.request(self.command, self.path, body, dict(self.headers))
            found = connection.getresponse()
            data = found.read()
        finally:
            connection.close()
        unwanted = ("connection", "transfer-encoding", "server", "date")
        headers = {name: value for name, value in found.getheaders() if name.lower() not in unwanted}
        return Answer(found.status, headers, data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def faulty_http(faults: Faults) -> Iterator[FolderServer]:
    """Serve the mirror of `faults` over HTTP, with them."""
    handler = functools.partial(_FaultyFolder, faults)
    with http_server(faults.mirror, handler=handler) as served:
        try:
            yield served
        finally:
            faults.over.set()


@contextmanager
def faulty_s3(store: S3Server, faults: Faults) -> Iterator[S3Server]:
    """Stand in front of an S3 store, with faults."""
    with serving(functools.partial(_FaultyProxy, faults, store.url)) as (url, _):
        try:
            yield S3Server(url)
        finally:
            faults.over.set()
