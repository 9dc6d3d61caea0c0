from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builds import Run
from seam import Reference, Seam, build
from servers import S3Server, s3_server

from zonal.cluster.runner import Threads
from zonal.config.settings import Settings
from zonal.engine.run import run

SEEDS = {
    # name of the argument: (in CI, in `make soak`)
    "fault_seed": (3, 10),
    "flip_seed": (1, 10),
    "s3_seed": (1, 3),
    "worker_kill": (5, 20),
    "driver_kill": (3, 10),
    "cut": (2, 6),
}
"""How many seeds the tests of reliability draw their faults from."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for name, (few, many) in SEEDS.items():
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, range(many if metafunc.config.getoption("soak") else few))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """After `make soak`: how many seeds of what, how many faults, how many came out right."""
    if not config.getoption("soak"):
        return
    rows: dict[str, list[Any]] = {}
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.getreports(outcome):
            test = report.nodeid.rsplit("::", 1)[1].split("[")[0]
            rows.setdefault(test, []).append((outcome, report.duration, dict(report.user_properties)))
    terminalreporter.section("what was endured")
    terminalreporter.write_line(f"{'right':>7}{'of':>5}{'faults':>9}{'seconds':>9}  test")
    for test, found in sorted(rows.items()):
        right = sum(outcome == "passed" for outcome, _, _ in found)
        faults = sum(properties.get("faults", 1) for _, _, properties in found)
        seconds = sum(seconds for _, seconds, _ in found)
        words = test.removeprefix("test_").replace("_", " ")
        terminalreporter.write_line(f"{right:7}{len(found):5}{faults:9,}{seconds:9.0f}  {words}")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ZONAL_MIRROR", "AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def wisconsin(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder, mirror = tmp_path_factory.mktemp("wi") / "out", shared / "mirror"
    settings = Settings(state="WI", year=2024, mirror=str(mirror), output=str(folder))
    (result,) = run(settings, runner=Threads(2))
    return Run(folder, mirror, result.manifest)


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture(scope="session")
def seam(tmp_path_factory: pytest.TempPathFactory) -> Seam:
    folder = tmp_path_factory.mktemp("seam")
    mirror = build(folder / "mirror")
    return Seam(mirror, Reference.of(mirror, folder / "out"))
