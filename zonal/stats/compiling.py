"""How the loops of this package are compiled; knows nothing of what they compute.

No fast-math anywhere: the order and the rounding of float sums are part of the
contract. Code is kept on disk, so that a worker does not compile it anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])


_SOURCES = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))))


def _named(function: Function) -> Function:
    # Numba keeps code under a function's name and its own file's time: without this, a loop would go on
    # with the old code of what it calls from another file.
    function.__qualname__ += f"-{_SOURCES.hexdigest()[:12]}"
    return function


def compiled(function: Function) -> Function:
    """Compile without the GIL; divisions do as NumPy's, so that none needs a branch."""
    return cast(Function, njit(nogil=True, cache=True, error_model="numpy")(_named(function)))


def inlined(function: Function) -> Function:
    """Compile into the callers: handing over arrays costs more than what these small steps do."""
    return cast(
        Function, njit(nogil=True, cache=True, error_model="numpy", forceinline=True)(_named(function))
    )
