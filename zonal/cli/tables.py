"""The commands that take a finished table: compare, export, pca, evaluate, aggregate, report.

Parses words, calls what does the work, prints; decides nothing. Heavy imports
happen inside the commands.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from zonal.cli.options import Cluster, Format, JsonLogs, Quiet, Threads, Workers

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

    print(compare_tables(load_table(a, options_of(a)), load_table(b, options_of(b)), on=on))


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

    print(export_table(load_table(table, options_of(table)), to.value, output, overwrite=overwrite))


def pca(
    table: Table,
    standardize: Annotated[
        bool | None,
        typer.Option(
            "--standardize/--no-standardize", help="Give every feature variance 1 first; the default."
        ),
    ] = None,
    percentiles: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="LOW HIGH", help="Scores that become darkest and brightest; default 2 98."),
    ] = None,
    resolution: Annotated[
        float | None, typer.Option(metavar="SIZE", help="Of a pixel, in units of the CRS; default 10.")
    ] = None,
    crs: Annotated[
        str | None, typer.Option(metavar="CRS", help="Of the map; default: the table's best UTM zone.")
    ] = None,
    output: Target = None,
    cluster: Cluster = None,
    workers: Workers = None,
    threads: Threads = None,
    quiet: Quiet = False,
    json_logs: JsonLogs = False,
) -> None:
    """Draw a table as a map: three principal components of its features as red, green and blue."""
    asked = {"standardize": standardize, "percentiles": percentiles, "resolution": resolution, "crs": crs}
    words = {"pca": asked, "cluster": cluster, "workers": workers, "threads": threads}
    _take("pca", table, output, words, quiet=quiet, json_logs=json_logs)


def evaluate(
    table: Table,
    targets: Annotated[
        str | None,
        typer.Option(
            metavar="LIST", help="What to predict: census variables, columns, log(COLUMN), log1p(COLUMN)."
        ),
    ] = None,
    classes: Annotated[
        str | None, typer.Option(metavar="LIST", help="Two-valued targets to classify; default urban.")
    ] = None,
    features: Annotated[
        str | None, typer.Option(metavar="LIST", help="Columns, or patterns such as A*_mean.")
    ] = None,
    models: Annotated[
        str | None, typer.Option(metavar="LIST", help="Some of ols,ridge,boosting; default ols.")
    ] = None,
    components: Annotated[
        int | None,
        typer.Option(metavar="N", help="Principal components of the reduced features; default 10."),
    ] = None,
    folds: Annotated[
        int | None, typer.Option(metavar="N", help="Of each cross-validation; default 5.")
    ] = None,
    spatial: Annotated[
        str | None,
        typer.Option(
            metavar="GROUPS", help="Spatial folds by county, tract, grid or a column; default auto."
        ),
    ] = None,
    block_km: Annotated[float | None, typer.Option(metavar="KM", help="Size of a cell of the grid.")] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Of everything drawn; default 0.")] = None,
    attributes: Annotated[
        str | None, typer.Option(metavar="FILE", help="A table to join by key: Parquet or CSV.")
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Its key, or COLUMN_OF_TABLE=COLUMN_OF_FILE; default: the id."),
    ] = None,
    output: Target = None,
    quiet: Quiet = False,
    json_logs: JsonLogs = False,
) -> None:
    """Measure what a table's features know about census attributes, or any others, cross-validated."""
    asked = {
        "targets": targets,
        "classes": classes,
        "features": features,
        "models": models,
        "components": components,
        "folds": folds,
        "spatial": spatial,
        "block_km": block_km,
        "seed": seed,
        "attributes": attributes,
        "on": on,
    }
    _take("evaluate", table, output, {"evaluate": asked}, quiet=quiet, json_logs=json_logs)


def report(
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="An output folder; a path or a URL.")],
    quiet: Quiet = False,
    json_logs: JsonLogs = False,
) -> None:
    """Write one page on an output: what ran, the map, the evaluation, the figures."""
    _take("report", output, None, {}, quiet=quiet, json_logs=json_logs)


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
    from zonal.findings.areas.aggregate import aggregate as made
    from zonal.io.table.finished import load_table

    names = [name.strip() for name in (sums or "").split(",") if name.strip()]
    found = load_table(table, options_of(table))
    print(made(found, by, output, dissolve=dissolve, sums=names, overwrite=overwrite))


def _take(
    step: str, place: str, output: str | None, words: dict[str, Any], *, quiet: bool, json_logs: bool
) -> None:
    """Take one step for an output, or for a table that someone else made."""
    from zonal import steps
    from zonal.cli.screen import screen
    from zonal.config.workflows import load

    settings = load(None, {**words, "steps": step, "output": place})
    with screen(quiet=quiet, json_logs=json_logs) as notify:
        files = steps.take(settings, output, notify, forked=True)
    if not quiet:
        for file in files:
            print(file)


def options_of(place: str) -> dict[str, Any]:
    """Storage options for a table at a URL: those of the catalog for its service."""
    from zonal.config.catalog import Catalog

    return Catalog.load().storage_options(place) if "://" in place else {}
