"""What a run is asked to do: a workflow file and flags become one immutable `Settings`.

Knows how people write states, years, boxes and lists, and says what is wrong with
them in one sentence. Must not know the catalog, a cluster or any data file's content.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from zonal.config import states
from zonal.config.analysis import EvaluationSettings, MapSettings, StepName
from zonal.config.fields import STRICT, Count, Positive, Text, option
from zonal.config.parse import choices_of, parse_box, parse_years, paths_of, words_of
from zonal.config.yaml_file import validation_sentence
from zonal.credentials import redacted, scrub_urls, without_credentials
from zonal.errors import UsageError
from zonal.text import shown

Stat = Literal["mean", "std", "min", "max", "sum", "count"]
"""A statistic of a zone and a band."""

STEPS: tuple[StepName, ...] = get_args(StepName)
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

_NUMBERS = (
    "state", "year", "county", "bbox", "zones", "zone_id", "raster", "max_land_km2", "keep_water", "stats",
    "coverage", "engine",
)  # fmt: skip


class Settings(BaseModel):
    """Everything that one `zonal run` is told; immutable and checked when it is made.

    Each field says what it is: first as `zonal run --help` does, then what Python and workflow files need to
    know besides. What holds several values may be written as one, as a comma list, or as a list of them.

    Raises
    ------
    pydantic.ValidationError
        `settings_error` turns it into one sentence.
    """

    model_config = STRICT

    state: tuple[str, ...] = option(
        (),
        "STATE",
        "Postal code, name or FIPS code; several by commas or by repeating; or all.",
        "Held as postal codes, in the order of their FIPS codes; all is the 50 states and DC.",
    )
    year: tuple[int, ...] = option((), "YEARS", "One, several or ranges: 2018,2020-2024.", "Held ascending.")
    county: tuple[str, ...] = option(
        (),
        "FIPS",
        "County codes of 3 or 5 digits; several as for states.",
        "3 digits mean that county of every state asked for.",
    )
    bbox: tuple[float, float, float, float] | None = option(
        None,
        "W S E N",
        "Degrees: whole zones that intersect the box.",
        "West, south, east, north; longitude and latitude.",
    )
    zones: str = option(
        "census_blocks_2020",
        "SOURCE|FILE",
        "Zones in place of census blocks: a catalog source, or any vector file.",
        "A file is a path or a URL.",
    )
    zone_id: Text | None = option(
        None, "COLUMN", "Column of the zones' unique ids.", "None for the catalog's."
    )
    raster: tuple[str, ...] = option(
        ("aef_annual",),
        "SOURCE|FILE",
        "A catalog source, or any GeoTIFF; repeat the option for several files.",
        "One source, or paths or URLs; a comma is part of a path.",
    )
    max_land_km2: Positive | None = option(
        None, "KM2", "Leave out zones with more land than this.", "Square kilometres."
    )
    keep_water: bool = option(False, "", "Keep zones that are all water.", "That is, without land.")
    stats: tuple[Stat, ...] = option(
        ("mean", "std"),
        "LIST",
        "Some of mean,std,min,max,sum,count; default mean,std.",
        "In the order of the columns.",
    )
    coverage: Literal["fractional", "center"] = option(
        "fractional",
        "RULE",
        "fractional (exact area, the default) or center (pixel centres inside).",
        "The weight of a pixel: the share of it inside the zone, 0 to 1, or whether its centre is inside.",
    )
    engine: Literal["native", "exactextract"] = option(
        "native", "NAME", "Who computes coverage: native or exactextract."
    )
    cluster: str = option(
        "local",
        "ADDRESS",
        "local, a Dask scheduler (tcp://host:port), or kubernetes.",
        "A scheduler's address may begin with tls://, too; kubernetes makes pods for the run.",
    )
    workers: Count | None = option(
        None,
        "N",
        "Processes of the local cluster, or pods on Kubernetes.",
        "None lets the machine decide, or the template.",
    )
    threads: Count | None = option(
        None, "N", "Threads of each of them.", "Of a local cluster; None lets the machine decide."
    )
    min_workers: Count = option(
        1, "N", "Pods that must be there before work begins; default 1.", "On Kubernetes."
    )
    cluster_template: str | dict[str, Any] | None = option(
        None, "FILE", "A DaskCluster in place of the bundled one.", "A YAML file, or its content."
    )
    metrics: str | None = option(
        None,
        "HOST:PORT",
        "Serve Prometheus metrics of the run there; default: nowhere.",
        "Port 0 for any free one.",
    )
    dashboard: str = option(
        "127.0.0.1:0",
        "HOST:PORT",
        "Where the local cluster's dashboard listens; default: this machine only, a free port.",
        "Port 0 for any free one.",
    )
    output: str | None = option(
        None,
        "FOLDER|URL",
        "Default: ./zonal-out/STATE-YEAR; {state} and {year} are filled in.",
    )
    catalog: str | None = option(None, "FILE", "A catalog in place of the bundled one.")
    mirror: str | None = option(
        lambda: os.environ.get("ZONAL_MIRROR") or None,
        "FOLDER|URL",
        "Place that answers for the public services; also $ZONAL_MIRROR.",
    )
    storage_options: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        repr=False,
        description="fsspec's options for private stores, by protocol. Never shown.",
    )
    attempts: Count = option(
        10, "N", "Requests for one byte range before it has failed; default 10.", "The first included."
    )
    patience: Positive = option(
        300.0,
        "SECONDS",
        "How long to insist on a range, or to wait for workers; default 300.",
        "No further attempt begins after so many seconds.",
    )
    stall: Positive = option(30.0, "SECONDS", "Without a byte for so long, a request has failed; default 30.")
    verify: Literal["once", "twice"] = option(
        "once",
        "once|twice",
        "Read every range of remote files once, or compare two.",
        "Two answers that differ are a failed attempt.",
    )
    allow_missing: bool = option(
        False,
        "",
        "Leave out tiles that the index lists and the store lacks.",
        "They are counted; else one of them ends the run with an error.",
    )
    cache: str | None = option(
        None, "FOLDER", "Keep bytes of remote files here, 20 GB at most.", "A folder of the reading machine."
    )
    cache_gb: Positive = Field(default=20.0, description="The most that the cache may hold, GB.")
    part_zones: Count = Field(default=10_000, description="Zones of a part, at most.")
    part_chunks: Count = Field(default=64, description="Chunks of a part, at most.")
    unit_chunks: Count = Field(default=8, description="Chunks of a unit, at most.")
    steps: tuple[StepName, ...] = option(
        STEPS,
        "LIST",
        "Some of stats,pca,evaluate,report; default all.",
        "Held in this order; what a step needs of those left out must be there already.",
    )
    pca: MapSettings = Field(default=MapSettings(), description="How the table becomes a map.")
    evaluate: EvaluationSettings = Field(
        default=EvaluationSettings(), description="What is predicted from the table's features."
    )

    @field_validator("state", mode="before")
    @classmethod
    def _read_state(cls, value: object) -> tuple[str, ...]:
        chosen: set[states.State] = set()
        for word in words_of(value, "state"):
            state = states.find(word)
            if word.casefold() == "all":
                chosen.update(state for state in states.STATES if not state.territory)
            elif state:
                chosen.add(state)
            else:
                near = states.nearest(word)
                hint = f"did you mean {near!r}?" if near else "write a postal code, a name or a FIPS code"
                raise ValueError(f"state {word!r}: no such state; {hint}")
        return tuple(state.code for state in sorted(chosen, key=lambda state: state.fips))

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
        return None if value is None else parse_box(value)

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
            address = without_credentials(value)
            raise ValueError(
                f"cluster {address!r}: expected 'local', 'kubernetes' or an address such as tcp://host:8786"
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
