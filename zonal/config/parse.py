"""Reading of comma lists, paths, choices, years and boxes.

Knows text and lists, and says what is wrong with them in a `ValueError`; must not know what a
setting means.
"""

from __future__ import annotations

import math
import os
import re
from typing import Any

from zonal.text import did_you_mean, shown


def words_of(value: object, name: str) -> list[str]:
    """Cut a scalar, a comma list, or a list of those, into stripped words."""
    if value is None:
        return []
    items = list(value) if isinstance(value, list | tuple) else [value]
    words: list[str] = []
    for item in items:
        if isinstance(item, bool) or not isinstance(item, str | int):
            raise ValueError(f"{name} {shown(item)}: expected text or a whole number")
        words += [word.strip() for word in str(item).split(",") if word.strip()]
    return words


def comma_list(value: object) -> object:
    """Cut text at its commas but those inside brackets; what is no text stays as it is."""
    if not isinstance(value, str):
        return value
    return tuple(word.strip() for word in re.split(r",(?![^()\[\]]*[)\]])", value) if word.strip())


def paths_of(value: object, name: str) -> list[str]:
    """One path or several as text; a comma is part of a path."""
    items: list[Any] = list(value) if isinstance(value, list | tuple) else [value]
    for item in items:
        if not isinstance(item, str | os.PathLike) or not str(item).strip():
            raise ValueError(f"{name} {shown(item)}: expected a name, a path or a URL")
    return [os.fspath(item) for item in items]


def choices_of(value: object, name: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """One or more of some known words, each once."""
    words = [word.lower() for word in words_of(value, name)]
    for word in words:
        if word not in known:
            near = did_you_mean(word, known)
            raise ValueError(f"{name} {word!r}: expected some of {', '.join(known)}{near}")
    if not words:
        raise ValueError(f"{name}: expected at least one of {', '.join(known)}")
    return tuple(dict.fromkeys(words))


def unbool(value: object) -> object:
    """Refuse yes and no, which Python takes for 1 and 0, where a number is expected."""
    if isinstance(value, bool):
        raise ValueError(f"{value}: expected a number")
    return value


def parse_years(value: object) -> tuple[int, ...]:
    """Read years the way people write them, ascending and each once.

    Parameters
    ----------
    value : object
        ``2020``, ``"2018,2020-2024"``, or a list of these.

    Raises
    ------
    ValueError
        Not a year from 1900 to 2100, or a range that runs backwards.
    """
    years: set[int] = set()
    for word in words_of(value, "year"):
        match = re.fullmatch(r"(\d{4})(?:\s*-\s*(\d{4}))?", word)
        if not match or not all(1900 <= int(year) <= 2100 for year in match.groups() if year):
            raise ValueError(f"year {word!r}: expected a year such as 2020 or a range such as 2018-2024")
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last:
            raise ValueError(f"year {word!r}: the range runs backwards; write {last}-{first}")
        years.update(range(first, last + 1))
    return tuple(sorted(years))


def parse_box(value: object) -> tuple[float, ...]:
    """Read a box of longitudes and latitudes: W S E N, degrees.

    Parameters
    ----------
    value : object
        ``"-122.4 47.4 -122 47.7"``, with blanks or commas, or four numbers.

    Raises
    ------
    ValueError
        Not four numbers, outside the world, or not in this order.
    """
    items = re.split(r"[\s,]+", value.strip()) if isinstance(value, str) else value
    order = "expected four numbers in the order W S E N, in degrees"
    if not isinstance(items, list | tuple) or len(items) != 4:
        raise ValueError(f"bbox {shown(value)}: {order}")
    try:
        box = tuple(float(item) for item in items if not isinstance(item, bool))
    except (TypeError, ValueError, OverflowError):
        box = ()
    if len(box) != 4:
        raise ValueError(f"bbox {shown(value)}: {order}")
    for side, degrees, limit in zip(("west", "south", "east", "north"), box, (180, 90, 180, 90), strict=True):
        if not math.isfinite(degrees) or abs(degrees) > limit:
            raise ValueError(f"bbox: {side} {degrees:g} is outside -{limit} to {limit}; the order is W S E N")
    west, south, east, north = box
    if west >= east:
        raise ValueError(f"bbox: west {west} >= east {east}; the order is W S E N")
    if south >= north:
        raise ValueError(f"bbox: south {south} >= north {north}; the order is W S E N")
    return box
