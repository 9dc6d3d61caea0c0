"""The layout of an output folder: the name of every file in it, and whose it is.

Knows names alone; opens no file.
"""

from __future__ import annotations

import re

TABLE = "stats.parquet"
"""The table of one state, or of any zones."""

DATASET = "stats"
"""Folder of the table of several states: ``stats/state=WA/part-00000.parquet``."""

MANIFEST = "manifest.json"
"""What the run was and did; the commit mark, written last."""

MAP = "pca"
"""``pca.tif``, ``pca.png``, ``pca.json``; of several states ``pca/state=WA.tif`` and ``.png``."""

EVALUATION = "evaluation"
"""``evaluation.json`` and ``evaluation.md``."""

REPORT = "report"
"""``report.html``."""

STYLE = "stats.qml"
"""The QGIS style of the table; QGIS takes one of its layer's own name."""

STEPS_MADE = "steps.json"
"""What the steps after the table made, and from what."""

WORK = ".work"
"""Folder of all that is there only while a run is under way."""

LOCK = "lock.json"
"""In `WORK`: who holds the output."""

RUN_FILE = f"{WORK}/run.json"
"""Which run has begun here and not ended."""

DRAFTS = f"{WORK}/steps/"
"""Where the steps after the table make their files before these get their names."""

PLACES = ("", f"{WORK}/**/", f"{DATASET}/*/", f"{MAP}/")
"""Patterns of the folders that a run writes to."""

_PART = re.compile(r"part-(\d{5,})\.parquet")
_IN_DATASET = re.compile(rf"{DATASET}/state=\w+/{_PART.pattern}")
_FINDING = re.compile(
    rf"{MAP}(/state=\w+)?\.(tif|png|json)|{EVALUATION}\.(json|md)|{REPORT}\.html"
    rf"|{re.escape(STYLE)}|{re.escape(STEPS_MADE)}"
)


def part_name(number: int) -> str:
    """File name of a part."""
    return f"part-{number:05d}.parquet"


def part_number(name: str) -> int | None:
    """Return the number of the part that has this file name; None if it is no part's."""
    match = _PART.fullmatch(name)
    return int(match[1]) if match else None


def in_dataset(state: str, name: str) -> str:
    """Path of a state's part in the output."""
    return f"{DATASET}/state={state}/{name}"


def is_in_dataset(name: str) -> bool:
    """Whether a file, by its path in the output, is a part of the published dataset."""
    return bool(_IN_DATASET.fullmatch(name))


def is_finding(name: str) -> bool:
    """Whether a file, by its path in the output, is one that a step after the table writes."""
    return bool(_FINDING.fullmatch(name))


def is_ours(name: str) -> bool:
    """Whether a file, by its path in the output, is one that a run writes."""
    return name in (TABLE, MANIFEST) or name.startswith(f"{WORK}/") or is_in_dataset(name) or is_finding(name)
