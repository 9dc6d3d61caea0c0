"""The output folder of a run: its names, its lock, what it holds, and publishing.

Knows which file means what and in which order they appear; gets finished parts
and a manifest, and computes nothing. The manifest is the commit mark.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pyproj

from zonal.errors import OtherRunError, ZonalError
from zonal.fingerprint import difference, digest
from zonal.io.finished import MANIFEST
from zonal.io.folder import LOCK, Folder
from zonal.io.stage import Stage
from zonal.io.table import Columns, merge_parts
from zonal.units import Plan
from zonal.work import part_name

TABLE = "stats.parquet"
DATASET = "stats"
WORK = ".work"
RUN = f"{WORK}/run.json"


@dataclass(frozen=True)
class Output:
    """One year's output folder.

    Parameters
    ----------
    folder : Folder
    """

    folder: Folder

    @contextmanager
    def locked(self, *, fresh: bool) -> Iterator[None]:
        """Hold the folder while working in it; leave nothing behind that a resume cannot use.

        Raises
        ------
        OtherRunError
            If the folder holds a table that is not from zonal.
        LockedError
            If another run holds it.
        """
        folder = self.folder
        if not fresh and not folder.exists(MANIFEST) and not folder.exists(RUN):
            for name in (TABLE, DATASET):
                if folder.exists(name):
                    raise OtherRunError(
                        f"{folder.shown(name)} exists without {MANIFEST}: it is no finished table of zonal; "
                        "choose another --output, or --fresh to replace it"
                    )
        try:
            with folder.sub(WORK).locked():
                try:
                    yield
                except BaseException:
                    with suppress(ZonalError):  # what ended the run matters more
                        self._tidy()
                    raise
                self._tidy()
        finally:
            folder.prune(WORK)

    def _tidy(self) -> None:
        if not self.folder.exists(RUN):  # done, or failed before any work
            for name in set(self.folder.names(WORK)) - {LOCK}:
                self.folder.remove(f"{WORK}/{name}")

    def manifest(self) -> dict[str, Any] | None:
        """Return the manifest of a published run, if the folder holds one with all its files."""
        manifest = self.folder.read_json(MANIFEST)
        if manifest is None or not all(
            self.folder.exists(name) for name in manifest.get("files", [MANIFEST])
        ):
            return None
        return manifest

    def finished(self, fingerprint: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the manifest of this very run if it is done; None if it is not, or not begun.

        Raises
        ------
        OtherRunError
            If the folder holds another run, done or not; names what differs.
        """
        manifest, begun = self.folder.read_json(MANIFEST), self.folder.read_json(RUN)
        wanted = digest(fingerprint)
        for kind, other in (("a finished run", manifest), ("an unfinished run", begun)):
            if other is not None and other.get("fingerprint") != wanted:
                what = difference(other.get("fingerprint_of", {}), fingerprint)
                raise OtherRunError(
                    f"{self.folder.shown()} holds {kind}: {what}; "
                    "choose another --output, or --fresh to replace it"
                )
        return self.manifest()

    def parts(self, fingerprint: Mapping[str, Any], plan: Plan) -> Folder:
        """Return the folder of a run's finished parts; other cuts into parts have another one."""
        cuts = {"run": digest(fingerprint), "parts": [part.zones for part in plan.parts]}
        return self.folder.sub(WORK).sub(f"parts-{digest(cuts)[:16]}")

    def begin(self, fingerprint: Mapping[str, Any], plan: Plan, *, fresh: bool) -> Folder:
        """Mark the folder as this run's and return the folder of its parts; `fresh` drops older ones."""
        if fresh:
            self.folder.remove(MANIFEST)
            for name in self.folder.names(WORK):
                if name.startswith("parts-"):
                    self.folder.remove(f"{WORK}/{name}")
        self.folder.write_json(RUN, {"fingerprint": digest(fingerprint), "fingerprint_of": fingerprint})
        return self.parts(fingerprint, plan)

    def publish(
        self, plan: Plan, staged: Stage, parts: Folder, columns: Columns, about: Mapping[str, Any]
    ) -> list[str]:
        """Make the table of finished parts: one file, or for several states a dataset of one folder each.

        Returns
        -------
        list of str
            Names of the files, in order: what the manifest publishes.
        """
        names = [part_name(part.number) for part in plan.parts]
        self.folder.remove(MANIFEST)  # from here until `commit`, nothing is published
        self._clear_dataset()
        if not staged.partitioned:
            merge_parts(parts, names, self.folder, TABLE, pyproj.CRS(staged.crs), about, columns)
            return [TABLE]
        self.folder.remove(TABLE)
        files = []
        for part, name in zip(plan.parts, names, strict=True):
            target = f"{DATASET}/state={staged.batches[part.batch].label}/{name}"
            self.folder.copy(f"{WORK}/{parts.url.rsplit('/', 1)[-1]}/{name}", target)
            files.append(target)
        return files

    def _clear_dataset(self) -> None:
        """Remove the parts of an older dataset, and nothing that zonal did not write."""
        for state in self.folder.names(DATASET):
            for name in self.folder.names(f"{DATASET}/{state}"):
                if re.fullmatch(r"state=\w+/part-\d{5,}\.parquet", f"{state}/{name}"):
                    self.folder.remove(f"{DATASET}/{state}/{name}")
            self.folder.sub(DATASET).prune(state)

    def abandon(self) -> None:
        """Forget a run that cannot end well: nothing of it is worth resuming."""
        self.folder.remove(RUN)

    def commit(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest, then clear the work away."""
        self.folder.write_json(MANIFEST, manifest)
        self.folder.remove(RUN)  # first: without it, whatever else is left is rubbish
        for name in set(self.folder.names(WORK)) - {LOCK}:
            self.folder.remove(f"{WORK}/{name}")
