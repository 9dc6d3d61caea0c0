"""A table drawn as a map: its features' principal components as colours, burned window by window.

Knows which numbers become which pixels and where windows are painted; leaves
components, canvas, polygons and file formats to the modules that know them.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj

from zonal.cluster.runner import Runner
from zonal.config.analysis import MapSettings
from zonal.errors import UnfitError, UsageError, first_line
from zonal.events import Event, Notify
from zonal.findings.features import feature_names, read_features
from zonal.findings.gram import Gram
from zonal.findings.map.canvas import MOST_PIXELS, Window, canvas, painted, unpacked, zones_by_window
from zonal.findings.map.picture import painting, preview, write_cog
from zonal.findings.map.polygons import Shapes, Spool, batches, put_aside
from zonal.findings.map.style import qml
from zonal.findings.pca import Components, Stretch, components_of
from zonal.findings.places import COORDINATE_COLUMNS, Geometry, best_utm, read_points
from zonal.findings.table import base_name
from zonal.geo.crs import crs_name, unit_name
from zonal.geo.grid import Grid
from zonal.io.store.disk import writable
from zonal.io.store.folder import Folder
from zonal.io.table.finished import FinishedTable

SCHEMA_VERSION = 1
"""Of `pca.json`; goes up when a reader must know."""

PREVIEW = 1600
"""Pixels of the preview's longer side, at most."""

AT_ONCE = 8
"""Windows handed out together, for each thread of the workers."""


@dataclass(frozen=True, slots=True)
class Map:
    """One raster that was drawn, with what was written beside it.

    Parameters
    ----------
    files : tuple of str
        Names inside the folder.
    about : dict
        Its entry under ``maps`` in `pca.json`.
    """

    files: tuple[str, ...]
    about: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Coloured:
    """The rows of a table that have every feature, kept[row of the table], and their colours[row kept, 3]."""

    kept: npt.NDArray[np.bool_]
    colours: npt.NDArray[np.uint8]


def draw(
    table: FinishedTable,
    asked: MapSettings,
    folder: Folder,
    name: str,
    style: str,
    runner: Runner,
    notify: Notify,
) -> list[Map]:
    """Draw a table: a Cloud-Optimized GeoTIFF and a preview, of each state where it is a dataset of several.

    Parameters
    ----------
    table : FinishedTable
    asked : MapSettings
    folder : Folder
        Where files are written.
    name : str
        Of the files, without their ends: ``{name}.tif``, ``{name}.png``, ``{name}.json``; with several
        states ``{name}/state=WA.tif`` and ``.png``.
    style : str
        Name of the QGIS style.
    runner : Runner
        Where windows are painted.
    notify : callable

    Raises
    ------
    InputError
        If the table has no geometry, no features, or nothing of it can be drawn.
    UsageError
        If the CRS asked for is unknown.
    """
    # A table that cannot be drawn is refused before its features are read.
    Geometry.of(table)
    crs = None if asked.crs is None else _known(asked.crs)
    parts = table.by_state()
    components, stretch, coloured = _colour(table, parts, asked)
    findings = _findings(
        table, asked, components, stretch, sum(len(rows.colours) for rows in coloured.values())
    )
    home, slash, base = name.rpartition("/")
    artist = _Artist(folder, home + slash, _tags(findings, table.about or {}), runner, notify)
    maps: list[Map] = []
    for state, part in parts.items():
        apart = state if len(parts) > 1 else None
        stem = f"{base}/state={state}" if apart else base
        try:
            place = crs or _best_crs(part)
            maps.append(artist.draw(part, coloured[state], place, asked.resolution, stem, apart))
        except _EmptyError as error:
            if len(parts) == 1:
                raise
            notify(Event("warning", f"no map of {state}: {error}"))
    if not maps:
        raise UnfitError(f"{table.name}: of no state is there anything to draw")
    folder.write_json(f"{name}.json", {**findings, "maps": [drawn.about for drawn in maps]})
    folder.write(style, qml(components, stretch).encode())
    maps[0] = replace(maps[0], files=(*maps[0].files, f"{name}.json", style))
    return maps


class _EmptyError(UnfitError):
    """There is nothing to draw."""


def _known(crs: str) -> str:
    """Name a CRS as `Geometry` does: by its code if it has one."""
    try:
        return crs_name(pyproj.CRS(crs))
    except pyproj.exceptions.CRSError as error:
        raise UsageError(
            f"crs {crs!r}: expected a code such as EPSG:32610, or WKT: {first_line(error)}"
        ) from None


def _best_crs(table: FinishedTable) -> str:
    points = read_points(table)
    # `draw` has refused a table without geometry.
    assert points is not None
    return best_utm(points)


# ------------------------------------------------------------------ colours and findings


def _colour(
    table: FinishedTable, parts: Mapping[str | None, FinishedTable], asked: MapSettings
) -> tuple[Components, Stretch, dict[str | None, _Coloured]]:
    """Find one set of components and one stretch for all parts of a table, and each row's colour."""
    names = feature_names(table, exclude=COORDINATE_COLUMNS)
    features = {state: read_features(part, names) for state, part in parts.items()}
    gram = Gram.empty(len(names))
    for rows in features.values():
        gram += Gram.of(rows.values)
    components = components_of(gram, names, standardize=asked.standardize)
    shown = components_of(gram, names, components=3, standardize=asked.standardize)
    scores = {state: shown.scores(rows.values) for state, rows in features.items()}
    stretch = Stretch.of(np.concatenate([*scores.values()]), asked.percentiles)
    coloured = {
        state: _Coloured(rows.kept, stretch.colours(scores[state])) for state, rows in features.items()
    }
    return components, stretch, coloured


def _findings(
    table: FinishedTable, asked: MapSettings, components: Components, stretch: Stretch, coloured: int
) -> dict[str, Any]:
    """Say what the colours mean: `pca.json` but for its maps."""
    return {
        "schema_version": SCHEMA_VERSION,
        "zonal_version": version("zonal"),
        "table": base_name(table.place),
        "year": (table.about or {}).get("year"),
        "features": list(components.features),
        "standardized": components.standardized,
        "zones": table.rows,
        "without_features": table.rows - coloured,
        "percentiles": list(asked.percentiles),
        "explained": components.explained.tolist(),
        "loadings": components.loadings[:3].tolist(),
        "mean": components.mean.tolist(),
        "scale": components.scale.tolist(),
        "low": stretch.low.tolist(),
        "high": stretch.high.tolist(),
    }


def _tags(findings: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, str]:
    """Say the same in a file's own metadata, with the sources: rasters outlive what lies beside them."""
    tags = {**findings, **{key: about.get(key) for key in ("vintage", "sources", "citations", "licences")}}
    return {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in tags.items()
        if value is not None
    }


# ------------------------------------------------------------------ one raster


@dataclass(frozen=True, slots=True)
class _Artist:
    """Draws one raster after the other.

    Parameters
    ----------
    folder : Folder
    home : str
        What the names of files inside the folder begin with.
    tags : mapping of str to str
        Of each raster.
    runner : Runner
    notify : callable
    """

    folder: Folder
    home: str
    tags: Mapping[str, str]
    runner: Runner
    notify: Notify

    def draw(
        self,
        part: FinishedTable,
        coloured: _Coloured,
        crs: str,
        resolution: float,
        stem: str,
        state: str | None,
    ) -> Map:
        """Draw the zones of a table, or of a part of it."""
        scratch = tempfile.gettempdir()
        with (
            writable(scratch),
            tempfile.TemporaryDirectory(prefix="zonal-", dir=scratch, ignore_cleanup_errors=True) as place,
            Spool(Path(place)) as spool,
        ):
            shapes = put_aside(part, coloured.kept, crs, spool)
            grid = self._grid(shapes, crs, resolution, stem)
            painted = Path(place) / "painted.tif"
            shown = self._paint(grid, shapes, coloured.colours[shapes.row], spool, painted)
            cog = Path(place) / "map.tif"
            write_cog(painted, cog)
            names = tuple(f"{self.home}{stem}{end}" for end in (".tif", ".png"))
            self.folder.write(names[1], preview(cog, PREVIEW))
            with self.folder.create(names[0]) as draft:
                shutil.copyfile(cog, draft)
        about = {
            "file": f"{stem}.tif",
            "preview": f"{stem}.png",
            "state": state,
            "crs": crs,
            "resolution": grid.dx,
            "resolution_asked": resolution,
            "bounds": list(grid.bounds),
            "width": grid.width,
            "height": grid.height,
            "zones": shown,
            "not_drawn": len(coloured.colours) - shown,
        }
        return Map(names, about)

    def _grid(self, shapes: Shapes, crs: str, asked: float, stem: str) -> Grid:
        """Choose the grid, and say which."""
        name, unit = pyproj.CRS(crs).name, unit_name(crs)
        if name == "unknown":
            name = "a CRS without a name"
        if shapes.lost:
            zones = "1 zone has" if shapes.lost == 1 else f"{shapes.lost:,} zones have"
            self._warn(f"{stem}: {zones} no place in {name} and no place on the map")
        if not len(shapes.row):
            raise _EmptyError(f"{stem}: no zone with statistics has a polygon in {name}")
        west, south = shapes.boxes[:, :2].min(axis=0).tolist()
        east, north = shapes.boxes[:, 2:].max(axis=0).tolist()
        grid = canvas((west, south, east, north), crs, asked)
        if grid.dx > asked:
            self._warn(
                f"{stem}: at {asked:g} {unit} the map would have {MOST_PIXELS:,} pixels or more; "
                f"it is drawn at {grid.dx:g} {unit}"
            )
        self.notify(
            Event(
                "info",
                f"{stem}: {len(shapes.row):,} zones on {grid.width:,} x {grid.height:,} pixels "
                f"of {grid.dx:g} {unit}, {name}",
            )
        )
        return grid

    def _paint(
        self, grid: Grid, shapes: Shapes, colours: npt.NDArray[np.uint8], spool: Spool, path: Path
    ) -> int:
        """Paint a map and return how many zones have a pixel."""
        touched = zones_by_window(grid, shapes.boxes)
        seen = np.zeros(len(shapes.row), bool)
        # A cluster may be shared: keys of two maps must differ.
        run = uuid.uuid4().hex
        with painting(path, grid, self.tags) as put:
            for some in batches(touched, spool.sizes(), AT_ONCE * self.runner.threads):
                graph = {}
                for window in some:
                    zones = touched[window]
                    task = Window(grid, window, spool.take(zones), colours[zones])
                    graph[f"map-{run}", window] = (painted, task)
                for (_, window), (packed, visible) in self.runner.run(graph, list(graph)):
                    seen[touched[window]] |= visible
                    if visible.any():
                        put(window, unpacked(packed, grid.chunk(window)))
        shown = int(seen.sum())
        pixel = f"the centre of a pixel of {grid.dx:g} {unit_name(grid.crs)}"
        if not shown:
            raise _EmptyError(f"no zone holds {pixel}: choose a smaller resolution")
        if 2 * shown < len(seen):
            self._warn(f"only {shown:,} of {len(seen):,} zones hold {pixel}; a smaller resolution shows more")
        return shown

    def _warn(self, text: str) -> None:
        self.notify(Event("warning", text))
