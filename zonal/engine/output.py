"""The output folder of a run: its lock, what it holds, and publishing.

Knows which file means what and in which order they appear; gets finished parts
and a manifest, and computes nothing. The manifest is the commit mark.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

import pyproj

from zonal.config.catalog import Catalog
from zonal.config.settings import Settings
from zonal.credentials import without_credentials
from zonal.engine.fingerprint import difference, digest
from zonal.errors import LockedError, OtherRunError, ZonalError
from zonal.io.store.folder import Folder
from zonal.io.store.lock import Lock, locked
from zonal.io.table.names import (
    DATASET,
    LOCK,
    MANIFEST,
    MAP,
    PLACES,
    RUN_FILE,
    STEPS_MADE,
    TABLE,
    WORK,
    in_dataset,
    is_finding,
    is_in_dataset,
    is_ours,
    part_name,
)
from zonal.io.table.table import TableColumns, merge_parts
from zonal.planning.inputs import policy_of
from zonal.planning.stage import Stage
from zonal.planning.units import Plan


@dataclass(frozen=True)
class Output:
    """One year's output folder.

    Parameters
    ----------
    folder : Folder
    """

    folder: Folder

    @contextmanager
    def locked(self, *, fresh: bool, tell: Callable[[str], None] = lambda _: None) -> Iterator[Lock]:
        """Hold the folder while working in it; leave nothing behind that a resume cannot use.

        Raises
        ------
        OtherRunError
            If the folder holds a table that is not from zonal.
        LockedError
            If another run holds it.
        """
        folder = self.folder
        # In this order: a run that ends meanwhile has its manifest before its mark goes.
        if not fresh and not folder.exists(RUN_FILE) and not folder.exists(MANIFEST):
            for name in (TABLE, DATASET):
                if folder.exists(name):
                    raise OtherRunError(
                        f"{folder.shown(name)} exists without {MANIFEST}: it is no finished table of zonal; "
                        "choose another --output, or --fresh to replace it"
                    )
        try:
            with locked(folder.sub(WORK), tell=tell) as lock:
                with suppress(ZonalError):  # who may write need not be allowed to list uploads
                    folder.clear_drafts(is_ours, PLACES)
                if folder.exists(RUN_FILE) and self.unfinished() is None:
                    folder.remove(RUN_FILE)  # killed when all but this was done
                try:
                    yield lock
                except Exception as error:  # whoever takes the folder over takes the ground from under a run
                    with suppress(ZonalError):
                        lock.confirm()
                    if lock.lost is not None:
                        raise lock.lost from error
                    raise
                finally:
                    with suppress(ZonalError):  # how the run ended matters more
                        self._tidy(lock)
        finally:
            folder.prune(WORK)

    def _tidy(self, lock: Lock) -> None:
        lock.confirm()  # of another's work, nothing is removed
        if not self.folder.exists(RUN_FILE):  # done, or failed before any work
            self._clear_work()

    def _clear_work(self) -> None:
        for name in set(self.folder.names(WORK)) - {LOCK}:
            self.folder.remove(f"{WORK}/{name}")

    def published(self) -> dict[str, Any] | None:
        """Return the manifest of a published run, if the folder holds one with all its files."""
        manifest = self.folder.read_json(MANIFEST)
        if manifest is None or not all(
            self.folder.exists(name) for name in manifest.get("files", [MANIFEST])
        ):
            return None
        return manifest

    def unfinished(self) -> dict[str, Any] | None:
        """Return what is known of a run that has begun here and has not ended.

        With `--fresh` it may lie beside a finished run, whose manifest and table stay until it ends.
        """
        begun = self.folder.read_json(RUN_FILE)
        manifest = self.folder.read_json(MANIFEST)
        if begun is None or manifest is None or begun.get("replaces") == digest(manifest):
            return begun
        return None if begun.get("fingerprint") == manifest.get("fingerprint") else begun

    def manifest(self) -> dict[str, Any] | None:
        """Return the manifest of a published run, unless the same run was begun anew since."""
        manifest, begun = self.published(), self.unfinished()
        if manifest and begun and begun.get("fingerprint") == manifest.get("fingerprint"):
            return None
        return manifest

    def finished(self, fingerprint: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the manifest of this very run if it is done; None if it is not, or not begun.

        Raises
        ------
        OtherRunError
            If the folder holds another run, done or not; names what differs.
        """
        wanted = digest(fingerprint)
        manifest = self.manifest()
        if manifest is not None and manifest.get("fingerprint") == wanted:
            return manifest
        kind, other = "an unfinished run", self.unfinished()
        if other is None:
            kind, other = "a finished run", self.folder.read_json(MANIFEST)
        if other is not None and other.get("fingerprint") != wanted:
            what = difference(other.get("fingerprint_of", {}), fingerprint)
            raise OtherRunError(
                f"{self.folder.shown()} holds {kind}: {what}; "
                "choose another --output, or --fresh to replace it"
            )
        return None

    def begin(self, fingerprint: Mapping[str, Any], plan: Plan, lock: Lock, *, fresh: bool) -> Folder:
        """Mark the folder as this run's and return the folder of its parts.

        What the folder holds of the same unfinished run goes on, but not with `fresh`; other cuts into parts
        have another folder. A finished run stays as it is until `commit`.
        """
        begun = self.unfinished()
        if fresh or begun is None or begun.get("fingerprint") != digest(fingerprint):
            manifest = self.folder.read_json(MANIFEST)
            begun = {
                "id": uuid.uuid4().hex,  # so that no older part is taken for one of this run
                "begun": datetime.now(UTC).isoformat(timespec="seconds"),
                "fingerprint": digest(fingerprint),
                "fingerprint_of": fingerprint,
                "replaces": digest(manifest) if manifest is not None else None,
            }
        cuts = [part.zones for part in plan.parts]
        name = f"parts-{digest({'run': begun.get('id'), 'of': begun['fingerprint'], 'parts': cuts})[:16]}"
        lock.confirm()
        sizes = [stop - start for start, stop in cuts]
        self.folder.write_json(RUN_FILE, {**begun, "parts": name, "zones": sizes})
        if fresh:
            for other in self.folder.names(WORK):
                if other.startswith("parts-") and other != name:
                    self.folder.remove(f"{WORK}/{other}")
        return self.folder.sub(WORK).sub(name)

    def assemble(
        self, plan: Plan, staged: Stage, parts: Folder, columns: TableColumns, about: Mapping[str, Any]
    ) -> list[str]:
        """Make the table of finished parts, where nobody sees it yet.

        Returns
        -------
        list of str
            Names that its files will have, in order: what the manifest publishes. One file, or for several
            states a dataset of one folder each.
        """
        names = [part_name(part.number) for part in plan.parts]
        if not staged.partitioned:
            merge_parts(parts, names, parts, TABLE, pyproj.CRS(staged.crs), about, columns)
            return [TABLE]
        states = [staged.batches[part.batch].label for part in plan.parts]
        return [in_dataset(state, name) for state, name in zip(states, names, strict=True)]

    def commit(self, manifest: Mapping[str, Any], parts: Folder, lock: Lock) -> None:
        """Publish what was assembled, the manifest last; then clear the work away.

        Everything is on the store before anything older goes, so that what is left is to give names.
        """
        folder, work = self.folder, f"{WORK}/{parts.url.rsplit('/', 1)[-1]}"
        folder.write_json(f"{work}/{MANIFEST}", manifest)
        lock.confirm()
        try:
            folder.remove(MANIFEST)  # from here until it is there again, nothing is published
            self._clear_findings()
            self._clear_dataset()
            if manifest["files"] == [TABLE]:
                folder.move(f"{work}/{TABLE}", TABLE)
            else:
                folder.remove(TABLE)
                for name in manifest["files"]:
                    lock.check()
                    folder.copy(f"{work}/{name.rsplit('/', 1)[-1]}", name)
            lock.check()
            folder.move(f"{work}/{MANIFEST}", MANIFEST)
        except LockedError:  # what is there now may be another's
            raise
        except BaseException:
            with suppress(ZonalError):
                lock.confirm()
            if lock.lost is None:  # else it may have failed because another run published here
                with suppress(ZonalError):
                    for name in (MANIFEST, TABLE):
                        folder.remove(name)
                    self._clear_dataset()
            raise
        lock.check()  # of another's work, nothing is removed
        folder.remove(RUN_FILE)  # first: without it, whatever else is left is rubbish
        self._clear_work()

    def _clear_findings(self) -> None:
        """Remove what was made of an older table."""
        made = self.folder.read_json(STEPS_MADE)
        for entry in (made or {}).values():
            for name in entry["files"]:
                if is_finding(name):
                    self.folder.remove(name)
        self.folder.remove(STEPS_MADE)
        self.folder.prune(MAP)

    def _clear_dataset(self) -> None:
        """Remove the parts of an older dataset, and nothing that zonal did not write."""
        for state in self.folder.names(DATASET):
            for name in self.folder.names(f"{DATASET}/{state}"):
                if is_in_dataset(f"{DATASET}/{state}/{name}"):
                    self.folder.remove(f"{DATASET}/{state}/{name}")
            self.folder.sub(DATASET).prune(state)

    def abandon(self) -> None:
        """Forget a run that cannot end well: nothing of it is worth resuming."""
        self.folder.remove(RUN_FILE)


def outputs(settings: Settings, catalog: Catalog) -> dict[int | None, Output]:
    """Where the table of each year goes."""
    return {year: Output(folder_of(settings, catalog, str(year))) for year in settings.year or (None,)}


def folder_of(settings: Settings, catalog: Catalog, year: str) -> Folder:
    """Fill in what the output's name leaves open; that of several years ends in the year."""
    url = (settings.output or default_output(settings)).rstrip("/") or "/"
    if len(settings.year) > 1 and "{year}" not in url:
        url += "-{year}"
    url = url.replace("{state}", settings.place).replace("{year}", year)
    policy = replace(policy_of(settings), twice=False, cache=None)  # what a run writes is its own
    return Folder(url, catalog.storage_options(url), policy)


def default_output(settings: Settings) -> str:
    """``./zonal-out/WA-2020``; of several years, their common beginning; other zones and rasters by name."""
    words = [settings.place] if settings.state else []
    for name in ("zones", "raster"):
        value = getattr(settings, name)
        if value != type(settings).model_fields[name].default:
            first = value if isinstance(value, str) else value[0]
            words.append(PurePosixPath(without_credentials(first).split("?")[0]).stem)
    words += [str(year) for year in settings.year] if len(settings.year) == 1 else []
    return "./zonal-out/" + "-".join(words)
