"""What a run tells while it runs: a sentence, its figures, and what it is about.

Knows nothing of who tells and who listens.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass, field, replace
from typing import Any

RUN_ID = uuid.uuid4().hex
"""Of this process: its log lines, its locks and its manifests carry it."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something to show.

    Parameters
    ----------
    kind : str
        ``info``, ``warning``, ``progress``; ``part`` of a part that is written, ``stage`` of a stage that
        has ended.
    message : str
        A sentence; empty for progress.
    values : dict
        Its figures, and its labels: ``state``, ``year``, ``part``.
    """

    kind: str
    message: str
    values: dict[str, Any] = field(default_factory=dict)


Notify = Callable[[Event], None]


def quiet(_: Event) -> None:
    """Show nothing."""


def telling(notify: Notify) -> Callable[[str], None]:
    """Tell sentences as events."""
    return lambda text: notify(Event("info", text))


@contextlib.contextmanager
def labelled(notify: Notify, **labels: Any) -> Iterator[Notify]:
    """Give what labels events, and label the error that leaves the `with`; inner labels win.

    Parameters
    ----------
    notify : callable
        Told of the events.
    **labels
        What it is about; those that are None or empty are left out.
    """
    labels = {name: value for name, value in labels.items() if value not in (None, "")}
    try:
        yield lambda event: notify(replace(event, values={**labels, **event.values}))
    except BaseException as error:
        label(error, **labels)
        raise


def label(error: BaseException, **labels: Any) -> None:
    """Say what an error is about, where it does not say so itself."""
    vars(error)["labels"] = labels | labels_of(error)


def labels_of(error: BaseException | None) -> dict[str, Any]:
    """Return what an error is about."""
    return dict(getattr(error, "labels", {}))


@contextlib.contextmanager
def timed(stage: str, seconds: MutableMapping[str, float], notify: Notify) -> Iterator[None]:
    """Write down and tell how long a stage took; of one that fails, nothing."""
    started = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - started
    rounded = round(seconds[stage], 3)
    notify(Event("stage", f"stage {stage} took {rounded:g} s", {"stage": stage, "seconds": rounded}))
