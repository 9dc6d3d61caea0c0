"""Real servers on loopback (a folder over HTTP, an S3 store), and the command as a process of its own."""

from __future__ import annotations

import base64
import functools
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

LOOPBACK = "127.0.0.1"


@dataclass
class FolderServer:
    """A folder over HTTP: what it serves, how, and what it was asked.

    `missing` holds ends of paths that answer 404; `asked` collects (method, path, Range header);
    `fault` takes these three, and gives the status that is answered in place of the file, or 0.
    While `gate` is clear, every request waits; each is answered after `latency` seconds.
    """

    folder: Path
    ranges: bool = True
    login: str = ""
    missing: tuple[str, ...] = ()
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    url: str = ""
    fault: Callable[[str, str, str], int] = lambda method, path, span: 0
    gate: threading.Event = field(default_factory=threading.Event)
    latency: float = 0.0
    stop: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.gate.set()


@dataclass(frozen=True)
class Answer:
    """A whole answer, before it is sent."""

    status: int
    headers: dict[str, str]
    body: bytes = b""


def send(handler: BaseHTTPRequestHandler, answer: Answer) -> None:
    # A client that has seen enough hangs up: that is no fault of the server.
    try:
        handler.send_response(answer.status)
        for name, value in answer.headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(answer.body)
    except (BrokenPipeError, ConnectionResetError):
        handler.close_connection = True


class Handler(BaseHTTPRequestHandler):
    """Answers from a folder; `reply` sends an answer, and may be replaced by one that does worse."""

    protocol_version = "HTTP/1.1"

    def __init__(self, served: FolderServer, *args: Any) -> None:
        self.served = served
        super().__init__(*args)

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        served = self.served
        wanted = self.headers.get("Range", "")
        path = unquote(urlsplit(self.path).path).lstrip("/")
        served.asked.append((self.command, path, wanted))
        served.gate.wait()
        time.sleep(served.latency)
        if status := served.fault(self.command, path, wanted):
            self.send_error(status)
            return
        login = base64.b64encode(served.login.encode()).decode()
        if served.login and self.headers.get("Authorization") != f"Basic {login}":
            self.send_error(HTTPStatus.UNAUTHORIZED)
            return
        file = served.folder / path
        if ".." in path.split("/") or not file.is_file() or path.endswith(served.missing or "\0"):
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        stat = file.stat()
        start, stop, status = 0, stat.st_size, HTTPStatus.OK
        if served.ranges and (match := re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)):
            start, stop = int(match[1]), min(int(match[2] or stat.st_size) + 1, stat.st_size)
            status = HTTPStatus.PARTIAL_CONTENT
            if start >= stat.st_size:
                self.send_error(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
                return
        headers = {"Content-Length": str(stop - start), "ETag": f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"'}
        if served.ranges:
            headers["Accept-Ranges"] = "bytes"
        if status == HTTPStatus.PARTIAL_CONTENT:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{stat.st_size}"
        body = b""
        if self.command == "GET":
            with file.open("rb") as source:
                source.seek(start)
                body = source.read(stop - start)
        self.reply(Answer(status, headers, body))

    def reply(self, answer: Answer) -> None:
        """Send an answer."""
        send(self, answer)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256  # the default of 5 drops connections when 64 come at once

    def __init__(self, *args: Any) -> None:
        self.open: set[socket.socket] = set()
        super().__init__(*args)

    def get_request(self) -> tuple[socket.socket, Any]:
        request, address = super().get_request()
        self.open.add(request)
        return request, address

    def shutdown_request(self, request: Any) -> None:
        self.open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # connections that were cut, here or there
            super().handle_error(request, client_address)


Stop = Callable[[], None]


@contextmanager
def serving(handler: Callable[..., BaseHTTPRequestHandler], port: int = 0) -> Iterator[tuple[str, Stop]]:
    """Serve on a port, 0 for a free one; give the address, and what closes the port and cuts connections."""
    server = _Server((LOOPBACK, port), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()

    def stop() -> None:
        server.shutdown()
        server.server_close()
        for connection in list(server.open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    try:
        yield f"http://{LOOPBACK}:{server.server_address[1]}", stop
    finally:
        stop()
        thread.join()


@contextmanager
def http_server(
    folder: Path,
    *,
    ranges: bool = True,
    login: str = "",
    missing: Sequence[str] = (),
    latency: float = 0.0,
    port: int = 0,
    handler: Callable[..., Handler] = Handler,
) -> Iterator[FolderServer]:
    """Serve a folder; `login` is ``user:password``."""
    served = FolderServer(folder, ranges, login, tuple(missing), latency=latency)
    with serving(functools.partial(handler, served), port) as (served.url, served.stop):
        try:
            yield served
        finally:
            served.gate.set()


@dataclass
class S3Server:
    """An S3 store in memory; `environment` is what reaches it, with credentials made up for the test."""

    url: str
    key: str = "AKIAIOSFODNN7LOOPBACK"
    secret: str = "made+up/secret+for+the+loopback+store"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @property
    def options(self) -> dict[str, Any]:
        return {"key": self.key, "secret": self.secret, "endpoint_url": self.url}

    def filesystem(self) -> Any:
        import s3fs

        path_style = {"s3": {"addressing_style": "path"}}
        return s3fs.S3FileSystem(
            **self.options, config_kwargs=path_style, skip_instance_cache=True, use_listings_cache=False
        )

    def upload(self, folder: Path, bucket: str, prefix: str = "") -> None:
        """Put every file of a folder under ``bucket/prefix``; makes the bucket, if need be."""
        fs = self.filesystem()
        fs.makedirs(bucket, exist_ok=True)
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            name = "/".join(part for part in (prefix, file.relative_to(folder).as_posix()) if part)
            fs.put_file(str(file), f"{bucket}/{name}")

    def keys(self, bucket: str) -> list[str]:
        """All names in a bucket, and any upload that was begun and not ended."""
        fs = self.filesystem()
        found = [path.removeprefix(f"{bucket}/") for path in fs.find(bucket)]
        open_uploads = fs.call_s3("list_multipart_uploads", Bucket=bucket).get("Uploads", [])
        return found + [f"{upload['Key']} (unfinished upload)" for upload in open_uploads]


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Run moto's S3 in this process on a free port."""
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address=LOOPBACK, port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield S3Server(f"http://{host}:{port}")
    finally:
        server.stop()


def clean_environment(**more: str) -> dict[str, str]:
    """This environment without what would lead a run elsewhere."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "ZONAL_", "DASK_"))}
    return kept | {"COLUMNS": "200"} | more


def zonal(
    *words: object, folder: Path, timeout: float = 300, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the installed command in a process of its own, in `folder`."""
    script = Path(sys.executable).with_name("zonal")
    command = [str(script)] if script.exists() else [shutil.which("zonal") or "zonal"]
    return subprocess.run(
        [*command, *map(str, words)],
        cwd=folder,
        env=clean_environment(**environment),
        capture_output=True,
        text=True,
        timeout=timeout,
    )
