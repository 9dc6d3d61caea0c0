"""A small job of many parts (2 tiles, 2 UTM zones) for the command as a process, and ways to stop it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import synthetic
from pyproj import Transformer
from servers import FolderServer, clean_environment, http_server

from zonal.clusters import Threads

SEAM, LATITUDE = -120.0, 47.0
"""Where UTM zones 10N and 11N meet, and where the tiles' southern edges are."""


@dataclass(frozen=True)
class Town:
    """Zones and tiles: 26 parts and more than 40 units of one chunk each.

    Parameters
    ----------
    folder : Path
        Holds ``mirror/`` and ``zones.parquet``.
    """

    folder: Path

    @classmethod
    def build(cls, folder: Path) -> Town:
        rng = np.random.default_rng(7)
        tiles = []
        for epsg, west in ((32610, -2000), (32611, -800)):
            x, y = Transformer.from_crs(4326, epsg, always_xy=True).transform(SEAM, LATITUDE)
            grid = synthetic.utm_grid(epsg, 10 * round((x + west) / 10), 10 * round(y / 10), 280, 280, 48)
            tiles.append(synthetic.random_tile(rng, grid))
        synthetic.make_mirror(folder / "mirror", tiles)
        box = (SEAM - 0.024, LATITUDE + 0.002, SEAM + 0.024, LATITUDE + 0.023)
        synthetic.jittered_blocks(box, 26, 20).to_parquet(folder / "zones.parquet")
        return cls(folder)

    def settings(self, output: object, mirror: str = "", **more: Any) -> dict[str, Any]:
        return {
            "zones": str(self.folder / "zones.parquet"),
            "zone_id": "GEOID20",
            "year": 2024,
            "mirror": mirror or str(self.folder / "mirror"),
            "output": str(output),
            "keep_water": True,
            "part_zones": 20,
            "unit_chunks": 1,
            **more,
        }

    def command(self, output: object, mirror: str = "", *words: str, **more: Any) -> list[str]:
        """Words that run it; the settings are in a workflow file beside the zones (YAML is also JSON)."""
        text = json.dumps(self.settings(output, mirror, workers=1, threads=1, **more))
        workflow = self.folder / f"{abs(hash(text))}.yaml"
        workflow.write_text(text)
        return [sys.executable, "-m", "zonal", "run", str(workflow), *words]

    @contextmanager
    def started(
        self, output: Path, **environment: str
    ) -> Iterator[tuple[subprocess.Popen[str], FolderServer]]:
        """A run in a process of its own that has written some parts and waits for the server of its tiles."""
        with http_server(self.folder / "mirror") as server:
            command = self.command(output, server.url)
            with subprocess.Popen(
                command, env=clean_environment(**environment), stderr=subprocess.PIPE, text=True
            ) as process:
                try:
                    wait_until(lambda: parts_of(output) >= 3 or process.poll() is not None, 60)
                    server.gate.clear()
                    assert process.poll() is None, process.stderr and process.stderr.read()
                    yield process, server
                finally:
                    server.gate.set()
                    process.kill()


def parts_of(output: Path) -> int:
    return len(list(output.glob(".work/parts-*/part-*.parquet")))


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def ended(command: Sequence[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        command,
        env=clean_environment(**environment),
        capture_output=True,
        text=True,
        timeout=120,
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
