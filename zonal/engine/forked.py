"""What the workers of a command are forked from: a process that imports this, and waits.

Imported for what it does, by `multiprocessing.forkserver`; see `zonal.cluster.local`.
"""

import contextlib
import gc
import importlib
import os
import signal

# A Ctrl-C is for the command, which ends its workers.
signal.signal(signal.SIGINT, signal.SIG_IGN)

_STEPS = ("distributed", "distributed.nanny", "zonal.engine.work", "numba", "zonal.preload")


def _load() -> None:
    command = os.getppid()
    for name in _STEPS:
        importlib.import_module(name)
        if os.getppid() != command:  # it ended already, and its readers wait for this process to let go
            os._exit(0)
    from zonal.engine.preload import load

    load()


gc.disable()  # what is loaded stays: no garbage is in it
with contextlib.suppress(Exception):  # each worker loads what is missing here, and says why it cannot
    _load()
gc.enable()
