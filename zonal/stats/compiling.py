"""How the loops of this package are compiled; knows nothing of what they compute.

No fast-math anywhere: the order and the rounding of float sums are part of the
contract. Code is kept on disk, so that a worker does not compile it anew.

Alone in knowing what numba keeps to itself: its public ``cache=True`` passes over a
folder that cannot be written to, and raises when the disk is full. Tried on numba
0.68; ``tests/stats/test_compiling.py`` says when a version breaks it.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

from numba import njit
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.cpython.unsafe.numbers import trailing_zeros

__all__ = ["compiled", "inlined", "trailing_zeros"]

Function = TypeVar("Function", bound=Callable[..., Any])

_SOURCES = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))))


class _ReadOnlyFolder(CompileResultCacheImpl._locator_classes[0]):  # type: ignore[misc]
    """``NUMBA_CACHE_DIR`` that cannot be written to, as in an image: what is in it is used."""

    def ensure_cache_path(self) -> None:
        if not Path(self.get_cache_path()).is_dir():
            raise FileNotFoundError(self.get_cache_path())


class _Locations(CompileResultCacheImpl):  # type: ignore[misc]
    """Where code may be kept: numba's own places, and after its first one the same where it is read-only."""

    _locator_classes: ClassVar[list[Any]] = [
        CompileResultCacheImpl._locator_classes[0],
        _ReadOnlyFolder,
        *CompileResultCacheImpl._locator_classes[1:],
    ]


class _Cache(FunctionCache):  # type: ignore[misc]
    """Code on disk, in the first place that serves; what cannot be kept is compiled all the same."""

    _impl_class = _Locations

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(OSError):
            super().save_overload(sig, data)


def _jit(function: Function, **options: bool) -> Function:
    # Numba keeps code under a function's name and its own file's time: without this, a loop would go on
    # with the old code of what it calls from another file.
    function.__qualname__ += f"-{_SOURCES.hexdigest()[:12]}"
    dispatcher = njit(nogil=True, error_model="numpy", **options)(function)
    with contextlib.suppress(RuntimeError):  # no place at all: each process compiles for itself
        dispatcher._cache = _Cache(function)  # what `cache=True` does, with numba's own places
    return cast(Function, dispatcher)


def compiled(function: Function) -> Function:
    """Compile without the GIL; divisions do as NumPy's, so that none needs a branch."""
    return _jit(function)


def inlined(function: Function) -> Function:
    """Compile into the callers: handing over arrays costs more than what these small steps do."""
    return _jit(function, forceinline=True)
