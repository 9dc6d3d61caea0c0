"""The command line: parses arguments, calls what does the work, prints; decides nothing.

Heavy imports happen inside the commands, so that ``zonal --help`` is quick.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from zonal.cli import tables
from zonal.cli.ending import Stopped, fail, fail_as_bug, leave, stop, tell
from zonal.cli.options import Fresh, JsonLogs, Quiet, StateIndex, Workflow, command
from zonal.errors import UsageError, ZonalError

if TYPE_CHECKING:
    from zonal.config.settings import Settings

app = typer.Typer(
    name="zonal",
    help="Satellite embeddings as plain feature tables: one row a zone, one column a statistic.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
catalog_app = typer.Typer(help="List the data catalog: what can be read by name.")
app.add_typer(tables.app)
app.add_typer(catalog_app, name="catalog")

_OF_RUNS_ONLY = (
    "min_workers", "cluster_template", "metrics", "dashboard", "attempts", "patience", "stall", "verify",
    "cache", "steps",
)  # fmt: skip
"""Settings that change nothing of what a plan says."""


@app.callback(invoke_without_command=True)
def _top(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", metavar="", help="Print the version.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        print(f"zonal {installed('zonal')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(UsageError.exit_code)


@command(app)
def run(
    workflow: Workflow = None,
    *,
    flags: dict[str, Any],
    state_index: StateIndex = None,
    fresh: Fresh = False,
    quiet: Quiet = False,
    json_logs: JsonLogs = False,
) -> None:
    """Run a workflow: zones and a raster in; a table, a map and a report out. Flags override the workflow."""
    from zonal import steps
    from zonal.cli.screen import screen
    from zonal.cluster.runner import unhandled

    # What imports make stays: looking for garbage in it takes a tenth of the start.
    gc.set_threshold(100_000)
    settings = _settings(workflow, flags, state_index)
    with screen(quiet=quiet, json_logs=json_logs) as notify:
        if json_logs:
            unhandled()
        results = steps.run(settings, fresh=fresh, notify=notify, forked=True)
    if not quiet:
        for result in results:
            zones_of = result.manifest["zones"]
            what = "written" if result.fresh else "nothing to do: already complete"
            print(f"{result.table}  {zones_of['kept']:,} zones, {zones_of['covered']:,} covered; {what}")
            for files in result.files.values():
                print("\n".join(files))


@command(app, without=_OF_RUNS_ONLY)
def plan(
    workflow: Workflow = None,
    *,
    flags: dict[str, Any],
    state_index: StateIndex = None,
    headers: Annotated[
        bool,
        typer.Option(
            "--headers", metavar="", help="Read the tiles' headers: exact bytes instead of an estimate."
        ),
    ] = False,
    quiet: Quiet = False,
    json_logs: JsonLogs = False,
) -> None:
    """Say what a run would do and cost, without reading a pixel."""
    from zonal.cli.screen import screen
    from zonal.engine import run as engine

    settings = _settings(workflow, flags, state_index)
    with screen(quiet=quiet, json_logs=json_logs) as notify:
        plans = engine.plan(settings, headers=headers, notify=notify)
    for label, costs in plans.items():
        if label is not None:
            print(label)
        print(costs)


def _settings(workflow: str | None, flags: dict[str, Any], state_index: int | None) -> Settings:
    from zonal.config.workflows import load

    settings = load(workflow, flags)
    return settings if state_index is None else settings.of_state(state_index)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where the sample and its output go.")] = Path("zonal-demo"),
    fresh: Fresh = False,
    quiet: Quiet = False,
) -> None:
    """Write a small made-up town and its tiles, and run the whole workflow on them, offline."""
    from zonal import steps
    from zonal.cli.screen import screen
    from zonal.config.workflows import load
    from zonal.demo import town
    from zonal.io.table.names import MANIFEST

    if not quiet:
        print("The data of this demo is made up: an invented town, invented people, invented pixels.")
    sample = town.write_sample(folder)
    settings = load(
        "demo",
        {"zones": str(sample.zones), "mirror": str(sample.mirror), "output": str(folder / "out")},
    )
    with screen(quiet=quiet, json_logs=False) as notify:
        (result,) = steps.run(settings, fresh=fresh, notify=notify)
    if not quiet:
        zones_of = result.manifest["zones"]
        done = "zones summarised" if result.fresh else "zones were summarised already: nothing to do"
        print(f"{zones_of['kept']:,} {done}; {zones_of['covered']:,} of them are covered by pixels.")
        print(f"The table is {result.table} (made-up data); its manifest is {result.output}/{MANIFEST}.")
        for what, file in zip(("The map is", "A picture of it is"), result.files["pca"], strict=False):
            print(f"{what} {file}.")
        for file in result.files["report"]:
            print(f"The report is {file}: open it in a browser.")


@app.command()
def status(
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="An output folder, as a path or a URL.")],
    as_json: Annotated[bool, typer.Option("--json", metavar="", help="One JSON object.")] = False,
) -> None:
    """Say what an output holds: what is done, what is left, who is at it. Writes nothing."""
    from zonal.engine.status import status_of
    from zonal.io.store.folder import Folder

    current = status_of(Folder(output.rstrip("/") or "/", tables.storage_options(output)))
    print(current.as_json() if as_json else current)


# As the settings say: a group's options cannot be made when it is called, and `zonal --help` shall be quick.
CatalogFile = Annotated[
    str | None, typer.Option("--catalog", metavar="FILE", help="A catalog in place of the bundled one.")
]
Mirror = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER|URL", help="Place that answers for the public services; also $ZONAL_MIRROR."
    ),
]


@catalog_app.callback(invoke_without_command=True)
def _catalog(context: typer.Context, catalog: CatalogFile = None) -> None:
    if context.invoked_subcommand is None:
        catalog_list(catalog)


@catalog_app.command("list")
def catalog_list(catalog: CatalogFile = None) -> None:
    """List the sources of the catalog."""
    from zonal.config.catalog import Catalog
    from zonal.credentials import without_credentials

    for source in Catalog.load(catalog):
        print(f"{source.name:<26} {source.data_type:<14} {source.description or ''}")
        print(f"{'':<26} {without_credentials(source.uri)}")
        thanks = (source.license or "licence not stated", source.citation or "")
        print(f"{'':<26} {'. '.join(text.rstrip('.') for text in thanks if text)}.")


@catalog_app.command("check")
def catalog_check(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="SOURCE", help="Sources; default: all.")
    ] = None,
    state: Annotated[
        str, typer.Option(metavar="STATE", help="State to try, for sources of one file a state.")
    ] = "WA",
    year: Annotated[
        int | None, typer.Option(metavar="YEAR", help="Year to try; default: the latest.")
    ] = None,
    catalog: CatalogFile = None,
    mirror: Mirror = None,
) -> None:
    """Test each source: reachable, its columns there, one header read."""
    from zonal.config.catalog import Catalog
    from zonal.planning.check import check_source

    loaded = Catalog.load(catalog, mirror or os.environ.get("ZONAL_MIRROR"))
    worst = 0
    for name in names or loaded.names():
        try:
            print(f"ok    {name:<26} {check_source(loaded, name, state, year)}", flush=True)
        except ZonalError as error:
            print(f"FAIL  {name:<26} {error}", flush=True)
            worst = max(worst, error.exit_code)
    if worst:
        raise typer.Exit(worst)


def main() -> NoReturn:
    """Entry point: run a command, print one sentence for what went wrong, exit with its code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        code = app(args=sys.argv[1:], standalone_mode=False, prog_name="zonal")
    except Stopped as stopped:
        word = "terminated" if stopped.code == signal.SIGTERM else "interrupted"
        code = 128 + int(stopped.code or 0)
        tell(f"{word}; the same command goes on where it stopped", code)
        leave(code)
    except ZonalError as error:
        fail(str(error), error.exit_code)
    except Exception as error:
        if hasattr(error, "format_message"):  # click's: a wrong argument
            message = error.format_message().rstrip(".")
            where = getattr(getattr(error, "ctx", None), "command_path", None) or "zonal"
            fail(f"{message}; see {where} --help", UsageError.exit_code)
        fail_as_bug()
    sys.exit(code if isinstance(code, int) else 0)
