"""GDAL's command-line algorithms, run in this process by the library that a Python package brings.

Knows GDAL's C interface to them (3.12 and newer); knows nothing of rasters and zones.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Sequence

OLDEST = (3, 12)  # has `gdal raster zonal-stats`


class Gdal:
    """GDAL as osgeo loads it, else as pyogrio's wheel does.

    Raises
    ------
    ImportError
        If it is older than what is needed.
    """

    def __init__(self) -> None:
        try:
            path = importlib.import_module("osgeo._gdal").__file__
        except ImportError:
            path = importlib.import_module("pyogrio._io").__file__
        self._library = ctypes.CDLL(path)  # finds what the module itself was linked with
        self._call("GDALAllRegister", None)
        found: bytes = self._call("GDALVersionInfo", ctypes.c_char_p, b"RELEASE_NAME")
        self.version = found.decode()
        if tuple(map(int, self.version.split(".")[:2])) < OLDEST:
            raise ImportError(f"GDAL {self.version}; 3.12 or newer has zonal-stats")

    def run(self, name: Sequence[str], words: Sequence[str]) -> None:
        """Run an algorithm, such as ``["raster", "zonal-stats"]``, with the words of its command line."""
        pointer = ctypes.c_void_p
        registry = pointer(self._call("GDALGetGlobalAlgorithmRegistry", pointer))
        first, *below = (part.encode() for part in name)
        algorithm = pointer(self._call("GDALAlgorithmRegistryInstantiateAlg", pointer, registry, first))
        for part in below:
            algorithm = pointer(self._call("GDALAlgorithmInstantiateSubAlgorithm", pointer, algorithm, part))
        given = (ctypes.c_char_p * (len(words) + 1))(*(word.encode() for word in words), None)
        steps = (
            ("GDALAlgorithmParseCommandLineArguments", (given,)),
            ("GDALAlgorithmRun", (None, None)),
            ("GDALAlgorithmFinalize", ()),
        )
        for step, arguments in steps:
            if not self._call(step, ctypes.c_bool, algorithm, *arguments):
                said: bytes = self._call("CPLGetLastErrorMsg", ctypes.c_char_p)
                raise RuntimeError(f"{step}: {said.decode()}")

    def _call(self, function: str, gives: object, *arguments: object) -> object:
        called = getattr(self._library, function)
        called.restype = gives
        return called(*arguments)
