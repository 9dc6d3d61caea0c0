"""Real processes on loopback: a Dask scheduler, its workers, a run; and the link between two of them.

Each is ended by its own number, whatever happens; every wait has a deadline.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TypeVar

import psutil
from servers import LOOPBACK, clean_environment

T = TypeVar("T")

SECONDS = 240.0
"""Until a wait gives up: many times what a busy machine needs."""


def wait_for(what: Callable[[], T], why: str, seconds: float = SECONDS) -> T:
    """Wait until something is true, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, why
        time.sleep(0.01)
    return found


@contextmanager
def process(*command: object, folder: Path, log: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command; what it says goes to a file. At its end, it and all that it started are killed."""
    with log.open("a") as said:
        started = subprocess.Popen(
            [str(word) for word in command],
            cwd=folder,
            env=clean_environment(**environment),
            stdout=said,
            stderr=said,
            text=True,
        )
    family = Family.of(started.pid)
    try:
        yield started
    finally:
        family.grow()
        started.kill()
        started.wait()
        family.kill()


@dataclass
class Family:
    """A process and its descendants, those too whose parents have gone."""

    members: set[psutil.Process]

    @classmethod
    def of(cls, pid: int) -> Family:
        family = cls({psutil.Process(pid)})
        family.grow()
        return family

    def grow(self) -> Family:
        """Take in the descendants of now."""
        for member in list(self.members):
            with suppress(psutil.NoSuchProcess):
                self.members.update(member.children(recursive=True))
        return self

    def alive(self) -> list[psutil.Process]:
        """Who is still running."""

        def runs(member: psutil.Process) -> bool:
            with suppress(psutil.NoSuchProcess):
                return member.is_running() and member.status() != psutil.STATUS_ZOMBIE
            return False

        return [member for member in self.members if runs(member)]

    def kill(self) -> None:
        for member in self.alive():
            with suppress(psutil.NoSuchProcess):
                member.kill()


# ------------------------------------------------------------------ a cluster


@dataclass
class Cluster:
    """A scheduler, and workers that come and go; `words` and `environment` are of them all."""

    folder: Path
    address: str
    scheduler: subprocess.Popen[str]
    stack: ExitStack
    words: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    workers: list[subprocess.Popen[str]] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=lambda: count())

    def add(
        self, *more: object, nanny: bool = False, address: str = "", **environment: str
    ) -> subprocess.Popen[str]:
        """Start a worker of one thread."""
        name = f"worker-{next(self.numbers)}"
        words = [sys.executable, "-m", "dask", "worker", address or self.address, "--name", name]
        words += ["--nthreads", "1", "--local-directory", str(self.folder / name)]
        words += ["--nanny" if nanny else "--no-nanny", *self.words, *map(str, more)]
        log = self.folder / f"{name}.log"
        environment = self.environment | environment
        worker = self.stack.enter_context(process(*words, folder=self.folder, log=log, **environment))
        self.workers.append(worker)
        return worker

    @property
    def logs(self) -> str:
        """What all of them said."""
        return "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("*.log")))

    def log(self, worker: subprocess.Popen[str]) -> Path:
        """What a worker said."""
        return self.folder / f"{worker.args[worker.args.index('--name') + 1]}.log"  # type: ignore

    def pids(self, workers: int) -> set[int]:
        """Wait until so many workers are there; give the processes that compute."""
        from distributed import Client

        with Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(workers, timeout=SECONDS)
            return {*client.run(os.getpid).values()}

    def computing(self, worker: subprocess.Popen[str]) -> psutil.Process:
        """The process of a worker that computes: where it has a nanny, the nanny's child."""
        (found,) = self.pids(len(self.workers)) & {member.pid for member in Family.of(worker.pid).members}
        return psutil.Process(found)

    def end(self, worker: subprocess.Popen[str]) -> None:
        """Kill a worker, and its nanny with it."""
        family = Family.of(worker.pid) if worker.poll() is None else None
        worker.kill()
        worker.wait()
        if family:
            family.kill()
        self.workers.remove(worker)

    def end_all(self) -> None:
        for worker in list(self.workers):
            self.end(worker)

    def fill(self) -> tuple[subprocess.Popen[str], subprocess.Popen[str]]:
        """Replace what ended: one worker alone, one with a nanny."""
        for worker in list(self.workers):
            if worker.poll() is not None:
                self.end(worker)
        nannies = [worker for worker in self.workers if "--nanny" in worker.args]  # type: ignore[operator]
        alone = [worker for worker in self.workers if worker not in nannies]
        nursed = nannies[0] if nannies else self.add(nanny=True)
        return alone[0] if alone else self.add(), nursed


@contextmanager
def dask_cluster(folder: Path, *more: str, dashboard: bool = False, **environment: str) -> Iterator[Cluster]:
    """Start a scheduler without workers."""
    folder.mkdir(parents=True, exist_ok=True)
    found = folder / "scheduler.json"
    page = ["--dashboard-address", f"{LOOPBACK}:0"] if dashboard else ["--no-dashboard"]
    common = ["--host", LOOPBACK, *page, *more]
    words = [
        sys.executable,
        "-m",
        "dask",
        "scheduler",
        "--port",
        "0",
        "--scheduler-file",
        str(found),
        *common,
    ]
    with ExitStack() as stack:
        log = folder / "scheduler.log"
        scheduler = stack.enter_context(process(*words, folder=folder, log=log, **environment))

        def address() -> str:
            with suppress(FileNotFoundError, ValueError):
                return str(json.loads(found.read_text())["address"])
            return ""

        at = wait_for(address, "no scheduler came")
        yield Cluster(folder, at, scheduler, stack, common, environment)


# ------------------------------------------------------------------ a run


@dataclass
class Driver:
    """`zonal run` as a process of its own."""

    process: subprocess.Popen[str]
    log: Path
    family: Family

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.process.poll() is not None

    def ended(self, seconds: float = SECONDS) -> int:
        """Wait for its end, and give its exit code."""
        wait_for(lambda: self.over, f"it never ended: {self.said}", seconds)
        return self.process.returncode

    def workers(self) -> list[psutil.Process]:
        """Its workers on this machine: forks of a child that is the server of forks."""
        children = psutil.Process(self.process.pid).children()
        return [grandchild for child in children for grandchild in child.children()]

    def send(self, number: int) -> None:
        self.family.grow()
        self.process.send_signal(number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)

    @property
    def said(self) -> str:
        return self.log.read_text()

    @property
    def sentence(self) -> str:
        """The one sentence with which it ended."""
        (sentence,) = [line for line in self.said.splitlines() if line.startswith("zonal: ")]
        assert "Traceback" not in self.said, self.said
        return sentence.removeprefix("zonal: ")


@contextmanager
def zonal_run(*words: object, folder: Path, name: str = "run", **environment: str) -> Iterator[Driver]:
    """Start the installed command, for the table alone."""
    script = Path(sys.executable).with_name("zonal")
    command = str(script) if script.exists() else shutil.which("zonal") or "zonal"
    log = folder / f"{name}.log"
    with process(
        command, "run", *words, "--steps", "stats", folder=folder, log=log, **environment
    ) as started:
        driver = Driver(started, log, Family.of(started.pid))
        try:
            yield driver
        finally:
            driver.family.grow().kill()


# ------------------------------------------------------------------ a link


@dataclass
class Link:
    """A TCP proxy on loopback: what goes in at `address` comes out at its other end, until it is cut."""

    address: str
    _listener: socket.socket
    _ends: list[socket.socket] = field(default_factory=list)
    silent: threading.Event = field(default_factory=threading.Event)

    def cut(self) -> None:
        """Close the port and every connection."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def swallow(self) -> None:
        """Let nothing through any more, and close nothing: as when a cable is pulled."""
        self.silent.set()


@contextmanager
def link(address: str) -> Iterator[Link]:
    """Stand between two processes; `address` is ``tcp://host:port``."""
    host, port = address.removeprefix("tcp://").rsplit(":", 1)
    listener = socket.create_server((LOOPBACK, 0), backlog=64)
    made = Link(f"tcp://{LOOPBACK}:{listener.getsockname()[1]}", listener)

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if not made.silent.is_set():
                    target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection((host, int(port)))
                made._ends += [near, far]
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=pump, args=ends, daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.cut()
        thread.join()
