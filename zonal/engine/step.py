"""A step after the table: what it is, whether it is done already, and taking it.

Knows an output's `steps.json`, which says what each step's files were made from
(they carry no mark of their own); knows no finding: a step is handed down as a value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zonal.engine.fingerprint import digest
from zonal.errors import UnfitError
from zonal.events import Event, Notify, timed
from zonal.io.table.names import DRAFTS, STEPS_MADE

if TYPE_CHECKING:
    from zonal.cluster.runner import Runner
    from zonal.config.catalog import Catalog
    from zonal.config.settings import Settings
    from zonal.engine.output import Output
    from zonal.io.store.folder import Folder
    from zonal.io.store.lock import Lock
    from zonal.io.table.finished import FinishedTable


@dataclass(frozen=True)
class Task:
    """A step to take.

    Parameters
    ----------
    table : FinishedTable
    settings : Settings
    catalog : Catalog
    folder : Folder
        Where its files go.
    name : str
        Of the files, without their ends.
    notify : callable
    runner : Runner or None
        Given to steps that need one.
    """

    table: FinishedTable
    settings: Settings
    catalog: Catalog
    folder: Folder
    name: str
    notify: Notify
    runner: Runner | None


@dataclass(frozen=True)
class Step:
    """A step after the table.

    Parameters
    ----------
    name : str
        As settings name it.
    product : str
        What it makes, in a word.
    begins : str
        What is said when it begins.
    stem, suffix : str
        Name of its files in an output without their ends, and the end of the first one.
    version : int
        Goes up when it would make other files of the same input.
    make : callable
        Takes the step; returns the names of its files.
    depends : callable
        From settings, catalog, manifest and what other steps made: what its files depend on beside the table.
    runs_tasks : bool
        Whether it needs a `Runner`.
    about_a_run : bool
        Whether a table that lies alone has none.
    """

    name: str
    product: str
    begins: str
    stem: str
    suffix: str
    version: int
    make: Callable[[Task], list[str]]
    depends: Callable[[Settings, Catalog, Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]
    runs_tasks: bool = False
    about_a_run: bool = False


@dataclass(frozen=True)
class StepsOf:
    """The steps after one output's table."""

    output: Output
    settings: Settings
    catalog: Catalog
    notify: Notify
    runner: Runner | None

    @property
    def _made(self) -> dict[str, Any]:
        return self.output.folder.read_json(STEPS_MADE) or {}

    def done(self, step: Step, manifest: Mapping[str, Any]) -> bool:
        """Whether a step was taken on the same table with the same settings, and its files are there."""
        made = self._made
        entry = made.get(step.name)
        return (
            entry is not None
            and entry["key"] == self._key(step, manifest, made)
            and all(self.output.folder.exists(name) for name in entry["files"])
        )

    def files(self, step: Step) -> tuple[str, ...]:
        """Say where a step's files are, or warn why there are none."""
        entry = self._made.get(step.name, {"files": (), "skipped": None})  # another run may be at it by now
        if entry["skipped"]:
            self.notify(Event("warning", f"no {step.product}: {entry['skipped']}"))
        return tuple(self.output.folder.shown(name) for name in entry["files"])

    def take(self, step: Step, manifest: Mapping[str, Any], lock: Lock) -> None:
        """Take a step; one that the table does not allow is left out, unless asked for by name or setting."""
        from zonal.io.table.finished import load_table

        folder = self.output.folder
        seconds: dict[str, float] = {}
        files: list[str] = []
        skipped = None
        self.notify(Event("info", step.begins))
        with timed(step.name, seconds, self.notify):
            try:
                table = load_table(folder.url, folder.options)
                files = step.make(
                    Task(
                        *(table, self.settings, self.catalog, folder, DRAFTS + step.stem),
                        *(self.notify, self.runner),
                    )
                )
            except UnfitError as error:
                if {"steps", step.name} & self.settings.model_fields_set:
                    raise
                skipped = str(error)
            lock.confirm()  # what another run has made meanwhile is not ours to replace
            made = self._publish(step, files)
        made[step.name] = {
            "key": self._key(step, manifest, made),
            "files": [file.removeprefix(DRAFTS) for file in files],
            "skipped": skipped,
            "seconds": round(seconds[step.name], 3),
        }
        folder.write_json(STEPS_MADE, made)

    def _publish(self, step: Step, files: Sequence[str]) -> dict[str, Any]:
        """Give a step's files their names; return what other steps made. Killed here, it is not done."""
        folder, others = self.output.folder, self._made
        old = others.pop(step.name, {"files": []})["files"]
        new = [file.removeprefix(DRAFTS) for file in files]
        # Without a key it is not done, and whatever comes next knows which files are to go.
        under_way = {"key": None, "files": sorted({*old, *new}), "skipped": None, "seconds": 0.0}
        folder.write_json(STEPS_MADE, {**others, step.name: under_way})
        for name in {*old} - {*new}:
            folder.remove(name)
        for file, name in zip(files, new, strict=True):
            folder.move(file, name)
        return others

    def _key(self, step: Step, manifest: Mapping[str, Any], made: Mapping[str, Any]) -> str:
        """Hash of all that a step's files depend on."""
        others = {name: entry for name, entry in made.items() if name != step.name}
        depends = step.depends(self.settings, self.catalog, manifest, others)
        return digest(
            {"step": step.name, "version": step.version, "table": manifest["fingerprint"], **depends}
        )
