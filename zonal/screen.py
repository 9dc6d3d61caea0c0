"""What a run shows: a live bar on a terminal, plain lines elsewhere, or JSON lines.

Knows events and how people read them; knows nothing of runs.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from zonal.plan import human

if TYPE_CHECKING:
    from zonal.engine import Event

SECONDS_BETWEEN_LINES = 5.0


@contextlib.contextmanager
def screen(*, quiet: bool, json_logs: bool) -> Iterator[Callable[[Event], None]]:
    """Give a function that shows events on standard error.

    Parameters
    ----------
    quiet : bool
        Show warnings only.
    json_logs : bool
        One JSON object a line: time, level, message and figures.
    """
    if json_logs:
        yield lambda event: _json_line(event, quiet)
    elif quiet:
        yield lambda event: _plain_line(event) if event.kind == "warning" else None
    elif sys.stderr.isatty():
        with _bar() as show:
            yield show
    else:
        yield _Lines()


def _json_line(event: Event, quiet: bool) -> None:
    if quiet and event.kind != "warning":
        return
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    line = {"time": stamp, "level": event.kind, "message": event.message, **event.values}
    print(json.dumps(line, default=str), file=sys.stderr, flush=True)


def _plain_line(event: Event) -> None:
    prefix = "warning: " if event.kind == "warning" else ""
    print(f"{prefix}{event.message}", file=sys.stderr, flush=True)


class _Lines:
    """Plain lines; progress every few seconds, and when it is complete."""

    def __init__(self) -> None:
        self.last = time.monotonic()

    def __call__(self, event: Event) -> None:
        if event.kind != "progress":
            _plain_line(event)
            return
        totals, now = event.values["totals"], time.monotonic()
        complete = event.values["zones"] == totals["zones"]
        if complete or now - self.last >= SECONDS_BETWEEN_LINES:
            self.last = now
            print(_figures(event), file=sys.stderr, flush=True)


def _figures(event: Event) -> str:
    values, totals = event.values, event.values["totals"]
    rate = values["bytes"] / max(values["seconds"], 1e-9)
    return (
        f"{values['zones']:,}/{totals['zones']:,} zones, {values['chunks']:,}/{totals['chunks']:,} chunks, "
        f"{human(values['bytes'])} at {human(rate)}/s"
    )


@contextlib.contextmanager
def _bar() -> Iterator[Callable[[Event], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (BarColumn(), TextColumn("{task.fields[figures]}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = None

        def show(event: Event) -> None:
            nonlocal task
            if event.kind != "progress":
                style = "yellow" if event.kind == "warning" else None
                console.print(event.message, style=style, highlight=False)
                return
            totals = event.values["totals"]
            if task is None:
                task = progress.add_task("", total=totals["zones"] + totals["chunks"], figures="")
            done = event.values["zones"] + event.values["chunks"]
            progress.update(task, completed=done, figures=_figures(event))

        yield show
