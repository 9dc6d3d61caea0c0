"""The container image without an engine: what its Dockerfile says, and a worker that lives as in a pod."""

from __future__ import annotations

import json
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Sequence
from importlib.metadata import requires
from pathlib import Path, PurePosixPath
from string import Template

import pytest
import yaml
from builds import REPO
from distributed import Client
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from processes import SECONDS, dask_cluster, process, zonal_run
from servers import LOOPBACK, clean_environment
from test_atomic import may_mount

from zonal.cluster.runner import Threads
from zonal.config.workflows import load
from zonal.demo.town import Sample
from zonal.engine.run import run

DOCKERFILE = REPO / "deploy/Dockerfile"
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())
PODS = yaml.safe_load((REPO / "deploy/kubernetes/dask-operator/daskcluster.yaml").read_text())["spec"]
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}[platform.machine()]

# ------------------------------------------------------------------ what the Dockerfile says

Line = tuple[str, str]
"""An instruction and its words."""


def stages() -> dict[str, list[Line]]:
    """Read the Dockerfile: the lines of each stage by its name, the last one's by none."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found: dict[str, list[Line]] = {}
    name = "before the first"
    for line in filter(None, map(str.strip, text.splitlines())):
        instruction, words = line.split(maxsplit=1)
        if instruction == "FROM":
            name = words.partition(" AS ")[2]
        found.setdefault(name, []).append((instruction, words))
    return found


def lines(instruction: str, stage: str = "", architecture: str = ARCHITECTURE) -> list[str]:
    """Give the words of one instruction, in a stage and in those that it is built on."""
    (_, base), *rest = stages()[stage]
    base = base.split(" ")[0].replace("${TARGETARCH:-${ARCH:-amd64}}", architecture)
    below = lines(instruction, base, architecture) if base in stages() else []
    return [*below, *(words for kind, words in rest if kind == instruction)]


def environment(stage: str = "", architecture: str = ARCHITECTURE) -> dict[str, str]:
    pairs = [pair for words in lines("ENV", stage, architecture) for pair in shlex.split(words)]
    return dict(pair.split("=", 1) for pair in pairs)


def copied() -> set[str]:
    """Paths of the checkout that the Dockerfile copies."""
    found = [shlex.split(words) for words in lines("COPY", "build") + lines("COPY")]
    return {path for words in found if not words[0].startswith("--from") for path in words[:-1]}


def commands() -> list[str]:
    """Commands of the stage that builds."""
    return [command.strip() for words in lines("RUN", "build") for command in words.split("&&")]


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_runs_the_command_as_the_user_of_the_pods() -> None:
    assert [json.loads(words) for words in lines("ENTRYPOINT")] == [["zonal"]]
    (user,) = lines("USER")
    for pod in (PODS["scheduler"], PODS["worker"]):
        context = pod["spec"]["securityContext"]
        assert user == f"{context['runAsUser']}:{context['runAsGroup']}"


@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_loops_are_compiled_for_what_they_run_on_and_not_for_the_builder(architecture: str) -> None:
    built, used = environment("build", architecture), environment("", architecture)
    names = ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NUMBA_CACHE_DIR")
    assert [built[name] for name in names] == [used[name] for name in names]
    assert used["NUMBA_CPU_NAME"] == {"amd64": "x86-64-v3", "arm64": "generic"}[architecture]
    assert used["NUMBA_CPU_FEATURES"] == "", "else numba takes the host's"


# ------------------------------------------------------------------ what is installed


def locked(file: str) -> list[str]:
    return [line for line in (REPO / file).read_text().splitlines() if line]


def names(pins: Iterable[str]) -> set[str]:
    """Names of those pins that hold on this machine."""
    found = map(Requirement, pins)
    return {canonicalize_name(pin.name) for pin in found if not pin.marker or pin.marker.evaluate()}


def closure(wanted: Sequence[str]) -> set[str]:
    """Names of all that requirements need on this machine, by what is installed."""
    found: set[tuple[str, str]] = set()
    queue = [("", Requirement(text)) for text in wanted]
    while queue:
        extra, need = queue.pop()
        if need.marker and not need.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(need.name)
        for more in {"", *need.extras}:
            if (name, more) not in found:
                found.add((name, more))
                queue += [(more, Requirement(text)) for text in requires(name) or ()]
    return {name for name, _ in found}


def test_the_image_holds_what_a_run_on_kubernetes_needs_as_tested_and_nothing_else() -> None:
    pins = locked("deploy/requirements.lock")
    assert set(pins) <= set(locked("requirements.lock"))
    project = PROJECT["project"]
    needed = closure(project["dependencies"] + project["optional-dependencies"]["kubernetes"])
    assert names(pins) == needed
    assert not needed & {"pytest", "mypy", "moto", "playwright", "hatchling"}


def test_the_tools_that_build_the_wheel_are_taken_from_the_lock() -> None:
    (pattern,) = [shlex.split(command)[2] for command in commands() if command.startswith("grep -E ")]
    tools = [line for line in locked("requirements.lock") if re.search(pattern, line)]
    assert names(tools) == closure(PROJECT["build-system"]["requires"])


# ------------------------------------------------------------------ what the builder is sent


def let_through(path: str) -> bool:
    """Whether .dockerignore does: the last line that fits a path or a folder above it decides."""
    through = True
    place = PurePosixPath(path)
    for line in filter(lambda line: not line.startswith("#"), locked(".dockerignore")):
        pattern = re.escape(line.removeprefix("!")).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        if any(re.fullmatch(pattern, str(one)) for one in (place, *place.parents[:-1])):
            through = line.startswith("!")
    return through


def test_the_builder_is_sent_what_it_copies_and_nothing_else() -> None:
    # Of two folders it would take a minute to look at each file; see the last line.
    tops = [top for top in REPO.iterdir() if top.name not in {".git", ".venv"}]
    files = [path for top in tops for path in (top, *top.rglob("*")) if path.is_file()]
    paths = {str(path.relative_to(REPO)) for path in files}
    sources = {PurePosixPath(path) for path in copied()}
    meant = {path for path in paths if sources & {PurePosixPath(path), *PurePosixPath(path).parents}}
    assert all((REPO / source).exists() for source in sources)
    assert {path for path in paths if let_through(path)} == {p for p in meant if "__pycache__" not in p}
    out = ("tests/conftest.py", "docs/deploy.md", ".git/HEAD", ".venv/bin/python", "zonal/__pycache__/a.pyc")
    assert not any(map(let_through, out))


def test_all_that_goes_into_the_wheel_is_copied() -> None:
    project, wheel = PROJECT["project"], PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    parts = {*wheel["packages"], *wheel["force-include"], *project["license-files"], project["readme"]}
    assert parts | {"pyproject.toml"} <= copied()


# ------------------------------------------------------------------ as in a pod: a root that is read-only

mounting = pytest.mark.skipif(
    not may_mount(), reason="no user namespaces here: a small disk cannot be mounted"
)

READ_ONLY = """set -e
mount -t tmpfs none "$0"
if [ -d "$1" ]; then mount --bind "$1" "$1"; fi
while read -r _ _ _ _ place _; do
  case "$place" in /dev*|/proc*|/sys*|"$0"|"$1") ;; *) mount -o remount,bind,ro "$place" ;; esac
done < /proc/self/mountinfo
shift
exec "$@"
"""
"""Runs a command where all is read-only but an empty folder, in the place of /tmp, and an output."""

COUNTS = """[sum(
    sum(getattr(loop.stats, kind).values())
    for name in ("kernels", "rows", "scanline", "centres")
    for loop in vars(__import__("importlib").import_module("zonal.stats." + name)).values()
    if hasattr(loop, "stats")
) for kind in ("cache_hits", "cache_misses")]"""
"""Of all loops of a process: how many were loaded, and how many compiled."""

OTHER_CPU = """
import llvmlite.binding as llvm
found = llvm.get_host_cpu_features()
found[max(name for name, there in found.items() if there)] = False
llvm.get_host_cpu_name, llvm.get_host_cpu_features = lambda: "generic", lambda: found
"""

ONE_LOOP = """
import numpy as np
from zonal.stats.kernels import merge_extremes
rows = np.array([[1, 5], [3, 2]], "$kind")
low, high = rows[:1].copy(), rows[:1].copy()
merge_extremes(np.arange(2), np.zeros(2, np.int64), rows, rows, low, high)
assert (low.tolist(), high.tolist()) == ([[1, 2]], [[3, 5]])
"""

ALL_LOOPS = """
from zonal.stats.preload import preload
preload(every=True)
"""


def one_loop(kind: str) -> str:
    """Code that runs a loop over pixels of a type: the image holds it of int8, and not of float32."""
    return Template(ONE_LOOP).substitute(kind=kind)


def read_only(folder: Path, output: object = "none") -> list[str]:
    """Words that run a command with nothing but `folder` and an output to write to."""
    folder.mkdir(exist_ok=True)
    return ["unshare", "-rm", "sh", "-c", READ_ONLY, str(folder), str(output)]


def counts(folder: Path, code: str, **environment: str) -> list[int]:
    """Run code in a read-only process of its own, and count loops."""
    done = subprocess.run(
        [*read_only(folder), sys.executable, "-c", f"{code}\nprint({COUNTS})"],
        cwd=REPO,
        env=clean_environment(HOME=str(REPO), XDG_CACHE_HOME=str(REPO), **environment),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return list(json.loads(done.stdout))


@pytest.fixture(scope="module")
def warmed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Fill a folder as the Dockerfile does, beside the sources; give numba's part of the environment."""
    folder, source = tmp_path_factory.mktemp("numba-cache"), tmp_path_factory.mktemp("source")
    (source / "zonal").symlink_to(REPO / "zonal")
    ours = {name: value for name, value in environment().items() if name.startswith("NUMBA_")}
    ours["NUMBA_CACHE_DIR"] = str(folder)
    command = shlex.split(commands()[-1])
    command[0] = command[0].replace("/opt/zonal/bin/python", sys.executable)
    subprocess.run(command, cwd=source, env=clean_environment(**ours), check=True)
    assert list(folder.rglob("*.nbc"))
    return ours


@pytest.mark.slow
@mounting
def test_a_worker_of_a_read_only_pod_compiles_nothing_and_gives_the_same_table(
    warmed: dict[str, str], sample: Sample, tmp_path: Path
) -> None:
    shutil.copytree(sample.folder, tmp_path / "zonal-demo")
    out, tmp = tmp_path / "out", tmp_path / "tmp"
    out.mkdir()
    (pod,) = PODS["worker"]["spec"]["containers"]
    given = {"DASK_WORKER_NAME": "worker-1", "CPU_LIMIT": "2", "MEMORY_LIMIT": str(2**31)}
    given |= {value["name"]: value["value"] for value in pod["env"] if "value" in value}
    args = [Template(arg.replace("$(", "${").replace(")", "}")).substitute(given) for arg in pod["args"]]
    args = [arg.replace("/tmp", str(tmp)).replace("=:8788", f"={LOOPBACK}:0") for arg in args]
    image = {name: value.replace("/tmp", str(tmp)) for name, value in environment().items() if name != "PATH"}
    command = [*read_only(tmp, out), sys.executable, "-m", *pod["command"], *args, "--host", LOOPBACK]
    log = tmp_path / "worker.log"
    with dask_cluster(tmp_path / "cluster") as cluster:
        given |= {**image, **warmed, "DASK_SCHEDULER_ADDRESS": cluster.address}
        with process(*command, folder=REPO, log=log, **given), Client(cluster.address) as client:
            client.wait_for_workers(1, timeout=SECONDS)
            words = ("demo", "--cluster", cluster.address, "--output", out)
            with zonal_run(*words, folder=tmp_path) as driver:
                assert driver.ended() == 0, driver.said + log.read_text()
            ((hits, misses),) = client.run(eval, COUNTS, {}).values()
            assert hits > 0 and misses == 0, log.read_text()
            client.run(exec, one_loop("float32"), {})
            assert [*client.run(eval, COUNTS, {}).values()] == [[hits, 1]], "what is compiled is counted"
    paths = {"zones": str(sample.zones), "mirror": str(sample.mirror), "output": str(tmp_path / "local")}
    (local,) = run(load("demo", {**paths, "steps": "stats"}), runner=Threads(2))
    assert (out / "stats.parquet").read_bytes() == Path(local.table).read_bytes()


@pytest.mark.slow
@mounting
def test_a_loop_that_a_read_only_cache_lacks_is_compiled(warmed: dict[str, str], tmp_path: Path) -> None:
    assert counts(tmp_path / "a", one_loop("int8"), **warmed) == [1, 0]
    assert counts(tmp_path / "b", one_loop("float32"), **warmed) == [0, 1]
    empty = tmp_path / "empty"
    empty.mkdir()
    assert counts(tmp_path / "c", one_loop("int8"), **{**warmed, "NUMBA_CACHE_DIR": str(empty)}) == [0, 1]
    assert not list(empty.iterdir())


@mounting
def test_where_no_place_can_be_written_to_each_process_compiles_for_itself(tmp_path: Path) -> None:
    nowhere = "\nassert merge_extremes._cache.cache_path is None"
    assert counts(tmp_path / "tmp", one_loop("float32") + nowhere, NUMBA_CACHE_DIR="") == [0, 1]


@pytest.mark.slow
@mounting
def test_loops_of_the_image_are_found_on_another_node(warmed: dict[str, str], tmp_path: Path) -> None:
    hits, misses = counts(tmp_path / "a", OTHER_CPU + ALL_LOOPS, **warmed)
    assert hits > 0 and misses == 0
    place = {"NUMBA_CACHE_DIR": warmed["NUMBA_CACHE_DIR"]}
    assert counts(tmp_path / "b", OTHER_CPU + one_loop("int8"), **place) == [0, 1], "without its target"
