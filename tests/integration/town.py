"""The plan across the seam for the command as a process, and ways to stop it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import seam
from processes import wait_for
from servers import FolderServer, clean_environment, http_server

from zonal.cluster.runner import Threads


@dataclass(frozen=True)
class Town:
    """The plan across the seam, with all its zones: 26 parts and more than 40 units of one chunk each.

    Parameters
    ----------
    mirror : Path
        That of the seam.
    """

    mirror: Path

    def settings(self, output: object, mirror: str = "", **more: Any) -> dict[str, Any]:
        place = {"mirror": mirror or str(self.mirror), "output": str(output)}
        table = {"state": "WA", "year": 2024, "keep_water": True, "steps": "stats"}
        return {**table, **place, **seam.FINE, **more}

    def command(self, output: Path, mirror: str = "", *words: str, **more: Any) -> list[str]:
        """Words that run it; the settings are in a workflow file beside the output (YAML is also JSON)."""
        text = json.dumps(self.settings(output, mirror, workers=1, threads=1, **more))
        workflow = output.with_name(f"{abs(hash(text))}.yaml")
        workflow.write_text(text)
        return [sys.executable, "-m", "zonal", "run", str(workflow), *words]

    @contextmanager
    def started(
        self, output: Path, **environment: str
    ) -> Iterator[tuple[subprocess.Popen[str], FolderServer]]:
        """A run in a process of its own that has written some parts and waits for the server of its tiles."""
        with http_server(self.mirror) as server:
            command = self.command(output, server.url)
            with subprocess.Popen(
                command, env=clean_environment(**environment), stderr=subprocess.PIPE, text=True
            ) as process:
                try:
                    wait_for(
                        lambda: parts_of(output) >= 3 or process.poll() is not None, "no part was written"
                    )
                    server.gate.clear()
                    assert process.poll() is None, process.stderr and process.stderr.read()
                    yield process, server
                finally:
                    server.gate.set()
                    process.kill()


def parts_of(output: Path) -> int:
    return len(seam.written(output))


def ended(command: Sequence[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        command,
        env=clean_environment(**environment),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


class Unplugged(Exception):
    """What ends a run in these tests."""


@dataclass
class Stopping:
    """Runs parts one after the other in this process, and stops once some are written."""

    parts: int
    described: str = "until it is unplugged"

    def run(
        self, graph: dict[Any, Any], keys: Sequence[Any], avoid: Collection[str] = ()
    ) -> Iterator[tuple[Any, Any]]:
        parts = [key for key in keys if isinstance(key, tuple) and str(key[0]).startswith("part-")]
        for key in parts[: self.parts]:
            yield from Threads(1).run(graph, [key])
        raise Unplugged

    def everywhere(self, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        return {"here": function(*arguments)}
