"""The commands that take a finished table: compare, export, pca, evaluate, aggregate, report.

Parses arguments, calls what does the work, prints; decides nothing. Heavy imports
happen inside the commands.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from zonal.cli.options import JsonLogs, Quiet, command

app = typer.Typer()


class Format(StrEnum):
    """Formats of `zonal export`."""

    gpkg = "gpkg"
    csv = "csv"
    fgb = "fgb"


Table = Annotated[
    str,
    typer.Argument(
        metavar="OUTPUT|TABLE", help="An output folder, or a Parquet or CSV file; a path or a URL."
    ),
]
Target = Annotated[
    str | None,
    typer.Option("--output", metavar="FILE", help="Default: in the output folder, or beside the table."),
]


@app.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="An output folder, or a Parquet or CSV file.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    on: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="Column of the zone id, or A_COLUMN=B_COLUMN; default: as A says."
        ),
    ] = None,
) -> None:
    """Compare two tables by zone id: rows only in one, differences by statistic."""
    from zonal.findings.compare import compare_tables
    from zonal.io.table.finished import load_table

    print(compare_tables(load_table(a, storage_options(a)), load_table(b, storage_options(b)), on=on))


@app.command()
def export(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="An output folder, or a GeoParquet file.")],
    to: Annotated[Format, typer.Option("--to", metavar="gpkg|fgb|csv", help="csv leaves out the geometry.")],
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Default: beside the table; of a remote one, here.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", metavar="", help="Replace a file that is there.")
    ] = False,
) -> None:
    """Write a table in another format."""
    from zonal.io.table.export import export_table
    from zonal.io.table.finished import load_table

    print(export_table(load_table(table, storage_options(table)), to.value, output, overwrite=overwrite))


@command(app, "pca", "cluster", "workers", "threads")
def pca(
    table: Table,
    *,
    flags: dict[str, Any],
    output: Target = None,
    quiet: Quiet = False,
    json_logs: JsonLogs = False,
) -> None:
    """Draw a table as a map: three principal components of its features as red, green and blue."""
    _take("pca", table, output, flags, quiet=quiet, json_logs=json_logs)


@command(app, "evaluate")
def evaluate(
    table: Table,
    *,
    flags: dict[str, Any],
    output: Target = None,
    quiet: Quiet = False,
    json_logs: JsonLogs = False,
) -> None:
    """Measure what a table's features know about census attributes, or any others, cross-validated."""
    _take("evaluate", table, output, flags, quiet=quiet, json_logs=json_logs)


@app.command()
def aggregate(
    table: Table,
    by: Annotated[
        str, typer.Option(metavar="block-group|tract|county|state|COLUMN", help="The larger areas.")
    ],
    dissolve: Annotated[
        bool, typer.Option("--dissolve", metavar="", help="Unite the geometries too.")
    ] = False,
    sums: Annotated[
        str | None, typer.Option("--sum", metavar="LIST", help="Further columns to add up.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Default: beside the table; of a remote one, here.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", metavar="", help="Replace a file that is there.")
    ] = False,
) -> None:
    """Make a table of larger areas from a finished one, exactly, by moments."""
    from zonal.findings.areas.aggregate import aggregate as aggregate_table
    from zonal.io.table.finished import load_table

    names = [name.strip() for name in (sums or "").split(",") if name.strip()]
    finished = load_table(table, storage_options(table))
    print(aggregate_table(finished, by, output, dissolve=dissolve, sums=names, overwrite=overwrite))


@app.command()
def report(
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="An output folder; a path or a URL.")],
    quiet: Quiet = False,
    json_logs: JsonLogs = False,
) -> None:
    """Write one page on an output: what ran, the map, the evaluation, the figures."""
    _take("report", output, None, {}, quiet=quiet, json_logs=json_logs)


def _take(
    step: str, place: str, output: str | None, flags: dict[str, Any], *, quiet: bool, json_logs: bool
) -> None:
    """Take one step for an output, or for a table that someone else made."""
    from zonal import steps
    from zonal.cli.screen import screen
    from zonal.config.workflows import load

    settings = load(None, {**flags, "steps": step, "output": place})
    with screen(quiet=quiet, json_logs=json_logs) as notify:
        files = steps.take(settings, output, notify, forked=True)
    if not quiet:
        for file in files:
            print(file)


def storage_options(place: str) -> dict[str, Any]:
    """Storage options for a table at a URL: those of the catalog for its service."""
    from zonal.config.catalog import Catalog

    return Catalog.load().storage_options(place) if "://" in place else {}
