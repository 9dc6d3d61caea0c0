"""The command line: parses words, calls the engine, prints; decides nothing.

Heavy imports happen inside the commands, so that ``zonal --help`` is quick.
"""

from __future__ import annotations

import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from zonal.errors import UsageError, ZonalError

app = typer.Typer(
    name="zonal",
    help="Satellite embeddings as plain feature tables: one row a zone, one column a statistic.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
catalog_app = typer.Typer(help="The data catalog: what can be read by name.", no_args_is_help=True)
app.add_typer(catalog_app, name="catalog")

BUG = 70


class Format(StrEnum):
    """Formats of `zonal export`."""

    gpkg = "gpkg"
    csv = "csv"
    fgb = "fgb"


# What run and plan share. Optional[...] because typer reads these at run time.
Workflow = Annotated[
    str | None, typer.Argument(help="A YAML file, or the name of a bundled workflow.", show_default=False)
]
State = Annotated[list[str] | None, typer.Option(help="Postal code, name or FIPS; several; or all.")]
Year = Annotated[str | None, typer.Option(help="One, several or ranges: 2018,2020-2024.")]
County = Annotated[list[str] | None, typer.Option(help="3- or 5-digit county FIPS; several.")]
Bbox = Annotated[
    tuple[float, float, float, float] | None,
    typer.Option(help="West south east north, degrees: whole zones that intersect it.", metavar="W S E N"),
]
Zones = Annotated[
    str | None, typer.Option(help="Zones in place of census blocks: a catalog source, vector file or URL.")
]
ZoneId = Annotated[str | None, typer.Option(help="Column of the zone id.")]
Raster = Annotated[
    list[str] | None, typer.Option(help="A catalog source, or GeoTIFFs (repeat the option for several).")
]
MaxLand = Annotated[float | None, typer.Option(help="Leave out zones with more land than this, km2.")]
KeepWater = Annotated[bool | None, typer.Option("--keep-water", help="Keep zones that are all water.")]
Stats = Annotated[str | None, typer.Option(help="Some of mean,std,min,max,sum,count.")]
Coverage = Annotated[str | None, typer.Option(help="fractional (exact area) or center (pixel centres).")]
Engine = Annotated[str | None, typer.Option(help="Provider of the coverage: native or exactextract.")]
Cluster = Annotated[str | None, typer.Option(help="local, or a Dask scheduler: tcp://host:port.")]
Workers = Annotated[int | None, typer.Option(help="Processes of the local cluster.")]
Threads = Annotated[int | None, typer.Option(help="Threads of each of them.")]
Output = Annotated[str | None, typer.Option(help="Folder or URL; default ./zonal-out/STATE-YEAR.")]
CatalogFile = Annotated[str | None, typer.Option("--catalog", help="A catalog in place of the bundled one.")]
Mirror = Annotated[
    str | None,
    typer.Option(help="Folder or URL that stands for the public services.", envvar="ZONAL_MIRROR"),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print errors only.")]
JsonLogs = Annotated[bool, typer.Option("--json-logs", help="One JSON object a line, on standard error.")]


@app.callback(invoke_without_command=True)
def _top(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from importlib.metadata import version as installed

        print(f"zonal {installed('zonal')}")
        raise typer.Exit


@app.command()
def run(
    workflow: Workflow = None,
    state: State = None,
    year: Year = None,
    county: County = None,
    bbox: Bbox = None,
    zones: Zones = None,
    zone_id: ZoneId = None,
    raster: Raster = None,
    max_land_km2: MaxLand = None,
    keep_water: KeepWater = None,
    stats: Stats = None,
    coverage: Coverage = None,
    engine: Engine = None,
    cluster: Cluster = None,
    workers: Workers = None,
    threads: Threads = None,
    output: Output = None,
    catalog: CatalogFile = None,
    mirror: Mirror = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Replace what the output holds.")] = False,
    quiet: Quiet = False,
    json_logs: JsonLogs = False,
) -> None:
    """Run a workflow: zones and a raster in, one table out. Flags override the workflow."""
    from zonal import engine as engines
    from zonal.screen import screen
    from zonal.settings import load

    settings = load(workflow, _given(locals()))
    with screen(quiet=quiet, json_logs=json_logs) as notify:
        results = engines.run(settings, fresh=fresh, notify=notify)
    if not quiet:
        for result in results:
            zones_of = result.manifest["zones"]
            what = "written" if result.fresh else "nothing to do: already complete"
            print(f"{result.table}  {zones_of['kept']:,} zones, {zones_of['covered']:,} covered; {what}")


@app.command()
def plan(
    workflow: Workflow = None,
    state: State = None,
    year: Year = None,
    county: County = None,
    bbox: Bbox = None,
    zones: Zones = None,
    zone_id: ZoneId = None,
    raster: Raster = None,
    max_land_km2: MaxLand = None,
    keep_water: KeepWater = None,
    stats: Stats = None,
    coverage: Coverage = None,
    engine: Engine = None,
    cluster: Cluster = None,
    workers: Workers = None,
    threads: Threads = None,
    output: Output = None,
    catalog: CatalogFile = None,
    mirror: Mirror = None,
    headers: Annotated[
        bool, typer.Option("--headers", help="Read the tiles' headers: exact bytes instead of an estimate.")
    ] = False,
) -> None:
    """Say what a run would do and cost, without reading a pixel."""
    from zonal import engine as engines
    from zonal.settings import load

    settings = load(workflow, _given(locals()))
    for label, costs in engines.plan(settings, headers=headers).items():
        if label is not None:
            print(f"{label}")
        print(costs)


def _given(words: dict[str, Any]) -> dict[str, Any]:
    """Pick the settings among a command's words; None and empty are not given."""
    not_settings = {"workflow", "fresh", "quiet", "json_logs", "headers", "engines", "screen", "load"}
    return {
        name: value for name, value in words.items() if name not in not_settings and value not in (None, [])
    }


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where the sample and its output go.")] = Path("zonal-demo"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Replace the output of an earlier demo.")] = False,
    quiet: Quiet = False,
) -> None:
    """Write a small made-up town and its tiles, and run the whole workflow on them, offline."""
    from zonal import demo as sample
    from zonal import engine as engines
    from zonal.screen import screen
    from zonal.settings import load

    if not quiet:
        print("The data of this demo is made up: an invented town, invented people, invented pixels.")
    written = sample.write_sample(folder)
    settings = load(
        "demo",
        {"zones": str(written.zones), "mirror": str(written.mirror), "output": str(folder / "out")},
    )
    with screen(quiet=quiet, json_logs=False) as notify:
        (result,) = engines.run(settings, fresh=fresh, notify=notify)
    if not quiet:
        zones_of = result.manifest["zones"]
        print(f"{zones_of['kept']:,} zones summarised, {zones_of['covered']:,} of them covered by pixels.")
        print(f"The table is {result.table} (made-up data); its manifest is {result.output}/manifest.json.")


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="A table of zonal, or any Parquet file; or an output folder.")],
    b: Annotated[str, typer.Argument(help="Another one.")],
    on: Annotated[
        str | None, typer.Option(help="Column of the zone id, where the tables do not say.")
    ] = None,
) -> None:
    """Compare two tables by zone id: rows only in one, differences by statistic."""
    from zonal.analysis.compare import compare_tables
    from zonal.io.table import load_table

    print(compare_tables(load_table(a), load_table(b), on=on))


@app.command()
def export(
    table: Annotated[str, typer.Argument(help="A table of zonal, or an output folder.")],
    to: Annotated[Format, typer.Option("--to", help="gpkg, fgb or csv (csv leaves out the geometry).")],
    output: Annotated[Path | None, typer.Option(help="File to write; default: beside the table.")] = None,
) -> None:
    """Write a table in another format."""
    from zonal.io.export import export_table

    print(export_table(table, to.value, output))


@catalog_app.command("list")
def catalog_list(catalog: CatalogFile = None) -> None:
    """List the sources of the catalog."""
    from zonal.catalog import Catalog

    for source in Catalog.load(catalog):
        print(f"{source.name:<26} {source.data_type:<14} {source.description or ''}")
        print(f"{'':<26} {source.uri}")
        print(f"{'':<26} {source.license or 'licence not stated'}. {source.citation or ''}")


@catalog_app.command("check")
def catalog_check(
    names: Annotated[list[str] | None, typer.Argument(help="Sources; default: all.")] = None,
    state: Annotated[str, typer.Option(help="State to try for sources of one file a state.")] = "WA",
    year: Annotated[int | None, typer.Option(help="Year to try; default: the latest.")] = None,
    catalog: CatalogFile = None,
    mirror: Mirror = None,
) -> None:
    """Test each source: reachable, its columns there, one header read."""
    from zonal.catalog import Catalog
    from zonal.inputs import check_source

    loaded = Catalog.load(catalog, mirror)
    worst = 0
    for name in names or loaded.names():
        try:
            print(f"ok    {name:<26} {check_source(loaded, name, state, year)}")
        except ZonalError as error:
            print(f"FAIL  {name:<26} {error}")
            worst = max(worst, error.exit_code)
    if worst:
        raise typer.Exit(worst)


def main() -> NoReturn:
    """Entry point: run a command, print one sentence for what went wrong, exit with its code."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        code = app(standalone_mode=False)
    except ZonalError as error:
        _fail(f"zonal: {error}", error.exit_code)
    except KeyboardInterrupt:
        _fail("zonal: interrupted; the same command goes on where it stopped", 130)
    except Exception as error:
        click_code = getattr(error, "exit_code", None)
        if hasattr(error, "format_message"):  # click's own errors
            _fail(f"zonal: {error.format_message()} (zonal --help)", UsageError.exit_code)
        if isinstance(click_code, int):
            sys.exit(click_code)
        import traceback

        traceback.print_exc()
        _fail("zonal: this is a bug; please report it with the lines above", BUG)
    sys.exit(code if isinstance(code, int) else 0)


def _terminated(number: int, frame: object) -> NoReturn:
    _fail("zonal: terminated; the same command goes on where it stopped", 128 + number)


def _fail(message: str, code: int) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(code)
