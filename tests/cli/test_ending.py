from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import atexit, os, threading
from zonal.cli.ending import leave, tell

def closed():
    os.write(1, b"closed")

def broken():
    raise RuntimeError("a cluster that was only half there")

atexit.register(closed)
atexit.register(broken)
threading.Thread(target=threading.Event().wait).start()
tell("interrupted", 130)
leave(130)
"""


def test_exit_functions_run_in_silence_though_a_thread_never_ends() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=90)
    assert (done.returncode, done.stdout, done.stderr) == (130, "closed", "zonal: interrupted\n")
