from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builds import Builds, Run
from seam import Seam
from servers import S3Server, s3_server
from town import Town

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
"""How many seeds the tests of reliability draw their faults from; all but the first are slow."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for name, (few, many) in SEEDS.items():
        if name in metafunc.fixturenames:
            seeds = range(many if metafunc.config.getoption("soak") else few)
            slow = pytest.mark.slow
            metafunc.parametrize(name, [pytest.param(at, marks=[slow] if at else []) for at in seeds])


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
def wisconsin(shared: Path, builds: Builds) -> Run:
    mirror = shared / "mirror"

    def make(folder: Path) -> None:
        settings = Settings(state="WI", year=2024, mirror=str(mirror), output=str(folder / "out"))
        run(settings, runner=Threads(2))

    return Run(builds.folder("wisconsin", make) / "out", mirror)


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture(scope="session")
def seam(builds: Builds) -> Seam:
    return Seam.of(builds.folder("seam", Seam.build))


@pytest.fixture(scope="session")
def wide_seam(builds: Builds) -> Seam:
    """The seam in two years, under the zones of two states; its table is of Washington in 2024."""
    return Seam.of(builds.folder("wide-seam", lambda folder: Seam.build(folder, (2023, 2024), ("53", "41"))))


@pytest.fixture(scope="session")
def town(seam: Seam) -> Town:
    return Town(seam.mirror)


@pytest.fixture(scope="session")
def town_table(town: Town, builds: Builds) -> Run:
    """The output of a run of the town that nothing disturbed."""

    def make(folder: Path) -> None:
        (result,) = run(Settings(**town.settings(folder / "out")), runner=Threads(2))
        plan = result.manifest["plan"]
        assert (plan["parts"], plan["tiles"]) == (26, 2) and plan["units"] >= 40

    return Run(builds.folder("town", make) / "out", town.mirror)
