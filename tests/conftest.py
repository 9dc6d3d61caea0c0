from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builds import Builds
from hypothesis import HealthCheck, settings

from zonal.demo.town import Sample, write_sample

SHARED = Path(__file__).resolve().parents[1].parent / "shared"

# Examples that failed are kept in .hypothesis/ and tried first; `ci` draws the same ones each time instead.
COMMON: dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck)}
settings.register_profile("dev", max_examples=100, **COMMON)
settings.register_profile("ci", max_examples=100, derandomize=True, **COMMON)
settings.register_profile("nightly", max_examples=2000, **COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="Draw from as many seeds as `make soak` does.")


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("the folder of real data (../shared) is not here")
    return SHARED


@pytest.fixture(scope="session")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builds]:
    base = tmp_path_factory.getbasetemp()
    # A worker's own folder lies in that of the session.
    builds = Builds((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "builds")
    yield builds
    assert not (changed := builds.changed()), f"a test wrote to what all of them read: {sorted(changed)}"


@pytest.fixture(scope="session")
def sample(builds: Builds) -> Sample:
    """The demo's town."""
    return write_sample(builds.folder("sample", write_sample))
