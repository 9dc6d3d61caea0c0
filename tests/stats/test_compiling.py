"""What compiling.py expects of numba beyond its public face: each promise that a new version might break."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import pytest

from zonal.stats import compiling


def loop() -> Callable[[int], int]:
    def double(number: int) -> int:
        return 2 * number

    return compiling.compiled(double)


def stats(function: Any) -> Any:
    return function.stats


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep code in a folder of this test."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    return tmp_path


def test_code_is_kept_and_found_again(folder: Path) -> None:
    first, second = loop(), loop()
    assert first(2) == second(2) == 4
    assert [sum(stats(each).cache_hits.values()) for each in (first, second)] == [0, 1]
    assert Path(stats(first).cache_path).is_relative_to(folder)
    assert list(folder.rglob("*.nbc"))


def make_read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:
        raise PermissionError("read-only")

    # How numba tries a folder. The mode of one would not keep out a test that is root's.
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)


def test_code_in_a_folder_that_cannot_be_written_to_is_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert loop()(2) == 4
    make_read_only(monkeypatch)
    again = loop()
    assert again(2) == 4
    assert Path(stats(again).cache_path).is_relative_to(folder)
    assert sum(stats(again).cache_hits.values()) == 1


def test_what_cannot_be_kept_is_compiled_all_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    double = loop()
    make_read_only(monkeypatch)
    assert double(2) == 4
    assert not list(folder.rglob("*.nb?"))


def test_code_is_kept_under_a_name_that_changes_with_any_source_of_the_package(folder: Path) -> None:
    loop()(2)
    (index,) = folder.rglob("*.nbi")
    assert compiling._SOURCES.hexdigest()[:12] in index.name
