"""What a run shows: a live bar on a terminal, plain lines elsewhere, or JSON lines.

Knows events and how people read them; knows nothing of runs.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any

from zonal.credentials import scrub_urls
from zonal.events import RUN_ID
from zonal.text import human

if TYPE_CHECKING:
    from zonal.events import Event

SECONDS_BETWEEN_LINES = 5.0
"""Progress is no more frequent than this where each one is a line."""

DETAILS = ("part", "stage")
"""Kinds of events that people need not see: they have their progress."""


@contextlib.contextmanager
def screen(*, quiet: bool, json_logs: bool) -> Iterator[Callable[[Event], None]]:
    """Give a function that shows events on standard error.

    Parameters
    ----------
    quiet : bool
        Show warnings only.
    json_logs : bool
        One JSON object a line, as `json_line` prints it.
    """
    if json_logs:
        with _json_records():
            yield _Lines(_json_line, (), quiet)
    elif quiet or not sys.stderr.isatty():
        yield _Lines(_plain_line, DETAILS, quiet)
    else:
        with _bar() as show:
            yield show


class _Lines:
    """One line an event; of progress, one every few seconds and the last."""

    def __init__(self, write: Callable[[Event, str], None], left_out: Collection[str], quiet: bool) -> None:
        self.write = write
        self.left_out = left_out
        self.quiet = quiet
        self.last = time.monotonic()

    def __call__(self, event: Event) -> None:
        if event.kind in self.left_out or (self.quiet and event.kind != "warning"):
            return
        if event.kind != "progress":
            self.write(event, event.message)
            return
        values, now = event.values, time.monotonic()
        complete = all(values[name] == values["totals"][name] for name in ("zones", "chunks"))
        due = values["bytes"] and now - self.last >= SECONDS_BETWEEN_LINES  # before, there is no rate
        if complete or due:
            self.last = now
            self.write(event, _figures(event))


def _plain_line(event: Event, message: str) -> None:
    prefix = "warning: " if event.kind == "warning" else ""
    print(f"{prefix}{message}", file=sys.stderr, flush=True)


def _json_line(event: Event, message: str) -> None:
    level = "warning" if event.kind == "warning" else "info"
    kind = {} if event.kind == level else {"kind": event.kind}
    json_line(level, message, **kind, **event.values)


def json_line(level: str, message: str, **values: Any) -> None:
    """Print one JSON object on standard error: time, level, message, run, labels and figures."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    line = {"time": stamp, "level": level, "message": message, "run": RUN_ID, **values}
    # In one write: several threads print.
    print(json.dumps(line, default=str) + "\n", end="", file=sys.stderr, flush=True)


class _Records(logging.Handler):
    """What libraries log, and their warnings, as lines of the same make."""

    def emit(self, record: logging.LogRecord) -> None:
        json_line(record.levelname.lower(), scrub_urls(self.format(record)), logger=record.name)


@contextlib.contextmanager
def _json_records() -> Iterator[None]:
    handler = _Records(logging.WARNING)
    logging.getLogger().addHandler(handler)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        logging.getLogger().removeHandler(handler)


def _figures(event: Event) -> str:
    values, totals = event.values, event.values["totals"]
    rate = values["bytes"] / max(values["seconds"], 1e-9)
    return (
        f"{values['zones']:,}/{totals['zones']:,} zones, {values['chunks']:,}/{totals['chunks']:,} chunks, "
        f"{human(values['bytes'])} at {human(rate)}/s"
    )


@contextlib.contextmanager
def _bar() -> Iterator[Callable[[Event], None]]:
    """Show a bar that pulses while zones are staged and fills while chunks are reduced."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (BarColumn(None), TextColumn("{task.fields[figures]}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, expand=True) as progress:
        task = progress.add_task("", total=None, figures="")
        begun = False

        def show(event: Event) -> None:
            nonlocal begun
            if event.kind in DETAILS:
                return
            if event.kind != "progress":
                style = "yellow" if event.kind == "warning" else None
                console.print(event.message, style=style, highlight=False, markup=False, soft_wrap=True)
                return
            begun = True
            totals = event.values["totals"]
            total = totals["zones"] + totals["chunks"]
            done = event.values["zones"] + event.values["chunks"]
            progress.update(task, total=total, completed=done, figures=_figures(event))

        try:
            yield show
        finally:
            progress.update(task, visible=begun)  # nothing was to do: no bar stays behind
