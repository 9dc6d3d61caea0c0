"""Errors that end a run: one sentence for the user and the exit code of the process.

Knows nothing of the rest. Every error that a user can cause or mend is one of
these; anything else that escapes is a bug (exit code 70).
"""

from __future__ import annotations


class ZonalError(Exception):
    """Base of the errors a user can cause or mend; `exit_code` is the process's."""

    exit_code = 70


class UsageError(ZonalError):
    """A setting, flag or workflow key is wrong or contradicts another."""

    exit_code = 2


class InputError(ZonalError):
    """An input file is missing, unreadable or not what the settings say it is."""

    exit_code = 3


class UnfitError(InputError):
    """A table is whole and readable, and does not allow what is asked of it: too few zones, no geometry."""


class MissingError(InputError):
    """A file is not where something says it is."""


class StoreError(ZonalError):
    """A remote store failed after all retries; the same command may work later."""

    exit_code = 4


class LockedError(ZonalError):
    """Another run is writing to the same output."""

    exit_code = 5


class OtherRunError(ZonalError):
    """The output folder holds a run with other settings or inputs."""

    exit_code = 6


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its kind where it has none: to end a sentence with."""
    return (str(error) or type(error).__name__).split("\n")[0].rstrip(".")
