"""A child process and what it took: seconds on the wall, memory at its peak, the last line it printed.

Knows processes; knows nothing of what they compute.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
TICK = 0.1  # seconds between two looks at the memory


@dataclass(frozen=True)
class Ended:
    """A child that ended.

    Parameters
    ----------
    seconds : float
        From its start to its end.
    peak : float
        MiB resident at the most, added up over the child and its own children; memory that they share counts
        in each.
    report : dict
        What it printed last, if that was JSON.
    error : str
        How it failed; empty if it did not.
    """

    seconds: float
    peak: float
    report: dict[str, Any]
    error: str


def python(module: str, *words: object) -> list[str]:
    """Return the command line of a module, in this interpreter."""
    return [sys.executable, "-m", module, *map(str, words)]


def run(
    command: Sequence[str],
    limit: float = 1800,
    watch: Callable[[int], None] | None = None,
    tick: float = TICK,
) -> Ended:
    """Run a command to its end, or to the limit of its seconds; `watch` is given its id at every tick."""
    peaks: dict[int, float] = {}
    with (
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
        ThreadPoolExecutor(1) as waiting,
    ):
        started = looked = time.perf_counter()
        child = subprocess.Popen(command, stdout=out, stderr=err, cwd=ROOT)
        ended = waiting.submit(_wait, child)  # child.wait(timeout) would look only every 50 ms
        try:
            while not ended.done() and (now := time.perf_counter()) - started < limit:
                if watch is not None:
                    watch(child.pid)
                if now - looked >= TICK:
                    looked = now
                    for pid, peak in _peaks(child.pid).items():  # of a process that just ended: 0
                        peaks[pid] = max(peak, peaks.get(pid, 0.0))
                wait([ended], tick)
            stopped = not ended.done()
        finally:
            if not ended.done():
                _end(child.pid)
        seconds = ended.result() - started
        printed, said = (_text(stream) for stream in (out, err))
    error = ""
    if stopped:
        error = f"stopped after {limit:.0f} s"
    elif child.returncode:
        how = f"signal {-child.returncode}" if child.returncode < 0 else f"exit code {child.returncode}"
        error = f"{how}: {(said.strip() or 'no word').splitlines()[-1][:200]}"
    report = {}
    with contextlib.suppress(ValueError, IndexError):
        report = json.loads(printed.strip().splitlines()[-1])
    return Ended(seconds, sum(peaks.values()), report if isinstance(report, dict) else {}, error)


def _wait(child: subprocess.Popen[bytes]) -> float:
    child.wait()
    return time.perf_counter()


def tree(pid: int) -> list[psutil.Process]:
    """Return a process and all below it."""
    try:
        top = psutil.Process(pid)
        return [top, *top.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _peaks(pid: int) -> dict[int, float]:
    """Return the peak of each process of the tree so far, MiB."""
    found = {}
    for process in tree(pid):
        with contextlib.suppress(psutil.Error, OSError):
            found[process.pid] = _peak(process)
    return found


def _peak(process: psutil.Process) -> float:
    status = Path(f"/proc/{process.pid}/status")
    if not status.exists():
        return float(process.memory_info().rss / 2**20)
    # Where the system keeps the high-water mark, nothing between two looks is missed.
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines.get("VmHWM", "0 kB").split()[0]) / 1024


def _end(pid: int) -> None:
    for process in reversed(tree(pid)):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _text(stream: Any) -> str:
    stream.seek(0)
    return str(stream.read().decode(errors="replace"))
