"""What an output folder holds, in words: done, left, who is at it, what to do next.

Knows the files of an output and reads them; writes nothing and takes no lock.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC
from typing import Any, Literal

from zonal.credentials import scrub_urls
from zonal.engine.output import Output
from zonal.errors import InputError
from zonal.io.store.folder import Entry, Folder
from zonal.io.store.lock import Holder
from zonal.io.table.names import MANIFEST, STEPS_MADE, WORK, part_number
from zonal.text import human

_SHOWN = ("state", "county", "bbox", "year", "zones", "raster", "coverage", "stats")
"""Settings that tell one run from another at a glance."""


@dataclass(frozen=True)
class Status:
    """What an output holds; ``str()`` is what `zonal status` prints.

    Parameters
    ----------
    output : str
    state : str
        ``running`` if somebody gives signs of life, else ``unfinished`` if a run has begun and not ended,
        else ``finished``.
    settings : dict
        Those of the run that is under way, else of the finished one; empty before it is known.
    parts, zones : (int, int) or None
        Done and in all, of the run that is under way.
    begun, moved : str or None
        When it began (the first time), and when it last came forward or ended; UTC.
    holder : str or None
        Who holds the lock, alive or not.
    table : str or None
        The finished table: it may be there while a run is under way to replace it.
    table_zones, table_bytes : int or None
    findings : list of str
        Files that further steps made of it.
    next : str
        What to do.
    """

    output: str
    state: Literal["running", "unfinished", "finished"]
    settings: dict[str, Any]
    parts: tuple[int, int] | None
    zones: tuple[int, int] | None
    begun: str | None
    moved: str | None
    holder: str | None
    table: str | None
    table_zones: int | None
    table_bytes: int | None
    findings: list[str]
    next: str

    def as_json(self) -> str:
        """One JSON object of the same."""
        return json.dumps(asdict(self), indent=2)

    def __str__(self) -> str:
        lines = [("output", self.output), ("status", self.state)]
        lines += [(name, _words(value)) for name, value in self.settings.items()]
        for name, pair in (("parts", self.parts), ("zones done", self.zones)):
            if pair is not None:
                lines.append((name, f"{pair[0]:,} of {pair[1]:,}, {pair[1] - pair[0]:,} left"))
        lines += [("begun", self.begun or ""), ("last step", self.moved or ""), ("lock", self.holder or "")]
        if self.table is not None:
            stays = "" if self.state == "finished" else "; it stays until the new one replaces it"
            size = f", {human(self.table_bytes)}" if self.table_bytes is not None else ""
            lines.append(("table", f"{self.table}, {self.table_zones or 0:,} zones{size}{stays}"))
        lines += [("findings", ", ".join(self.findings)), ("next", self.next)]
        shown = [(name, value) for name, value in lines if value]
        wide = max(len(name) for name, _ in shown)
        return "\n".join(f"{name:<{wide}}  {value}" for name, value in shown)


def status_of(folder: Folder) -> Status:
    """Look at an output folder.

    Raises
    ------
    InputError
        If there is nothing of zonal in it.
    """
    output = Output(folder)
    manifest, begun, holder = output.published(), output.unfinished(), Holder.of(folder.sub(WORK))
    if manifest is None and begun is None and not folder.names(WORK):
        raise InputError(f"{scrub_urls(folder.shown())}: no output of zonal here, finished or begun")
    alive = holder is not None and holder.fresh and not holder.dead
    under_way = begun is not None or manifest is None
    run = begun if begun is not None else manifest or {}
    parts, zones, moved = _done(folder, begun) if begun is not None else (None, None, None)
    if not under_way:
        written = folder.entries().get(MANIFEST)  # a plain web server lists nothing
        moved = _moment(written) if written else None
    return Status(
        output=scrub_urls(folder.shown()),
        state="running" if alive else "unfinished" if under_way else "finished",
        settings=_settings(run),
        parts=parts,
        zones=zones,
        begun=run.get("begun"),
        moved=moved,
        holder=str(holder) if holder else None,
        table=scrub_urls(folder.shown(manifest.get("table", ""))) if manifest else None,
        table_zones=manifest.get("zones", {}).get("kept") if manifest else None,
        table_bytes=_bytes(folder, manifest.get("files", [])) if manifest else None,
        findings=_findings(folder) if manifest else [],
        next=_next(under_way, alive, holder),
    )


def _findings(folder: Folder) -> list[str]:
    made = folder.read_json(STEPS_MADE) or {}
    return [name for entry in made.values() for name in entry["files"]]


def _next(under_way: bool, alive: bool, holder: Holder | None) -> str:
    if alive:
        return "wait for it; if it is stopped, the same command goes on where it was"
    if not under_way:
        return "nothing; the same command again has nothing to do"
    if holder is None or holder.dead:
        return "the same command goes on where it stopped"
    return "the same command goes on where it stopped, once it has seen that the lock's holder is gone"


def _settings(run: Mapping[str, Any]) -> dict[str, Any]:
    """Of a run's settings, those that tell it from another."""
    settings = run.get("fingerprint_of", {}).get("settings", {})
    return {name: settings[name] for name in _SHOWN if settings.get(name) not in (None, [], "")}


def _done(folder: Folder, begun: Mapping[str, Any]) -> tuple[tuple[int, int], tuple[int, int], str | None]:
    """Count the parts that are written, and their zones, and say when the last one was."""
    sizes: list[int] = begun["zones"]
    entries = folder.entries(f"{WORK}/{begun['parts']}")
    parts = {number: entry for name, entry in entries.items() if (number := part_number(name)) is not None}
    done = [number for number in parts if number < len(sizes)]
    moved = max(filter(None, (_moment(parts[number]) for number in done)), default=None)
    return (len(done), len(sizes)), (sum(sizes[number] for number in done), sum(sizes)), moved


def _moment(entry: Entry) -> str | None:
    return entry.written.astimezone(UTC).isoformat(timespec="seconds") if entry.written else None


def _bytes(folder: Folder, files: list[str]) -> int | None:
    """Size of a table's files, from one listing of each folder that they lie in; None without listings."""
    places = {name.rpartition("/")[0] for name in files}
    sizes = {
        f"{place}/{name}".lstrip("/"): entry.size
        for place in places
        for name, entry in folder.entries(place).items()
    }
    return sum(sizes[name] for name in files) if all(name in sizes for name in files) else None


def _words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
