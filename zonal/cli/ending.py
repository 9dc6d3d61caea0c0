"""How the process ends: one sentence, an exit code, and nothing left behind.

Knows signals, streams and whether JSON was asked for; knows no command.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from zonal.credentials import scrub_urls
from zonal.events import labels_of

BUG = 70
"""Exit code of an error that is nobody's but ours."""


class Stopped(SystemExit):
    """SIGINT or SIGTERM: unwinds the stack, so that locks and workers go.

    No KeyboardInterrupt, of which typer would make an exit without a word.
    """


def stop(number: int, frame: object) -> NoReturn:
    """Handle a signal."""
    logging.disable()  # workers that end in mid-task have much to say, and nobody to say it to
    raise Stopped(number)


def leave(code: int) -> NoReturn:
    """Exit without Python's own wait for threads, which may wait for the network; all has been said.

    Exit functions run nevertheless: they close a cluster that was only half there, and free its
    semaphores. No public function runs them without that wait, hence the private one (Python 3.11).
    Tried instead: `sys.exit`, and a timer that ends the process where threads hold it; the semaphores
    then stay, and their tracker complains of them after the last sentence.
    """
    from psutil import NoSuchProcess, Process  # type: ignore[import-untyped]

    sys.stdout.flush()
    sys.stderr.flush()
    with Path(os.devnull).open("w") as nowhere:  # Dask's threads log that they are being closed
        os.dup2(nowhere.fileno(), 2)
    for child in Process().children(recursive=True):
        with suppress(NoSuchProcess):
            # A worker that is only starting would miss the semaphores, aloud; their tracker must see them go.
            if "resource_tracker" not in " ".join(child.cmdline()):
                child.kill()
    atexit._run_exitfuncs()
    os._exit(code)


def fail(message: str, code: int, **values: str) -> NoReturn:
    """Say one sentence and exit with a code."""
    tell(message, code, **values)
    sys.exit(code)


def fail_as_bug() -> NoReturn:
    """Show where an error came from that nobody foresaw, and exit with 70."""
    lines = scrub_urls(traceback.format_exc())  # clients quote addresses, with whatever signs them
    if _json_logs():
        fail("this is a bug; please report it with the traceback", BUG, traceback=lines)
    print(lines, end="", file=sys.stderr)
    fail("this is a bug; please report it with the lines above", BUG)


def tell(message: str, code: int, **values: str) -> None:
    """Print how the process ends, as the lines before it were printed, with the labels of what ends it."""
    message = scrub_urls(message)  # that of a wrong argument is not ours
    if _json_logs():
        from zonal.cli.screen import json_line

        json_line("error", message, **labels_of(sys.exception()), exit_code=code, **values)
    else:
        print(f"zonal: {message}", file=sys.stderr)


def _json_logs() -> bool:
    arguments = sys.argv[1:]
    return "--json-logs" in (arguments[: arguments.index("--")] if "--" in arguments else arguments)
