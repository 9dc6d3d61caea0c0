"""The page on a run: what it shows, in which words and order.

Knows manifests, evaluations and `pca.json` as values, and pictures as bytes;
knows neither files nor tables. The page is one file that asks for nothing else.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from zonal.config import states
from zonal.findings.evaluation import presenter
from zonal.findings.evaluation.presenter import NONE, figure, percent, target_name
from zonal.findings.evaluation.schema import Evaluation
from zonal.findings.report import exhibits
from zonal.findings.report.charts import RAMP, Bar, Histogram, Scale, bar, nice_length
from zonal.findings.report.post import Pair, beside, is_of
from zonal.text import human

STAGES = {
    "staging": "staging zones",
    "planning": "planning",
    "waiting": "waiting for workers",
    "computing": "computing",
    "publishing": "publishing",
}

BYTES = {
    "fetched": "fetched of chunks",
    "headers": "headers of tiles",
    "cached": "from the cache",
    "staged_read": "staged zones read",
}

COVERAGE = {
    "fractional": "a pixel on an edge counts by its share inside",
    "center": "a pixel counts where its centre lies",
}

STATISTICS = {"std": "standard deviation", "min": "minimum", "max": "maximum"}
"""Words for statistics whose names are none."""

LONGEST = 0.3
"""Of a map's width, that its scale bar has at most."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A map as PNG.

    Parameters
    ----------
    png : bytes
    width, height : int
        Pixels.
    ground : float
        Width on the ground, metres, half-way up.
    caption : str
    """

    png: bytes = field(repr=False)
    width: int
    height: int
    ground: float
    caption: str

    @property
    def src(self) -> str:
        """As the address of an image."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()

    @property
    def bar(self) -> tuple[str, float]:
        """The scale bar: its words, and its length in per cent of the width."""
        length = nice_length(self.ground * LONGEST)
        label = f"{length / 1000:,g} km" if length >= 1000 else f"{length:g} m"
        return label, round(100 * length / self.ground, 2)


@dataclass(frozen=True, slots=True)
class Page:
    """All that the page is made from.

    Parameters
    ----------
    manifest : mapping
    about : mapping
        The table's own metadata.
    columns, features : int
        How many the table has, and how many of them are features.
    evaluation : Evaluation or None
    pca : mapping or None
        ``pca.json``.
    lacking : mapping of str to str
        Why there is no map or evaluation: ``pca``, ``evaluate``.
    maps : tuple of Picture
    valid : Picture or None
        The map of ``valid_fraction``.
    histograms : tuple of Histogram
    files : tuple of str
        Names in the output.
    seconds : mapping of str to float
        Of the steps after the table.
    """

    manifest: Mapping[str, Any]
    about: Mapping[str, Any]
    columns: int
    features: int
    evaluation: Evaluation | None
    pca: Mapping[str, Any] | None
    lacking: Mapping[str, str]
    maps: tuple[Picture, ...]
    valid: Picture | None
    histograms: tuple[Histogram, ...]
    files: tuple[str, ...]
    seconds: Mapping[str, float]


def render(page: Page) -> str:
    """Write the page as HTML: one file, the same for the same values."""
    environment = Environment(
        loader=PackageLoader("zonal.findings.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "bytes": lambda size: NONE if size is None else human(size),
        "count": lambda value: f"{value:,}",
        "figure": figure,
        "percent": percent,
        "seconds": _seconds,
        "listed": _listed,
        "short": short,
        "target": target_name,
        "pair": _pair,
    }
    manifest, evaluation = page.manifest, page.evaluation
    of_post = is_of(manifest)
    return environment.get_template("report.html.j2").render(
        page=page,
        manifest=manifest,
        title=title(manifest),
        statistics=_listed([STATISTICS.get(name, name) for name in manifest["settings"]["stats"]]),
        coverage=COVERAGE[manifest["settings"]["coverage"]],
        ramp=", ".join(RAMP),
        key_figures=_key_figures(page),
        warnings=_warnings(page),
        colours=_colours(page),
        presenter=presenter,
        exhibits=exhibits,
        charted=exhibits.r2_charts(evaluation, of_post=of_post) if evaluation else (),
        scree=exhibits.scree(evaluation, page.pca),
        post=beside(manifest, evaluation) if of_post else (),
        zones=_zones(manifest),
        stages=_stages(page),
        volumes=[(label, manifest["bytes"].get(name, 0)) for name, label in BYTES.items()],
        settings=[(name, _plain(value)) for name, value in manifest["settings"].items() if _told(value)],
    )


def title(manifest: Mapping[str, Any]) -> str:
    """Name a run by its places and its year."""
    settings = manifest["settings"]
    known = [states.find(code) for code in settings.get("state", ())]
    names = [state.name for state in known if state is not None]
    if len(names) > 4:
        names = [f"{len(names)} states"]
    if not names:
        names = [str(settings.get("zones", "zones")).rstrip("/").rsplit("/", 1)[-1].rsplit(".", 1)[0]]
    counties = settings.get("county") or ()
    if counties:
        few = ", ".join(counties) if len(counties) < 4 else f"{len(counties):,}"
        names.append(f"county {few}" if len(counties) == 1 else f"counties {few}")
    year = settings.get("year")
    return ", ".join([*names, *([str(year)] if year is not None else [])])


# ------------------------------------------------------------------ words and numbers


def short(value: float) -> str:
    """Write a number with three digits that count, and never less than its whole part."""
    return (f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}").replace("-", "−")


def _seconds(value: float) -> str:
    if value < 90:
        return f"{value:.2g} s" if value < 10 else f"{value:.0f} s"
    minutes = value / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _pair(pair: Pair) -> tuple[str, str, str]:
    """Write the post's figure, ours and the difference with as many decimals as the post has."""
    values = (pair.post, pair.ours, pair.difference)
    if pair.kind == "count":
        texts = [f"{value:,}".replace("-", "−") for value in values]
    elif pair.kind == "share":
        texts = [percent(value) for value in values]
    else:
        texts = [figure(value, {"r2": 3, "r": 2}[pair.kind]) for value in values]
    plain = texts[2].strip("0.,% ")
    return texts[0], texts[1], texts[2] if not plain or plain[0] == "−" else f"+{texts[2]}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _told(value: object) -> bool:
    return value is not None and value != [] and value != {}


def _plain(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    if isinstance(value, Mapping):
        return "; ".join(f"{name} {_plain(inner)}" for name, inner in value.items() if _told(inner))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _key_figures(page: Page) -> list[tuple[str, str]]:
    manifest = page.manifest
    zones = manifest["zones"]
    total = sum(manifest["seconds"].get(name, 0.0) for name in STAGES) + sum(page.seconds.values())
    return [
        (f"{zones['kept']:,}", "zones"),
        (percent(zones["covered"] / zones["kept"] if zones["kept"] else None), "have pixels"),
        (f"{page.features:,}", "features"),
        (f"{manifest['plan']['tiles']:,}", "tile" if manifest["plan"]["tiles"] == 1 else "tiles"),
        (human(manifest["bytes"]["fetched"]), "fetched"),
        (_seconds(total), "from start to end"),
    ]


def _warnings(page: Page) -> list[str]:
    manifest, zones = page.manifest, page.manifest["zones"]
    warnings = []
    for name, fate in (
        ("outside_tiles", "outside every tile: statistics are null"),
        ("without_pixels", "without a valid pixel: statistics are null"),
        ("repaired", "with an invalid polygon, which was repaired"),
        ("empty", "without a polygon"),
    ):
        if zones.get(name):
            warnings.append(f"{zones[name]:,} {'zone' if zones[name] == 1 else 'zones'} {fate}.")
    missing = len(manifest["inputs"].get("missing_tiles", []))
    if missing:
        tiles = "1 tile" if missing == 1 else f"{missing:,} tiles"
        warnings.append(f"Left out, for the store lacks what the index lists: {tiles}.")
    warnings += [
        f"The map {drawn['file']} has pixels of {drawn['resolution']:g}, not of "
        f"{drawn['resolution_asked']:g}: it would have been too large."
        for drawn in (page.pca or {}).get("maps", ())
        if drawn["resolution"] != drawn["resolution_asked"]
    ]
    for step, what in (("pca", "map"), ("evaluate", "evaluation")):
        if step in page.lacking:
            warnings.append(f"There is no {what}: {page.lacking[step]}.")
    joined = page.evaluation.attributes if page.evaluation is not None else None
    if joined is not None and joined.table_unmatched:
        warnings.append(
            f"{joined.table_unmatched:,} of {joined.table_unmatched + joined.matched:,} zones "
            f"are not in {joined.file}, which was joined to predict its columns."
        )
    return warnings


# ------------------------------------------------------------------ the map


def _colours(page: Page) -> list[dict[str, Any]]:
    """Legend of the map: which component is which colour, and what weighs most in it."""
    if page.pca is None:
        return []
    names, channels = page.pca["features"], []
    loadings = page.pca["loadings"]
    shown = ("grey",) if len(loadings) == 1 else ("red", "green", "blue")
    for number, (colour, weights) in enumerate(zip(shown, loadings, strict=False)):
        order = sorted(range(len(names)), key=lambda at: -abs(weights[at]))[:3]
        channels.append(
            {
                "component": number + 1,
                "colour": colour,
                "share": page.pca["explained"][number],
                "heaviest": [(names[at], weights[at]) for at in order],
                "low": page.pca["low"][number],
                "high": page.pca["high"][number],
            }
        )
    return channels


# ------------------------------------------------------------------ the run


def _zones(manifest: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Count the zones that were read, by what became of them."""
    zones = manifest["zones"]
    dropped = [(f"dropped: {reason}", number) for reason, number in zones["dropped"].items()]
    fates = [
        ("with valid pixels", zones["covered"]),
        ("without a valid pixel", zones["without_pixels"]),
        ("outside every tile", zones["outside_tiles"]),
        ("repaired", zones["repaired"]),
        ("without a polygon", zones["empty"]),
    ]
    return [("read", zones["read"]), *dropped, ("kept", zones["kept"]), *fates]


def _stages(page: Page) -> list[Bar]:
    """Seconds by stage and step, on one scale."""
    seconds = {label: page.manifest["seconds"].get(name, 0.0) for name, label in STAGES.items()}
    names = {"pca": "drawing the map", "evaluate": "evaluating"}
    seconds |= {names[step]: value for step, value in page.seconds.items()}
    scale = Scale(0.0, max(*seconds.values(), 1e-9))
    return [bar(scale, name, "stage", value) for name, value in seconds.items()]
