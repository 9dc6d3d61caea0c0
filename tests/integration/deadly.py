"""A worker that dies of one unit: ``dask worker --preload deadly.py``, with DEADLY_UNIT in its environment.

At once and each time; or, where DEADLY_MARK names a file that is not there yet, of too much memory and once.
"""

import os
import time
from pathlib import Path
from typing import Any

from distributed import Worker
from distributed.diagnostics.plugin import WorkerPlugin

MOST = 40
"""Blocks of 100 MB: more than any limit in these tests."""


class Deadly(WorkerPlugin):
    def transition(self, key: Any, start: str, finish: str, **_: Any) -> None:
        if finish != "executing" or not key[0].startswith("unit-"):
            return
        if key[1] != int(os.environ["DEADLY_UNIT"]):
            return
        mark = os.environ.get("DEADLY_MARK")
        if mark is None:
            os._exit(1)
        if not Path(mark).exists():
            Path(mark).touch()
            hoard = []
            for _ in range(MOST):
                hoard.append(b"x" * 100_000_000)
                time.sleep(0.05)


async def dask_setup(worker: Worker) -> None:
    await worker.plugin_add(Deadly())
