"""A folder over HTTP on loopback, with a delay before every answer.

Knows byte ranges and how many bytes it has sent; knows nothing of what they are.
Run as `python -m benchmarks.store FOLDER COUNTS`; it prints its URL and ends after an hour.
``http://127.0.0.1:PORT/50/KEY`` answers 50 ms late. Requests wait side by side.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from aiohttp import web
from numpy.typing import NDArray

from benchmarks.process import ROOT, python

COUNTS = ("requests", "sent", "of_tiles", "sending", "waiting", "most")
"""What the server counts, int64 each: requests; bytes sent, and how many of them of tiles; answers that are
being sent now; requests that are not answered yet, and the most of these at once."""


def application(folder: Path, counts: NDArray[np.int64]) -> web.Application:
    """Serve a folder, counting."""
    files: dict[Path, int] = {}  # open ones; they are few

    def count(name: str, more: int) -> None:
        counts[COUNTS.index(name)] += more

    @contextlib.contextmanager
    def counted(name: str) -> Iterator[None]:
        count(name, 1)
        try:
            yield
        finally:
            count(name, -1)

    async def answer(request: web.Request) -> web.StreamResponse:
        count("requests", 1)
        with counted("waiting"):
            counts[COUNTS.index("most")] = max(counts[COUNTS.index("most")], counts[COUNTS.index("waiting")])
            await asyncio.sleep(int(request.match_info["delay"]) / 1000)
            return await send(request)

    async def send(request: web.Request) -> web.StreamResponse:
        path = folder / request.match_info["key"]
        if ".." in path.parts or not path.is_file():
            raise web.HTTPNotFound
        if path not in files:
            files[path] = os.open(path, os.O_RDONLY)
        stat = os.fstat(files[path])
        start, stop, _ = request.http_range.indices(stat.st_size)
        ranged = "Range" in request.headers
        if ranged and start >= stat.st_size:
            raise web.HTTPRequestRangeNotSatisfiable
        response = web.StreamResponse(status=206 if ranged else 200)
        response.headers["ETag"] = f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"'
        response.headers["Accept-Ranges"] = "bytes"
        if ranged:
            response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{stat.st_size}"
        response.content_length = stop - start
        with counted("sending"):
            await response.prepare(request)
            if request.method == "GET":
                await response.write(os.pread(files[path], stop - start, start))
                count("sent", stop - start)
                count("of_tiles", stop - start if path.suffix == ".tiff" else 0)
            await response.write_eof()
        return response

    app = web.Application()
    app.router.add_get(r"/{delay:\d+}/{key:.*}", answer)  # and HEAD
    return app


@contextlib.contextmanager
def serving(folder: Path, scratch: Path) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Serve a folder from a process of its own; give the URL and its counts as they grow."""
    file = scratch / "counts"
    counts = np.memmap(file, np.int64, "w+", shape=len(COUNTS))
    server = subprocess.Popen(
        python("benchmarks.store", folder, file), stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        assert server.stdout is not None
        yield server.stdout.readline().strip(), counts
    finally:
        server.terminate()
        server.wait()


async def _serve(folder: Path, file: Path) -> None:
    counts = np.memmap(file, np.int64, "r+", shape=len(COUNTS))
    runner = web.AppRunner(application(folder, counts), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=256)
    await site.start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.sleep(3600)  # it ends by itself, whatever became of its parent


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), Path(sys.argv[2])))
