"""Byte strings put aside on the driver's disk, and got back by number.

Knows bytes and a temporary file; knows nothing of what they hold.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt


class Spool:
    """Byte strings in a temporary file, for more of them than fit into memory.

    Parameters
    ----------
    folder : Path
        Where the file lies until the spool is left.
    """

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by __exit__
        self._ends = [0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, values: Iterable[bytes]) -> None:
        """Put some aside; they are numbered from 0 in the order in which they come."""
        for value in values:
            self._file.write(value)
            self._ends.append(self._ends[-1] + len(value))

    def sizes(self) -> npt.NDArray[np.int64]:
        """Give the number of bytes of each."""
        ends = np.array(self._ends, np.int64)
        return ends[1:] - ends[:-1]

    def take(self, numbers: Iterable[int]) -> list[bytes]:
        """Get some back."""
        found = []
        for number in numbers:
            self._file.seek(self._ends[number])
            found.append(self._file.read(self._ends[number + 1] - self._ends[number]))
        return found
