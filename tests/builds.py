"""What many tests read and none changes: made once a session, whichever of its processes needs it first."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import geopandas as gpd
from filelock import FileLock

REPO = Path(__file__).resolve().parents[1]

Stamps = dict[str, list[int]]


@dataclass
class Builds:
    """Folders below `root`, which all processes of a session share.

    Nobody may write to them: a test that changes something works on a copy. Modes would not
    hold root, so `changed` looks at each file's size and time.
    """

    root: Path
    used: set[str] = field(default_factory=set)

    def folder(self, name: str, make: Callable[[Path], object]) -> Path:
        """Give a folder that `make` has filled; other processes wait for the one that fills it."""
        folder, stamped = self.root / name, self.root / f"{name}.json"
        self.root.mkdir(exist_ok=True)
        with FileLock(self.root / f"{name}.lock"):
            if not stamped.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                stamped.write_text(json.dumps(stamps(folder)))
        self.used.add(name)
        return folder

    def changed(self) -> set[str]:
        """Files of the folders that were used here and are not what was built."""
        files: set[str] = set()
        for name in self.used:
            built: Stamps = json.loads((self.root / f"{name}.json").read_text())
            there = stamps(self.root / name)
            files |= {f"{name}/{path}" for path in built | there if built.get(path) != there.get(path)}
        return files


def stamps(folder: Path) -> Stamps:
    """Size and time of every file below a folder."""
    files = {path.relative_to(folder).as_posix(): path.stat() for path in folder.rglob("*") if path.is_file()}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in files.items()}


@dataclass(frozen=True)
class Run:
    """A finished run and where its tiles came from."""

    folder: Path
    mirror: Path

    @property
    def path(self) -> Path:
        return self.folder / "stats.parquet"

    @cached_property
    def bytes(self) -> bytes:
        return self.path.read_bytes()

    @property
    def manifest(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "manifest.json").read_text()))

    @property
    def table(self) -> gpd.GeoDataFrame:
        return gpd.read_parquet(self.path)
