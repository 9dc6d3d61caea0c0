"""The words of a command line as typer wants them; knows which options take several values."""

from __future__ import annotations

SEVERAL = frozenset({"--raster", "--state", "--county"})
"""Options that take several values: repeated, or one after the other."""


def spread(words: list[str]) -> list[str]:
    """Repeat an option of several values before each: ``--raster a b`` is ``--raster a --raster b``.

    A workflow (a YAML file, or a bundled name) after them is not one of their values. Other commands
    than `run` and `plan` have no such options.
    """
    if words[:1] not in (["run"], ["plan"]):
        return words
    found: list[str] = []
    option = None
    for at, word in enumerate(words):
        if word == "--":
            return found + words[at:]
        if word.startswith("-"):
            option = word if word in SEVERAL else None
        elif option is not None and words[at - 1] != option:
            if _is_workflow(word):
                option = None
            else:
                found.append(option)
        found.append(word)
    return found


def _is_workflow(word: str) -> bool:
    from zonal.config.workflows import workflow_names

    return word.lower().endswith((".yaml", ".yml")) or word in workflow_names()
