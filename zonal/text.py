"""Values as people read them: any value briefly, sizes in bytes, the nearest word that was meant.

Knows text; must not know what it is about.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from difflib import get_close_matches

from zonal.credentials import scrub_urls


class _Brief(reprlib.Repr):
    def repr_str(self, x: str, level: int) -> str:
        return super().repr_str(scrub_urls(x), level)  # before it is cut: half a password is one, too


def shown(value: object) -> str:
    """`value` for an error message: short, whatever it is."""
    brief = _Brief()
    brief.maxlevel = 2  # YAML aliases can nest a list in itself
    text = brief.repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """Return ``"; did you mean 'state'?"`` for the nearest of `names`, or an empty string."""
    if len(word) > 100:  # no slip of the pen
        return ""
    spelt = {name.casefold(): name for name in names}
    word = word.casefold()
    close = get_close_matches(word.replace("-", "_"), spelt) or get_close_matches(word, spelt)
    close.sort(key=lambda name: sorted(name) != sorted(word))  # two letters swapped come first
    return f"; did you mean {spelt[close[0]]!r}?" if close else ""


def human(size: float) -> str:
    """Bytes in decimal units: 38.5 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
