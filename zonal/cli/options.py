"""The words of the command line that several commands share, with their help.

Knows what typer shows of them; knows no command and no value's meaning.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Format(StrEnum):
    """Formats of `zonal export`."""

    gpkg = "gpkg"
    csv = "csv"
    fgb = "fgb"


# What run and plan share.
Workflow = Annotated[
    str | None,
    typer.Argument(
        help="A YAML file, or the name of a bundled workflow.", show_default=False, metavar="WORKFLOW"
    ),
]
State = Annotated[
    list[str] | None,
    typer.Option(
        metavar="STATE", help="Postal code, name or FIPS code; several by commas or by repeating; or all."
    ),
]
StateIndex = Annotated[
    int | None,
    typer.Option(metavar="N", help="Of these states only the N-th, from 0: for arrays of jobs."),
]
Year = Annotated[str | None, typer.Option(metavar="YEARS", help="One, several or ranges: 2018,2020-2024.")]
County = Annotated[
    list[str] | None,
    typer.Option(metavar="FIPS", help="County codes of 3 or 5 digits; several as for states."),
]
Bbox = Annotated[
    tuple[float, float, float, float] | None,
    typer.Option(metavar="W S E N", help="Degrees: whole zones that intersect the box."),
]
Zones = Annotated[
    str | None,
    typer.Option(
        metavar="SOURCE|FILE", help="Zones in place of census blocks: a catalog source, or any vector file."
    ),
]
ZoneId = Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of the zones' unique ids.")]
Raster = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SOURCE|FILE", help="A catalog source, or any GeoTIFF; repeat the option for several files."
    ),
]
MaxLand = Annotated[
    float | None, typer.Option(metavar="KM2", help="Leave out zones with more land than this.")
]
KeepWater = Annotated[
    bool | None, typer.Option("--keep-water", metavar="", help="Keep zones that are all water.")
]
Stats = Annotated[
    str | None, typer.Option(metavar="LIST", help="Some of mean,std,min,max,sum,count; default mean,std.")
]
Coverage = Annotated[
    str | None,
    typer.Option(
        metavar="RULE", help="fractional (exact area, the default) or center (pixel centres inside)."
    ),
]
Engine = Annotated[
    str | None, typer.Option(metavar="NAME", help="Who computes coverage: native or exactextract.")
]
Cluster = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="local, a Dask scheduler (tcp://host:port), or kubernetes."),
]
Workers = Annotated[
    int | None, typer.Option(metavar="N", help="Processes of the local cluster, or pods on Kubernetes.")
]
MinWorkers = Annotated[
    int | None, typer.Option(metavar="N", help="Pods that must be there before work begins; default 1.")
]
ClusterTemplate = Annotated[
    str | None, typer.Option(metavar="FILE", help="A DaskCluster in place of the bundled one.")
]
Threads = Annotated[int | None, typer.Option(metavar="N", help="Threads of each of them.")]
Attempts = Annotated[
    int | None,
    typer.Option(metavar="N", help="Requests for one byte range before it has failed; default 10."),
]
Patience = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS", help="How long to insist on a range, or to wait for workers; default 300."
    ),
]
Stall = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", help="Without a byte for so long, a request has failed; default 30."),
]
Verify = Annotated[
    str | None,
    typer.Option(metavar="once|twice", help="Read every range of remote files once, or compare two."),
]
AllowMissing = Annotated[
    bool | None,
    typer.Option(
        "--allow-missing", metavar="", help="Leave out tiles that the index lists and the store lacks."
    ),
]
Cache = Annotated[
    str | None, typer.Option(metavar="FOLDER", help="Keep bytes of remote files here, 20 GB at most.")
]
Steps = Annotated[
    str | None, typer.Option(metavar="LIST", help="Some of stats,pca,evaluate,report; default all.")
]
Dashboard = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="Where the local cluster's dashboard listens; default: this machine only, a free port.",
    ),
]
Metrics = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="Serve Prometheus metrics of the run there; default: nowhere."),
]
Output = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER|URL",
        help="Default: ./zonal-out/STATE-YEAR; {state} and {year} are filled in.",
    ),
]
CatalogFile = Annotated[
    str | None, typer.Option("--catalog", metavar="FILE", help="A catalog in place of the bundled one.")
]
Mirror = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER|URL",
        help="Place that answers for the public services; also $ZONAL_MIRROR.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", metavar="", help="Print warnings and errors only.")]
JsonLogs = Annotated[
    bool, typer.Option("--json-logs", metavar="", help="One JSON object a line, on standard error.")
]
Fresh = Annotated[bool, typer.Option("--fresh", metavar="", help="Replace what the output holds.")]
