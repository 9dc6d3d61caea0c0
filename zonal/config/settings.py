"""What a run is asked to do: a workflow file and flags become one immutable `Settings`.

Knows how people write states, years, boxes and lists, and says what is wrong with
them in one sentence. Must not know the catalog, a cluster or any data file's content.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from zonal.config import states
from zonal.config.analysis import EvaluationSettings, MapSettings, Step
from zonal.config.parse import choices_of, parse_years, paths_of, unbool, words_of
from zonal.config.yaml_file import validation_sentence
from zonal.credentials import redacted, scrub_urls, without_credentials
from zonal.errors import UsageError
from zonal.text import shown

Stat = Literal["mean", "std", "min", "max", "sum", "count"]
"""A statistic of a zone and a band."""

STEPS: tuple[Step, ...] = get_args(Step)
"""Steps of a run, in their order."""

_HOST_PORT = re.compile(r"[^\s/:@,]+:\d{1,5}")
_CLUSTERS = {
    "workers": ("local", "kubernetes"),
    "threads": ("local",),
    "dashboard": ("local",),
    "min_workers": ("kubernetes",),
    "cluster_template": ("kubernetes",),
}
"""Settings that mean something for some clusters only."""

_PLACE = re.compile(r"(tcp|tls)://[^\s/:@]+:\d{1,5}|(tcp|tls)://\[[0-9a-fA-F:.%]+\]:\d{1,5}")
# ------------------------------------------------------------------ the model

_Count = Annotated[PositiveInt, BeforeValidator(unbool)]
_Positive = Annotated[float, BeforeValidator(unbool), Field(gt=0, allow_inf_nan=False)]

_NUMBERS = (
    "state", "year", "county", "bbox", "zones", "zone_id", "raster", "max_land_km2", "keep_water", "stats",
    "coverage", "engine",
)  # fmt: skip


class Settings(BaseModel):
    """Everything that one `zonal run` is told; immutable and checked when it is made.

    Parameters
    ----------
    state : tuple of str
        Postal codes in the order of their FIPS codes. Written as postal code, name or FIPS code, one or
        several, or ``"all"`` (the 50 states and DC).
    year : tuple of int
        Ascending. Written as ``2020`` or ``"2018,2020-2024"`` or a list.
    county : tuple of str
        FIPS codes of 3 digits (in every state asked for) or 5 digits.
    bbox : tuple of float, optional
        West, south, east, north, degrees; whole zones that intersect it are kept.
    zones : str
        A source of the catalog, or a path or URL of any vector file.
    zone_id : str, optional
        Column of unique ids; None for the catalog's.
    raster : tuple of str
        One source of the catalog, or paths or URLs of GeoTIFFs.
    max_land_km2 : float, optional
        Zones with more land than this are left out, km2.
    keep_water : bool
        Keep zones without land.
    stats : tuple of str
        In the order of the columns.
    coverage : {"fractional", "center"}
        The weight of a pixel: the share inside the zone, or whether its centre is inside.
    engine : {"native", "exactextract"}
        Who computes coverage.
    cluster : str
        ``"local"``, the address of a Dask scheduler (``tcp://`` or ``tls://``), or ``"kubernetes"`` for pods
        that are made for the run.
    workers, threads : int, optional
        Processes, and threads of each, of a local cluster; None lets the machine decide. On Kubernetes,
        `workers` pods; None for as many as the template says.
    min_workers : int
        On Kubernetes: how many of them must be there before work begins.
    cluster_template : str or dict, optional
        On Kubernetes: a `DaskCluster` as a YAML file or as such, in place of the bundled one.
    metrics : str, optional
        ``host:port`` where Prometheus finds the run's metrics; port 0 for any free one.
    dashboard : str
        ``host:port`` that the dashboard of a local cluster listens on, port 0 for any free one.
    output : str, optional
        Folder or URL, in which ``{state}`` and ``{year}`` are filled in; None for ``./zonal-out/WA-2020`` and
        the like.
    catalog : str, optional
        A catalog file in place of the bundled one.
    mirror : str, optional
        Folder or URL that answers for the public services.
    storage_options : dict
        fsspec's options for private stores, by protocol. Never shown.
    attempts : int
        Requests for one byte range of a remote file, the first included.
    patience, stall : float
        Seconds: no further attempt begins after so many, nor is a cluster without workers waited for any
        longer; and an attempt has failed after so many without a byte.
    verify : {"once", "twice"}
        How often each byte range of a remote file is read; two answers that differ are a failed attempt.
    allow_missing : bool
        Leave out tiles that the index lists and the store lacks, counted, instead of ending with an error.
    cache : str, optional
        Folder of the reading machine where byte ranges of remote files are kept.
    cache_gb : float
        The most that the cache may hold, GB.
    part_zones, part_chunks, unit_chunks : int
        Grain of the plan: zones and chunks of a part, chunks of a unit.
    steps : tuple of str
        Which steps to take, in their order; what a step needs of those left out must be there already.
    pca : MapSettings
        How the table becomes a map.
    evaluate : EvaluationSettings
        What is predicted from its features.

    Raises
    ------
    pydantic.ValidationError
        `settings_error` turns it into one sentence.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    state: tuple[str, ...] = ()
    year: tuple[int, ...] = ()
    county: tuple[str, ...] = ()
    bbox: tuple[float, float, float, float] | None = None
    zones: str = "census_blocks_2020"
    zone_id: str | None = Field(default=None, min_length=1)
    raster: tuple[str, ...] = ("aef_annual",)
    max_land_km2: _Positive | None = None
    keep_water: bool = False
    stats: tuple[Stat, ...] = ("mean", "std")
    coverage: Literal["fractional", "center"] = "fractional"
    engine: Literal["native", "exactextract"] = "native"
    cluster: str = "local"
    workers: _Count | None = None
    threads: _Count | None = None
    min_workers: _Count = 1
    cluster_template: str | dict[str, Any] | None = None
    metrics: str | None = None
    dashboard: str = "127.0.0.1:0"
    output: str | None = None
    catalog: str | None = None
    mirror: str | None = Field(default_factory=lambda: os.environ.get("ZONAL_MIRROR") or None)
    storage_options: dict[str, dict[str, Any]] = Field(default_factory=dict, repr=False)
    attempts: _Count = 10
    patience: _Positive = 300.0
    stall: _Positive = 30.0
    verify: Literal["once", "twice"] = "once"
    allow_missing: bool = False
    cache: str | None = None
    cache_gb: _Positive = 20.0
    part_zones: _Count = 10_000
    part_chunks: _Count = 64
    unit_chunks: _Count = 8
    steps: tuple[Step, ...] = STEPS
    pca: MapSettings = MapSettings()
    evaluate: EvaluationSettings = EvaluationSettings()

    @field_validator("state", mode="before")
    @classmethod
    def _read_state(cls, value: object) -> tuple[str, ...]:
        found: set[states.State] = set()
        for word in words_of(value, "state"):
            state = states.find(word)
            if word.casefold() == "all":
                found.update(state for state in states.STATES if not state.territory)
            elif state:
                found.add(state)
            else:
                near = states.nearest(word)
                hint = f"did you mean {near!r}?" if near else "write a postal code, a name or a FIPS code"
                raise ValueError(f"state {word!r}: no such state; {hint}")
        return tuple(state.code for state in sorted(found, key=lambda state: state.fips))

    @field_validator("year", mode="before")
    @classmethod
    def _read_year(cls, value: object) -> tuple[int, ...]:
        return parse_years(value)

    @field_validator("county", mode="before")
    @classmethod
    def _read_county(cls, value: object) -> tuple[str, ...]:
        words = words_of(value, "county")
        for word in words:
            if not re.fullmatch(r"[0-9]{3}|[0-9]{5}", word):
                raise ValueError(f"county {word!r}: expected FIPS codes of 3 or 5 digits, as 033 or 53033")
            if len(word) == 5 and not states.find(word[:2]):
                raise ValueError(f"county {word!r}: no state has the FIPS code {word[:2]}")
        return tuple(sorted(set(words)))

    @field_validator("bbox", mode="before")
    @classmethod
    def _read_bbox(cls, value: object) -> tuple[float, ...] | None:
        if value is None:
            return None
        items = re.split(r"[\s,]+", value.strip()) if isinstance(value, str) else value
        order = "expected four numbers in the order W S E N, in degrees"
        if not isinstance(items, list | tuple) or len(items) != 4:
            raise ValueError(f"bbox {shown(value)}: {order}")
        try:
            box = tuple(float(item) for item in items if not isinstance(item, bool))
        except (TypeError, ValueError, OverflowError):
            box = ()
        if len(box) != 4:
            raise ValueError(f"bbox {shown(value)}: {order}")
        for side, degrees, limit in zip(
            ("west", "south", "east", "north"), box, (180, 90, 180, 90), strict=True
        ):
            if not math.isfinite(degrees) or abs(degrees) > limit:
                raise ValueError(
                    f"bbox: {side} {degrees:g} is outside -{limit} to {limit}; the order is W S E N"
                )
        west, south, east, north = box
        if west >= east:
            raise ValueError(f"bbox: west {west} >= east {east}; the order is W S E N")
        if south >= north:
            raise ValueError(f"bbox: south {south} >= north {north}; the order is W S E N")
        return box

    @field_validator("cache")
    @classmethod
    def _check_cache(cls, value: str | None) -> str | None:
        if value is not None and "://" in value:
            raise ValueError(f"cache {without_credentials(value)!r}: expected a folder of this machine")
        return value

    @field_validator("raster", mode="before")
    @classmethod
    def _read_raster(cls, value: object) -> tuple[str, ...]:
        names = paths_of(value, "raster")
        if not names:
            raise ValueError("raster: expected a source of the catalog, or at least one file")
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"raster {without_credentials(name)!r} is named twice")
        return tuple(names)

    @field_validator("zones", "output", "catalog", "mirror", "cache", mode="before")
    @classmethod
    def _read_path(cls, value: object, info: Any) -> str | None:
        if value is None and info.field_name != "zones":
            return None
        return paths_of([value], info.field_name)[0]

    @field_validator("stats", mode="before")
    @classmethod
    def _read_stats(cls, value: object) -> tuple[str, ...]:
        return choices_of(value, "stats", get_args(Stat))

    @field_validator("steps", mode="before")
    @classmethod
    def _read_steps(cls, value: object) -> tuple[str, ...]:
        words = choices_of(value, "steps", STEPS)
        return tuple(step for step in STEPS if step in words)

    @field_validator("cluster")
    @classmethod
    def _check_cluster(cls, value: str) -> str:
        if value not in ("local", "kubernetes") and not _PLACE.fullmatch(value):
            shown = without_credentials(value)
            raise ValueError(
                f"cluster {shown!r}: expected 'local', 'kubernetes' or an address such as tcp://host:8786"
            )
        return value

    @field_validator("dashboard", "metrics")
    @classmethod
    def _check_listening(cls, value: str | None, info: Any) -> str | None:
        if value is not None and (not _HOST_PORT.fullmatch(value) or int(value.rsplit(":")[-1]) > 65535):
            given = f"{info.field_name} {without_credentials(value)!r}"
            raise ValueError(f"{given}: expected host:port, such as 127.0.0.1:8787")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.engine == "exactextract" and self.coverage == "center":
            raise ValueError("engine 'exactextract' has no coverage 'center'; use engine 'native'")
        for name in of_other_clusters(self.cluster):
            if getattr(self, name) != type(self).model_fields[name].default:
                its = " or ".join(_CLUSTERS[name])
                raise ValueError(f"{name} is for cluster {its}, not for {self.cluster}; leave it out")
        if self.workers is not None and self.min_workers > self.workers:
            raise ValueError(f"min_workers {self.min_workers} > workers {self.workers}")
        for name in ("state", "year"):
            if f"{{{name}}}" in (self.output or "") and not getattr(self, name):
                raise ValueError(f"output {shown(self.output)}: there is no {name} to fill in")
        for county in self.county:
            owner = states.find(county[:2]) if len(county) == 5 else None
            if self.state and owner and owner.code not in self.state:
                raise ValueError(f"county {county} lies in {owner.code}, not in {', '.join(self.state)}")
        return self

    def of_state(self, index: int) -> Self:
        """Return the same for one of its states: for arrays of jobs, one a state.

        Parameters
        ----------
        index : int
            From 0, in the order of `state`.

        Raises
        ------
        UsageError
            If there is no such state, or the counties are another's.
        """
        if not 0 <= index < len(self.state):
            raise UsageError(f"state_index {index}: there are {len(self.state)} states, counted from 0")
        given = {name: getattr(self, name) for name in self.model_fields_set}
        try:
            return type(self)(**given | {"state": (self.state[index],)})
        except ValidationError as error:
            raise settings_error(error) from None

    @property
    def place(self) -> str:
        """Its states in a word, for names: ``WA``, ``OR-WA``, ``51-states``; empty if there is none."""
        return "-".join(self.state) if len(self.state) <= 3 else f"{len(self.state)}-states"

    @property
    def labels(self) -> dict[str, Any]:
        """What all that is told of the run is about: ``state``, and ``year`` if it is one."""
        return {"state": self.place, "year": self.year[0] if len(self.year) == 1 else None}

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Show what was set, without credentials."""
        public = self.public()
        fields = sorted(self.model_fields_set, key=list(public).index)
        return [(name, public[name]) for name in fields if name != "storage_options"]

    def public(self) -> dict[str, Any]:
        """All settings as JSON values, for the manifest; credentials are left out.

        URLs lose user, password and signatures; of `storage_options` only the names remain.
        """
        values = self.model_dump(mode="json", exclude={"storage_options"})
        for name, value in values.items():
            if isinstance(value, str):
                values[name] = without_credentials(value)
        values["raster"] = [without_credentials(name) for name in self.raster]
        if self.evaluate.attributes is not None:
            values["evaluate"]["attributes"] = without_credentials(self.evaluate.attributes)
        values["storage_options"] = redacted(self.storage_options)
        if isinstance(self.cluster_template, dict):  # its environment may hold what is not for everybody
            values["cluster_template"] = "given"
        return {name: values[name] for name in type(self).model_fields}

    def numbers(self) -> dict[str, Any]:
        """Those settings that can change a number of the table, as JSON values, for the fingerprint.

        Neither where and how fast it runs, nor how it is cut into units and parts. Credentials are left
        out, so that a URL that was signed anew is the same input.
        """
        public = self.public()
        return {name: public[name] for name in _NUMBERS}


def of_other_clusters(cluster: str) -> list[str]:
    """Names of the settings that mean nothing for a cluster."""
    return [name for name, places in _CLUSTERS.items() if cluster not in places]


# ------------------------------------------------------------------ errors in one sentence


def settings_error(exc: ValidationError, where: str | None = None) -> UsageError:
    """Turn what `Settings(...)` raises into a `UsageError` of one sentence.

    Parameters
    ----------
    exc : pydantic.ValidationError
        From `Settings`.
    where : str, optional
        What the settings come from, ``"workflow x.yaml"``; put in front.
    """
    # Whatever place was written, under whichever key: a user and password in it are not repeated.
    inside = {"pca": MapSettings.model_fields, "evaluate": EvaluationSettings.model_fields}
    thing = "key" if where else "setting"
    sentence = scrub_urls(validation_sentence(exc, Settings.model_fields, thing, inside))
    return UsageError(f"{where}: {sentence}" if where else sentence)
