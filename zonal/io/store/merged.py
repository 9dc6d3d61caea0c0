"""Ranges that lie near each other, joined into fewer requests.

Knows offsets and lengths; sends nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

GAP = 64 * 1024
"""Unwanted bytes read rather than sent for in a second request."""
LONGEST_MERGE = 8 * 1024 * 1024
"""No merged request grows beyond this, so that ranges still travel side by side."""


@dataclass(frozen=True, slots=True)
class Merged:
    """One request that answers several ranges: bytes `start` to `end` hold the ranges `members`."""

    start: int
    end: int
    members: tuple[int, ...]


def coalesce(ranges: Sequence[tuple[int, int]], gap: int = GAP, longest: int = LONGEST_MERGE) -> list[Merged]:
    """Join neighbouring ranges into fewer requests.

    fsspec's own `merge_offset_ranges` is quadratic in some releases and drops
    exact duplicates; this is one sort and one pass.

    Parameters
    ----------
    ranges : sequence of (offset, length)
        In any order; empty ones are left out, duplicates and overlaps share a request.
    gap : int
        Ranges at most this many bytes apart are joined...
    longest : int
        ...unless the request would become longer than this. Overlapping ranges are
        joined regardless: no byte is asked for twice.

    Returns
    -------
    list of Merged
        By offset; every non-empty range is a member of exactly one.
    """
    merged: list[Merged] = []
    start = end = -1
    members: list[int] = []
    for index in sorted(range(len(ranges)), key=lambda i: ranges[i][0]):
        offset, length = ranges[index]
        if offset < 0 or length < 0:
            raise ValueError(f"a range needs offset >= 0 and length >= 0; got {offset=} {length=}")
        if length == 0:
            continue
        near = offset - end <= gap and max(end, offset + length) - start <= longest
        if members and (offset < end or near):
            end = max(end, offset + length)
        else:
            if members:
                merged.append(Merged(start, end, tuple(members)))
            start, end, members = offset, offset + length, []
        members.append(index)
    if members:
        merged.append(Merged(start, end, tuple(members)))
    return merged
