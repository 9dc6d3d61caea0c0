"""A store that fails now and then: a proxy on loopback before a real one, with seeded faults."""

from __future__ import annotations

import functools
import http.client
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import urlsplit

from servers import LOOPBACK, _Server

FAULTS = ("busy", "refused", "unheard", "half")
"""503; hung up before the store heard of it, or after it did all; an answer that ends in its middle."""

HOP = {"connection", "transfer-encoding", "keep-alive", "date", "server", "content-length"}


@dataclass
class Proxy:
    """What stands before a store: `judge` names the fault of a request, or none; `seen` counts them."""

    target: str
    judge: Callable[[str, str], str | None]
    url: str = ""
    seen: Counter[str] = field(default_factory=Counter)


def seeded(seed: int, share: float) -> Callable[[str, str], str | None]:
    """Let a share of all requests fail, in one of the ways of FAULTS."""
    draw, turn = random.Random(seed), threading.Lock()

    def judge(method: str, path: str) -> str | None:
        with turn:
            return draw.choice(FAULTS) if draw.random() < share else None

    return judge


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, proxy: Proxy, *args: Any) -> None:
        self.proxy = proxy
        super().__init__(*args)

    def _forward(self) -> None:
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.proxy.judge(self.command, self.path)
        self.proxy.seen[fault or "none"] += 1
        if fault == "busy":
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if fault == "refused":
            self.close_connection = True
            return
        if fault == "forbidden":
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        host = urlsplit(self.proxy.target)
        store = http.client.HTTPConnection(host.hostname or "", host.port, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
        try:
            store.request(self.command, self.path, body, headers)
            answer = store.getresponse()
            data = answer.read()
        except OSError:  # the store is gone: so is the answer
            self.close_connection = True
            return
        finally:
            store.close()
        if fault == "unheard":
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in HOP:
                self.send_header(name, value)
        head = self.command == "HEAD"
        length = answer.getheader("Content-Length") if head else str(len(data))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        if head:
            return
        if fault == "half" and data:
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
            return
        self.wfile.write(data)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _forward

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def faulty_proxy(target: str, judge: Callable[[str, str], str | None]) -> Iterator[Proxy]:
    """Stand before a store at `target` on a free port."""
    proxy = Proxy(target, judge)
    server = _Server((LOOPBACK, 0), functools.partial(_Handler, proxy))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    proxy.url = f"http://{LOOPBACK}:{server.server_address[1]}"
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
