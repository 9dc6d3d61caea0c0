"""What a run tells while it runs: a sentence and its figures.

Knows nothing of who tells and who listens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """Something to show: a `kind` (info, warning, progress), a sentence, and its figures."""

    kind: str
    message: str
    values: dict[str, Any] = field(default_factory=dict)


Notify = Callable[[Event], None]


def quiet(_: Event) -> None:
    """Show nothing."""


def telling(notify: Notify) -> Callable[[str], None]:
    """Tell sentences as events."""
    return lambda text: notify(Event("info", text))
