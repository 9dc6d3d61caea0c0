"""What an output holds, as one page.

Knows which files of an output say what, and reads the table for what they do not
say; leaves words, charts and HTML to `page`.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyproj
import shapely
from affine import Affine
from PIL import Image

from zonal.errors import InputError, first_line
from zonal.events import Notify, telling
from zonal.findings.evaluation.presenter import percent
from zonal.findings.evaluation.schema import Evaluation
from zonal.findings.evaluation.targets import LAND, numbers
from zonal.findings.features import feature_names
from zonal.findings.map.canvas import burn
from zonal.findings.places import COORDINATE_COLUMNS, Geometry, project
from zonal.findings.report.charts import Histogram, histogram, ramp
from zonal.findings.report.page import Page, Picture, render, short, title
from zonal.findings.table import Floats, floats
from zonal.geo.antimeridian import Geometries
from zonal.geo.crs import WGS84, operation, unit_name
from zonal.io.store.folder import Folder
from zonal.io.table.finished import FinishedTable
from zonal.io.table.names import EVALUATION, MANIFEST, MAP, STEPS_MADE

PCA_SCHEMA = 1
"""Version of `pca.json` that is read."""

WIDE = 900
"""Pixels of the longer side of the map of `valid_fraction`."""

SIDES = (1600, 1200, 900, 600, 400, 300, 200)
"""Pixels of the longer side of previews: the first that keeps all of them under `MOST_BYTES`."""
MOST_BYTES = 3_000_000

WHOLE = 0.999
"""Of its ground, that a zone has valid pixels on which misses none."""

UNITS = {"metre": "m", "degree": "degrees"}
"""Short names of the units of a CRS."""

CHANNELS = ("red", "green", "blue")


def report(folder: Folder, file: str, *, table: FinishedTable, notify: Notify) -> None:
    """Write the page on an output.

    Parameters
    ----------
    folder : Folder
        The output.
    file : str
        Name of the page inside.
    table : FinishedTable
        The output's.
    notify : callable
        Told where something is left out.

    Raises
    ------
    InputError
        If a file of the output is not what its name says.
    """
    manifest = folder.read_json(MANIFEST)
    if manifest is None:
        raise InputError(f"{folder.shown()}: no {MANIFEST}, so no finished run to report on")
    made = folder.read_json(STEPS_MADE) or {}
    done = {name for entry in made.values() if entry.get("key") for name in entry["files"]}
    evaluation = _evaluation(folder) if f"{EVALUATION}.json" in done else None
    pca = _pca(folder) if f"{MAP}.json" in done else None
    lacking = {
        step: (made.get(step, {}).get("skipped") or f"the step {step} was not taken").rstrip(".")
        for step, value in {"evaluate": evaluation, "pca": pca}.items()
        if value is None
    }
    files = [name for step, entry in made.items() if step != "report" for name in entry["files"]]
    page = Page(
        manifest=manifest,
        about=table.about or {},
        columns=len(table.schema),
        features=_features(table),
        evaluation=evaluation,
        pca=pca,
        lacking=lacking,
        maps=() if pca is None else _maps(folder, title(manifest), pca),
        valid=_valid(table, pca, notify),
        histograms=_histograms(table, pca),
        files=(manifest["table"], MANIFEST, *files),
        seconds={step: made[step]["seconds"] for step in ("pca", "evaluate") if step in made},
    )
    folder.write(file, render(page).encode())


def _evaluation(folder: Folder) -> Evaluation | None:
    name = f"{EVALUATION}.json"
    if not folder.exists(name):
        return None
    try:
        return Evaluation.model_validate_json(folder.read(name))
    except ValueError as error:
        raise InputError(
            f"{folder.shown(name)} is no evaluation of this version of zonal ({first_line(error)}); "
            "make it again with zonal evaluate"
        ) from None


def _pca(folder: Folder) -> dict[str, Any] | None:
    name = f"{MAP}.json"
    pca = folder.read_json(name)
    if pca is not None and pca.get("schema_version") != PCA_SCHEMA:
        raise InputError(
            f"{folder.shown(name)} describes no map of this version of zonal (schema_version "
            f"{pca.get('schema_version')}, expected {PCA_SCHEMA}); make it again with zonal pca"
        )
    return pca


def _features(table: FinishedTable) -> int:
    # A table without any has a page as well.
    with contextlib.suppress(InputError):
        return len(feature_names(table, exclude=COORDINATE_COLUMNS))
    return 0


# ------------------------------------------------------------------ maps


def _maps(folder: Folder, name: str, pca: Mapping[str, Any]) -> tuple[Picture, ...]:
    """Previews of the maps, small enough for all of them to travel in one page."""
    pngs = _fitting([_preview(folder, drawn["preview"]) for drawn in pca["maps"]])
    pictures = []
    for drawn, png in zip(pca["maps"], pngs, strict=True):
        width, height = Image.open(io.BytesIO(png)).size
        unit = UNITS.get(unit_name(drawn["crs"]), unit_name(drawn["crs"]))
        caption = (
            f"{drawn['state'] or name}: {drawn['zones']:,} zones on pixels of {drawn['resolution']:g} {unit}"
        )
        # Slivers, for the most part.
        if drawn["not_drawn"]:
            caption += f", {drawn['not_drawn']:,} more without any pixel of their own"
        pictures.append(Picture(png, width, height, _ground(drawn["crs"], drawn["bounds"]), caption))
    return tuple(pictures)


def _preview(folder: Folder, name: str) -> bytes:
    try:
        return folder.read(name)
    except FileNotFoundError:
        raise InputError(f"{folder.shown(name)} is gone; make it again with zonal pca") from None


def _fitting(pngs: Sequence[bytes]) -> Sequence[bytes]:
    """Shrink pictures, all to one size, until they fit."""
    fitting = pngs
    for side in SIDES:
        if sum(map(len, fitting)) <= MOST_BYTES:
            break
        fitting = [_shrunk(png, side) for png in pngs]
    return fitting


def _shrunk(png: bytes, side: int) -> bytes:
    image = Image.open(io.BytesIO(png))
    image.thumbnail((side, side), Image.Resampling.BOX)
    return _png(image)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _ground(crs: str, bounds: Sequence[float]) -> float:
    """Width of a box on the ground half-way up, metres."""
    west, south, east, north = bounds
    x, y = np.array([west, (west + east) / 2, east]), np.full(3, (south + north) / 2)
    lon, lat = operation(crs, WGS84).transform(x, y)
    return float(pyproj.Geod(ellps="WGS84").line_length(lon, lat))


def _valid(table: FinishedTable, pca: Mapping[str, Any] | None, notify: Notify) -> Picture | None:
    """Draw `valid_fraction`, some thousand zones at a time; None where zones have no place."""
    column = "valid_fraction"
    geometry = Geometry.find(table)
    if geometry is None or column not in table.schema.names:
        telling(notify)(f"{table.name} has no geometry or no {column}: the report has no map of it")
        return None
    boxes = np.concatenate(
        [np.empty((0, 4)), *(shapely.bounds(zones) for zones, _ in geometry.polygons(table))]
    )
    boxes = boxes[np.isfinite(boxes).all(axis=1)]
    if not len(boxes):
        return None
    crs = (
        pca["maps"][0]["crs"] if pca is not None and len(pca["maps"]) == 1 else _centred(boxes, geometry.crs)
    )
    x, y = operation(geometry.crs, crs).transform(
        boxes[:, [0, 0, 2, 2]].ravel(), boxes[:, [1, 3, 1, 3]].ravel()
    )
    x, y = x[np.isfinite(x)], y[np.isfinite(y)]
    if not len(x) or not len(y):
        return None
    west, north = float(x.min()), float(y.max())
    size = max(x.max() - west, north - y.min()) / WIDE or 1.0
    shape = (max(1, round((north - y.min()) / size)), max(1, round((x.max() - west) / size)))
    values, shares = np.full(shape, np.nan), [np.empty(0)]
    for polygons, columns in geometry.polygons(table, [column]):
        shares.append(floats(columns[column]))
        drawn = _drawable(project(polygons, geometry.crs, crs), west, north, size)
        zone = burn(drawn, Affine(size, 0, west, 0, -size, north), shape)
        values[zone >= 0] = shares[-1][zone[zone >= 0]]
    png = _png(Image.fromarray(ramp(values)))
    bounds = (west, north - shape[0] * size, west + shape[1] * size, north)
    ground = _ground(crs, bounds)
    caption = f"{_missing(np.concatenate(shares))} Drawn at {short(ground / shape[1])} m a pixel."
    return Picture(png, shape[1], shape[0], ground, caption)


def _centred(boxes: Floats, crs: str) -> str:
    """Make an equal-area CRS around the middle of most zones: north is up there, wherever it is."""
    lon, lat = operation(crs, WGS84).transform(boxes[:, 0], boxes[:, 1])
    middle = [float(np.median(values[np.isfinite(values)])) for values in (lon, lat)]
    return f"+proj=laea +lon_0={middle[0]:.2f} +lat_0={middle[1]:.2f} +datum=WGS84 +units=m +type=crs"


def _drawable(polygons: Geometries, west: float, north: float, size: float) -> Geometries:
    """Empty the polygons that have no place, or whose box holds no pixel's centre: the others take time."""
    bounds = shapely.bounds(polygons)
    columns = (bounds[:, [0, 2]] - west) / size - 0.5
    rows = (north - bounds[:, [3, 1]]) / size - 0.5
    hair = 1e-6
    seen = [np.floor(ends[:, 1] + hair) >= np.ceil(ends[:, 0] - hair) for ends in (columns, rows)]
    return np.where(seen[0] & seen[1], polygons, shapely.Polygon())


def _missing(shares: Floats) -> str:
    """Say how many zones miss pixels."""
    known = shares[np.isfinite(shares)]
    if not len(known):
        return "No zone has an area in pixels."
    whole, none, placeless = (known >= WHOLE).mean(), int((known == 0).sum()), len(shares) - len(known)
    sentence = f"{percent(whole)} of zones have them everywhere"
    sentence += f"; {none:,} nowhere" if none else ""
    return sentence + (f"; {placeless:,} have no area." if placeless else ".")


# ------------------------------------------------------------------ distributions


def _histograms(table: FinishedTable, pca: Mapping[str, Any] | None) -> tuple[Histogram, ...]:
    """How large zones are, how much of them is seen, and how they lie along the map's components."""
    names = {*table.schema.names}
    histograms = []
    if "pixel_count" in names:
        values = floats(table.read(["pixel_count"])[0])
        histograms.append(histogram("Pixels of a zone", values, logarithmic=True))
    land = next((name for name in LAND if name in names), None)
    if land is not None:
        values = numbers(land, table.read([land])[0]) / 1e6
        histograms.append(histogram("Land area of a zone, km²", values, logarithmic=True))
    if "valid_fraction" in names:
        values = floats(table.read(["valid_fraction"])[0])
        histograms.append(histogram("Share of a zone with valid pixels", values, ends=(0.0, 1.0)))
    if pca is not None and names.issuperset(pca["features"]):
        loadings = np.array(pca["loadings"]) / pca["scale"]
        scores = [np.empty((0, len(loadings)))]
        for batch in table.batches(pca["features"]):
            values = np.column_stack([floats(batch[name]) for name in pca["features"]])
            scores.append((values - pca["mean"]) @ loadings.T)
        kinds = CHANNELS if len(loadings) > 1 else ("grey",)
        for number, (kind, column) in enumerate(zip(kinds, np.concatenate(scores).T, strict=False), 1):
            known = column[np.isfinite(column)]
            if len(known):
                low, high = np.percentile(known, (0.1, 99.9)).tolist()
                histograms.append(histogram(f"PC{number}", known, kind=kind, ends=(low, high)))
    return tuple(counts for counts in histograms if counts is not None)
