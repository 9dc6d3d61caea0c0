"""The plan that every test of reliability runs: zones across a seam of two UTM zones, in many small parts.

Two tiles, at least 20 parts and 40 units; a chunk is asked for in several ranges, as of AEF's own files.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import synthetic
import yaml
from builds import Run
from processes import Driver, wait_for
from pyproj import Transformer

from zonal.cluster.runner import Threads
from zonal.config.settings import Settings
from zonal.demo.tiles import PREFIX, write_index
from zonal.engine.run import run

SEAM, LATITUDE = -120.0, 47.0
"""Where UTM zones 10N and 11N meet, and where the tiles' southern edges are."""

FINE = {"part_zones": 20, "unit_chunks": 1}

TOGETHER = 8
"""Bands of a chunk that lie side by side: 8 ranges a chunk. AEF has 64, which would only be slower here."""


def tiles(seed: int) -> list[synthetic.Tile]:
    """Two tiles that reach 2 km into their own strip and 0.8 km beyond the seam: 36 chunks each."""
    rng = np.random.default_rng(seed)
    found = []
    for epsg, west in ((32610, -2000), (32611, -800)):
        x, y = Transformer.from_crs(4326, epsg, always_xy=True).transform(SEAM, LATITUDE)
        grid = synthetic.utm_grid(epsg, 10 * round((x + west) / 10), 10 * round(y / 10), 280, 280, 48)
        found.append(synthetic.random_tile(rng, grid))
    return found


def build(root: Path, years: Sequence[int] = (2024,), states: Sequence[str] = ("53",)) -> Path:
    """Write the mirror: tiles of each year, and over the same ground the zones of each state."""
    rows: list[dict[str, Any]] = []
    for year in years:
        of_year = tiles(year)
        synthetic.make_mirror(root, of_year, year)
        for tile in of_year:
            synthetic.lay_bands_apart(root / tile.key(year), TOGETHER)
        rows += synthetic.index_frame(of_year, year).to_dict("records")
    write_index(root / PREFIX / "aef_index.parquet", rows)
    box = (SEAM - 0.024, LATITUDE + 0.002, SEAM + 0.024, LATITUDE + 0.023)
    cuts = {"53": (26, 20), "41": (9, 8)}
    for fips in states:
        blocks = synthetic.jittered_blocks(box, *cuts[fips], seed=int(fips), state_fips=fips)
        synthetic.blocks_zip(root, fips, blocks)
    return root


def settings(mirror: object, output: object, **more: Any) -> Settings:
    given = {"state": "WA", "year": 2024, "mirror": str(mirror), "output": str(output), **FINE}
    return Settings(**given | more)


def workflow(folder: Path, mirror: object, **more: Any) -> Path:
    """Write the same settings as a workflow, for the command line."""
    file = folder / "seam.yaml"
    file.write_text(yaml.safe_dump({"state": "WA", "year": 2024, "mirror": str(mirror), **FINE, **more}))
    return file


@dataclass(frozen=True)
class Seam:
    """The mirror, and the table that any run of it must end with."""

    mirror: Path
    reference: Run

    @classmethod
    def build(cls, folder: Path, years: Sequence[int] = (2024,), states: Sequence[str] = ("53",)) -> None:
        """Make both in a folder; the table is that of one thread, which takes the tasks in their order."""
        mirror = build(folder / "mirror", years, states)
        run(settings(mirror, folder / "out"), runner=Threads(1))

    @classmethod
    def of(cls, folder: Path) -> Seam:
        return cls(folder / "mirror", Run(folder / "out", folder / "mirror"))

    @property
    def parts(self) -> int:
        return int(self.reference.manifest["plan"]["parts"])


def written(output: Path) -> set[str]:
    """Names of the parts that a run has written so far."""
    return {path.name for path in output.glob(".work/parts-*/part-*.parquet")}


def some_written(output: Path, number: int, driver: Driver) -> set[str]:
    """Wait until a run has written so many parts; give those that there are."""
    wait_for(lambda: len(written(output)) >= number or driver.over, f"no {number} parts: {driver.said}")
    assert not driver.over, f"it ended too early: {driver.said}"
    return written(output)


def goes_on(seam: Seam, mirror: object, output: Path) -> bool:
    """Run again what was stopped, undisturbed: whether it kept all parts and made the right table."""
    kept = len(written(output))
    assert kept, "some parts were done"
    assert [path.name for path in output.iterdir()] == [".work"], "nothing is published"
    told: list[str] = []
    run(settings(mirror, output), runner=Threads(2), notify=lambda event: told.append(event.message))
    assert f"{kept} of {seam.parts} parts are there already" in told
    return is_right(seam, output)


def manifest(output: Path) -> dict[str, Any]:
    """What a finished run says of itself."""
    return dict(json.loads((output / "manifest.json").read_text()))


def is_right(seam: Seam, output: Path) -> bool:
    """Whether the output is the table of `seam`, byte for byte, its manifest, and nothing else."""
    names = sorted(path.name for path in output.iterdir())
    whole = (output / "stats.parquet").read_bytes() == seam.reference.bytes
    return whole and names == ["manifest.json", "stats.parquet"]
