"""`zonal run --cluster kubernetes` against a double of the API, whose pods are processes of this machine."""

from __future__ import annotations

import re
import shutil
import signal
import ssl
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from kube_double import (
    DEPLOY,
    VALID,
    Call,
    Kube,
    Pod,
    Refused,
    allowed,
    driver_template,
    kube_api,
    running,
    unpullable,
    unschedulable,
)
from kubernetes import config
from processes import Driver, Family, process, wait_for, zonal_run
from seam import Seam, goes_on, is_right, some_written, workflow, written
from servers import LOOPBACK, FolderServer, http_server
from test_atomic import may_mount
from test_tls import Authority

from zonal.cluster.connection import place_of
from zonal.config.settings import Settings
from zonal.errors import ZonalError

pytestmark = pytest.mark.timeout(240)

LATENCY = 0.03
"""Seconds of each answer of the tiles' server: so that a run lasts."""

JOB = "zonal-29399040"
FULL = "0/3 nodes are available: 3 Insufficient memory."

HIDDEN = """
from importlib.machinery import PathFinder

find = PathFinder.find_spec
PathFinder.find_spec = classmethod(
    lambda cls, name, *more: None if name.partition(".")[0] == "kubernetes" else find(name, *more)
)
"""
"""A `sitecustomize` by which the client of Kubernetes is not installed."""

OLD = """
import importlib.metadata as metadata

version = metadata.version
metadata.version = lambda name: "0.0.9" if name == "zonal" else version(name)
"""
"""A `sitecustomize` by which zonal is another version."""


@contextmanager
def driver_of(
    kube: Kube,
    seam: Seam,
    folder: Path,
    *,
    job: str = JOB,
    mirror: object = None,
    environment: Mapping[str, str] = {},
    **settings: Any,
) -> Iterator[Driver]:
    """Start the driver of a Job."""
    folder.mkdir(parents=True, exist_ok=True)
    file = workflow(folder, mirror or seam.mirror, cluster="kubernetes", **settings)
    words = (file, "--output", folder / "out")
    with zonal_run(*words, folder=folder, **{**kube.driver(job), **environment}) as driver:
        yield driver


def site(folder: Path, text: str) -> str:
    """Return the PYTHONPATH of a process that runs this before anything else."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(text)
    return str(folder)


def template() -> dict[str, Any]:
    return dict(yaml.safe_load((DEPLOY / "daskcluster.yaml").read_text()))


# ------------------------------------------------------------------ a run in which nothing goes wrong


@dataclass(frozen=True)
class Whole:
    """A finished run, and what there was while it worked."""

    kube: Kube
    folder: Path
    mirror: str
    said: str
    posted: dict[str, Any]
    pods: list[Pod]
    health: dict[tuple[str, str], int]


@pytest.fixture(scope="module")
def whole(seam: Seam, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    folder = tmp_path_factory.mktemp("whole")
    with kube_api(folder / "kube") as kube, http_server(seam.mirror, latency=LATENCY) as server:
        two = {"workers": 2, "min_workers": 2}
        with driver_of(kube, seam, folder, mirror=server.url, **two) as driver:
            some_written(folder / "out", 1, driver)
            server.gate.clear()
            pods = kube.pods
            health = {
                (pod.role, kind): urllib.request.urlopen(address, timeout=10).status
                for pod in pods
                for kind, address in pod.probes().items()
            }
            server.gate.set()
            server.latency = 0
            assert driver.ended() == 0, driver.said
            assert not driver.family.alive()
        yield Whole(kube, folder, server.url, driver.said, kube.posted[0], pods, health)


def test_a_run_on_pods_makes_the_very_table_of_a_local_run_and_leaves_no_cluster(
    seam: Seam, whole: Whole
) -> None:
    assert is_right(seam, whole.folder / "out")
    assert not whole.kube.clusters
    name = f"DaskCluster {whole.kube.namespace}/{whole.posted['metadata']['name']}"
    assert f"{name} is asked for, with 2 workers\n" in whole.said
    assert "Dask workers: 2, threads: " in whole.said
    assert f"{name} is deleted\n" in whole.said
    assert "warning" not in whole.said


def test_the_cluster_is_owned_by_the_job_ends_when_idle_and_has_workers_of_a_fixed_number(
    whole: Whole,
) -> None:
    made = whole.posted
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": JOB, "uid": f"uid-of-{JOB}"}
    assert made["metadata"]["ownerReferences"] == [owner]
    assert made["metadata"]["namespace"] == whole.kube.namespace
    assert VALID.fullmatch(made["metadata"]["name"])
    selector = made["spec"]["scheduler"]["service"]["selector"]
    assert selector["dask.org/cluster-name"] == made["metadata"]["name"], "or it leads to any run's scheduler"
    assert 0 < made["spec"]["idleTimeout"] < 24 * 3600
    assert made["spec"]["worker"]["replicas"] == 2
    assert sorted(pod.role for pod in whole.pods) == ["scheduler", "worker", "worker"]


def test_every_container_of_the_cluster_has_the_image_of_the_driver(whole: Whole) -> None:
    image = driver_template()["spec"]["containers"][0]["image"]
    parts = [whole.posted["spec"][role]["spec"] for role in ("scheduler", "worker")]
    assert {container["image"] for part in parts for container in part["containers"]} == {image}


def test_each_probe_of_the_cluster_s_pods_is_answered_by_what_runs_in_them(whole: Whole) -> None:
    assert {role for role, _ in whole.health} == {"scheduler", "worker"}
    assert {*whole.health.values()} == {200}


def test_a_run_asks_of_the_api_what_its_role_allows_and_nothing_else(whole: Whole) -> None:
    asked = {(call.resource, call.verb) for call in whole.kube.calls}
    assert asked == {(resource, verb) for _, resource, verb in allowed()}
    assert sum(call.verb == "create" for call in whole.kube.calls) == 1


def test_where_nothing_is_to_do_no_cluster_is_made(seam: Seam, whole: Whole, tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(whole.folder / "out")
    with kube_api(tmp_path / "kube") as kube, driver_of(kube, seam, tmp_path, mirror=whole.mirror) as driver:
        assert driver.ended() == 0, driver.said
        assert "nothing to do: already complete" in driver.said
        assert not kube.calls


# ------------------------------------------------------------------ before work begins


@dataclass(frozen=True)
class Way:
    """A way to go wrong, and what is said of it.

    Parameters
    ----------
    code : int
    says : str
        A pattern of the sentence.
    arrange : callable
        Prepares the API.
    during : callable
        Does something while the driver runs.
    made : bool
        Whether a cluster was made.
    settings, environment : dict
    """

    code: int
    says: str
    arrange: Callable[[Kube], None] = lambda kube: None
    during: Callable[[Kube, Driver], None] = lambda kube, driver: None
    made: bool = True
    settings: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


def given(**values: Any) -> Callable[[Kube], None]:
    """Set these of an API."""
    return lambda kube: [setattr(kube, name, value) for name, value in values.items()] and None


def refusing(verb: str, code: int, reason: str, message: str) -> Callable[[Kube], None]:
    """Refuse a verb for ever."""

    def refuse(call: Call) -> None:
        if call.verb == verb:
            raise Refused(code, reason, message)

    return given(before=refuse)


def without_create(kube: Kube) -> None:
    kube.rules = {rule for rule in kube.rules if rule[-1] != "create"}


def silent(kube: Kube) -> None:
    kube.before = lambda call: kube.over.wait() and None


def undeletable(kube: Kube) -> None:
    refusing("delete", 500, "InternalError", "etcdserver: request timed out")(kube)
    kube.awake = False


def full(kube: Kube) -> None:
    """Have room for no pod."""
    kube.kubelet = lambda pod: unschedulable(FULL)


def deleting(kube: Kube) -> None:
    """Delete the cluster when its pods have been looked at."""
    full(kube)

    def delete(call: Call) -> None:
        if call.verb == "list" and kube.pods:
            kube.delete(next(iter(kube.clusters)))

    kube.after = delete


def one_worker(kube: Kube) -> None:
    """Have room for one worker only."""

    def kubelet(pod: Pod) -> dict[str, Any] | None:
        if pod.role == "scheduler":
            return None
        others = kube.clusters[pod.labels["dask.org/cluster-name"]].pods[1:]
        return unschedulable(FULL) if others else None

    kube.kubelet = kubelet


def old_worker(kube: Kube) -> None:
    kube.environment = {"worker": {"PYTHONPATH": site(kube.folder / "old", OLD)}}


def slowly(verb: str, *, first: bool) -> Callable[[Kube], None]:
    """Let the answer to a verb take its time, before or after it has its effect."""

    def arrange(kube: Kube) -> None:
        kube.awake = False
        setattr(kube, "before" if first else "after", lambda call: call.verb == verb and kube.over.wait(2))

    return arrange


def signalled(number: int, *verbs: str) -> Callable[[Kube, Driver], None]:
    """Send a signal as soon as each of these was asked."""

    def send(kube: Kube, driver: Driver) -> None:
        for verb in verbs:
            wait_for(lambda verb=verb: any(call.verb == verb for call in kube.calls), f"no {verb}")
            driver.send(number)

    return send


def altered(role: str, **values: Any) -> dict[str, Any]:
    """Return a workflow's template with this in the first container of a role."""
    made = template()
    made["spec"][role]["spec"]["containers"][0] |= values
    return {"cluster_template": made}


LEAN = altered("worker", args=["--name=$(DASK_WORKER_NAME)", "--nthreads=2", "--no-nanny"])
"""A template without what takes time to start."""

NAME = r"DaskCluster \S+/zonal-\w+"
QUOTA = 'pods "x" is forbidden: exceeded quota: team, requested: cpu=8, used: cpu=60, limited: cpu=64'
ASLEEP = "the Dask operator has not taken it up; does it run"
IMPATIENT = {"patience": 3}
AGAIN = "; the same command goes on where it stopped"

REFUSED = {
    "no DaskCluster": Way(
        3,
        "the Kubernetes API knows no DaskCluster; install the operator: https://",
        given(installed=False),
    ),
    "forbidden": Way(
        3, 'the Kubernetes API refuses: .*cannot create resource "daskclusters"', without_create
    ),
    "a quota": Way(
        3,
        f"the Kubernetes API refuses: {re.escape(QUOTA)}",
        refusing("create", 403, "Forbidden", QUOTA),
    ),
    "an unknown token": Way(3, "the Kubernetes API refuses: Unauthorized", given(expected="another")),
    "a misspelt field": Way(
        3,
        'the Kubernetes API refuses: .*unknown field "spec.scheduler.spec.containers.0.comand"',
        settings=altered("scheduler", comand=["dask", "scheduler"]),
    ),
    "a wrong value": Way(
        3,
        "the Kubernetes API refuses: .* is invalid: spec.worker.spec.containers.0.command",
        settings=altered("worker", command="dask worker"),
    ),
    "another image": Way(
        3,
        r"cluster template: the image of the worker is example\.org/zonal:2, the driver's is \S+; leave it",
        settings=altered("worker", image="example.org/zonal:2"),
    ),
    "no pod whose image it could take": Way(
        3, "cluster template: no image for the scheduler", environment={"ZONAL_POD": ""}
    ),
    "no API": Way(
        3,
        "cluster kubernetes: no API is configured .*set KUBECONFIG",
        environment={"KUBECONFIG": "/nowhere/kubeconfig"},
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_cluster_that_is_refused_is_one_sentence_at_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = REFUSED[name]
    with kube_api(tmp_path / "kube") as kube:
        way.arrange(kube)
        environment = kube.driver(JOB) | way.environment
        for variable, value in environment.items():
            monkeypatch.setenv(variable, value)
        for module in (config, config.kube_config):  # they have read the environment already
            monkeypatch.setattr(module, "KUBE_CONFIG_DEFAULT_LOCATION", environment["KUBECONFIG"])
        wanted = Settings(state="WA", year=2024, cluster="kubernetes", **way.settings)
        began = time.monotonic()
        with pytest.raises(ZonalError, match=way.says) as caught, place_of(wanted) as runner:
            assert not runner.threads
        assert time.monotonic() - began < 10, "a refusal is no reason to wait"
        assert caught.value.exit_code == way.code
        assert "\n" not in str(caught.value)
        assert not kube.posted


ENDED = {
    # Those that take longest come first.
    "too few workers": Way(
        4,
        rf"{NAME} has 1 of 2 workers after 40 s: pod \S+-worker-\S+: Unschedulable: {re.escape(FULL)}",
        one_worker,
        settings={"patience": 40, "workers": 2, "min_workers": 2, **LEAN},
    ),
    "the API answers nothing": Way(4, "the Kubernetes API does not answer: ", silent, made=False),
    "the API is not there": Way(
        4,
        "the Kubernetes API does not answer: .*refused",
        lambda kube: setattr(kube, "url", f"http://{LOOPBACK}:1"),
        made=False,
    ),
    "the API is ill": Way(
        4,
        "the Kubernetes API does not answer: etcd is down",
        refusing("create", 503, "ServiceUnavailable", "etcd is down"),
        made=False,
    ),
    "it cannot be deleted": Way(
        4, f"{NAME} has no scheduler after 3 s: {ASLEEP}", undeletable, settings=IMPATIENT
    ),
    "an operator that sleeps": Way(
        4, f"{NAME} has no scheduler after 3 s: {ASLEEP}", given(awake=False), settings=IMPATIENT
    ),
    "no room": Way(
        4,
        rf"{NAME} has no scheduler.* after 3 s: pod \S+-scheduler-\S+: Unschedulable: {re.escape(FULL)}",
        full,
        settings=IMPATIENT,
    ),
    "no image to pull": Way(
        4,
        rf'{NAME} has no scheduler.* after 3 s: pod \S+: ImagePullBackOff: Back-off pulling image "\S+"',
        given(kubelet=lambda pod: unpullable(pod.container["image"])),
        settings=IMPATIENT,
    ),
    "a scheduler that crashes": Way(
        4,
        rf"{NAME} has no scheduler.* after 3 s: pod \S+-scheduler-\S+: .*exit code 1",
        settings=IMPATIENT | altered("scheduler", command=["false"], args=[]),
    ),
    "a scheduler that does not answer": Way(
        4,
        f"{NAME} has no scheduler that answers after 3 s",
        given(kubelet=lambda pod: running()),
        settings=IMPATIENT,
    ),
    "deleted by somebody": Way(
        4, f"{NAME} was deleted by somebody, or by its idleTimeout", deleting, settings={"patience": 20}
    ),
    "a worker of another version": Way(
        3,
        r"worker tcp://\S+ of the cluster at tcp://\S+ has zonal 0.0.9, this process zonal ",
        old_worker,
        settings={"workers": 1, **LEAN},
    ),
    "SIGTERM while it waits": Way(143, f"terminated{AGAIN}", full, signalled(signal.SIGTERM, "list")),
    "SIGINT while it waits": Way(130, f"interrupted{AGAIN}", full, signalled(signal.SIGINT, "list")),
    "SIGTERM before the cluster is there": Way(
        143, f"terminated{AGAIN}", slowly("create", first=True), signalled(signal.SIGTERM, "create")
    ),
    "SIGTERM before it is known that the cluster is there": Way(
        143, f"terminated{AGAIN}", slowly("create", first=False), signalled(signal.SIGTERM, "create")
    ),
    "SIGTERM, and again while the cluster is deleted": Way(
        143,
        f"terminated{AGAIN}",
        slowly("delete", first=True),
        signalled(signal.SIGTERM, "create", "delete"),
    ),
}


@dataclass(frozen=True)
class Ending:
    """How a driver ended."""

    code: int
    sentence: str
    said: str
    made: int
    left: list[str]
    parts: set[str]


@pytest.fixture(scope="module")
def endings(seam: Seam, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Future[Ending]]:
    """Run the command and go wrong; in several ways at a time, since most of it is waiting."""
    root = tmp_path_factory.mktemp("ways")

    def end(number: int, way: Way) -> Ending:
        folder = root / str(number)
        with kube_api(folder / "kube") as kube, ExitStack() as stack:
            way.arrange(kube)
            driver = stack.enter_context(driver_of(kube, seam, folder, **way.settings))
            way.during(kube, driver)
            code = driver.ended()
            wait_for(lambda: not driver.family.alive(), f"left behind: {driver.family.alive()}", 10)
            made, left, parts = len(kube.posted), [*kube.clusters], written(folder / "out")
            return Ending(code, driver.sentence, driver.said, made, left, parts)

    with ThreadPoolExecutor(6) as pool:
        return {name: pool.submit(end, number, way) for number, (name, way) in enumerate(ENDED.items())}


@pytest.mark.parametrize("name", ENDED)
def test_a_run_that_ends_before_its_work_began_says_why_and_leaves_no_cluster(
    endings: dict[str, Future[Ending]], name: str
) -> None:
    way, ending = ENDED[name], endings[name].result()
    assert re.match(way.says, ending.sentence), ending.said
    assert ending.code == way.code
    assert ending.made == way.made
    assert not ending.parts
    if name == "it cannot be deleted":
        (left,) = ending.left
        warning = (
            rf"warning: {NAME} could not be deleted \(.*etcdserver: request timed out\); its idleTimeout"
        )
        assert re.search(warning, ending.said) and left in ending.said
        assert f"{left} is deleted" not in ending.said
    else:
        assert not ending.left


def test_without_the_client_of_kubernetes_it_is_said_how_to_install_it(seam: Seam, tmp_path: Path) -> None:
    hidden = {"PYTHONPATH": site(tmp_path / "hidden", HIDDEN)}
    with (
        kube_api(tmp_path / "kube") as kube,
        driver_of(kube, seam, tmp_path, environment=hidden) as driver,
    ):
        assert driver.ended() == 2
        assert driver.sentence.endswith("is not installed; pip install 'zonal[kubernetes]'")
        assert not kube.calls
        assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------ while it works


@pytest.fixture
def tiles(seam: Seam) -> Iterator[FolderServer]:
    """Serve the mirror, slowly."""
    with http_server(seam.mirror, latency=LATENCY) as server:
        yield server


@contextmanager
def working(kube: Kube, seam: Seam, folder: Path, tiles: FolderServer) -> Iterator[Driver]:
    """Start a run that has written some parts more, and waits for a tile; at its end, tiles come quickly."""
    before = len(written(folder / "out"))
    with driver_of(kube, seam, folder, mirror=tiles.url, workers=1, **LEAN) as driver:
        some_written(folder / "out", before + 2, driver)
        tiles.gate.clear()
        assert not driver.over
        yield driver
        wait_for(lambda: not driver.family.alive(), f"left behind: {driver.family.alive()}", 10)
    tiles.gate.set()


def test_sigterm_while_it_works_deletes_the_cluster_and_keeps_what_is_done(
    seam: Seam, tiles: FolderServer, tmp_path: Path
) -> None:
    with kube_api(tmp_path / "kube") as kube, working(kube, seam, tmp_path, tiles) as driver:
        before = written(tmp_path / "out")
        pods = [Family.of(pod.process.pid) for pod in kube.pods if pod.process]
        driver.send(signal.SIGTERM)
        assert driver.ended(30) == 143, driver.said
        assert driver.sentence == f"terminated{AGAIN}"
        assert not kube.clusters
        assert not any(pod.alive() for pod in pods)
    assert before <= written(tmp_path / "out")
    tiles.latency = 0
    assert goes_on(seam, tiles.url, tmp_path / "out")


def test_a_cluster_that_is_deleted_while_it_works_is_named_and_the_run_goes_on_from_there(
    seam: Seam, tiles: FolderServer, tmp_path: Path
) -> None:
    with kube_api(tmp_path / "kube") as kube, working(kube, seam, tmp_path, tiles) as driver:
        (name,) = kube.clusters
        kube.delete(name)
        assert driver.ended(60) == 4, driver.said
        assert driver.sentence.endswith("finished parts are kept: the same command goes on where it stopped")
        assert f"DaskCluster {kube.namespace}/{name} was deleted by somebody, or by its idle" in driver.said
    tiles.latency = 0
    assert goes_on(seam, tiles.url, tmp_path / "out")


def test_a_killed_driver_leaves_its_cluster_to_its_job_whose_next_pod_goes_on_until_it_is_interrupted(
    seam: Seam, tiles: FolderServer, tmp_path: Path
) -> None:
    with kube_api(tmp_path / "kube") as kube:
        with working(kube, seam, tmp_path, tiles) as driver:
            driver.kill()
            driver.ended()
            (left,) = kube.clusters
            assert kube.posted[0]["spec"]["idleTimeout"], "without it, only the Job's end would end it"
        with working(kube, seam, tmp_path, tiles) as driver:
            kept = re.search(rf"(\d+) of {seam.parts} parts are there already", driver.said)
            assert kept and int(kept[1]) >= 2
            driver.send(signal.SIGINT)
            assert driver.ended(30) == 130, driver.said
            assert driver.sentence == f"interrupted{AGAIN}"
        assert [*kube.clusters] == [left], "each deletes its own"
        kube.collect(f"uid-of-{JOB}")
        assert not kube.clusters
    tiles.latency = 0
    assert goes_on(seam, tiles.url, tmp_path / "out")


def test_two_runs_at_once_have_a_cluster_each_and_bear_an_api_that_is_ill_now_and_then(
    seam: Seam, tmp_path: Path
) -> None:
    ill = {
        ("get", "pods"): {0: 503},
        ("create", "daskclusters"): {0: 500, 1: 0},
        ("get", "daskclusters"): {1: 429, 2: 0},
        ("get", "services"): {1: 500},
        ("delete", "daskclusters"): {0: 500, 1: 503},
    }
    lost = ("create", "daskclusters", "", 2)

    def fail(call: Call) -> None:
        code = ill.get(call[:2], {}).get(call.number)
        if code == 0:
            raise ConnectionResetError("the API hangs up without an answer")
        if code:
            raise Refused(code, "ServerTimeout", "try again")

    def lose(call: Call) -> None:
        if call == lost:
            raise ConnectionResetError("a cluster is there, and the answer is lost")

    jobs = ("one", "two")
    with kube_api(tmp_path / "kube") as kube, ExitStack() as stack:
        kube.before, kube.after = fail, lose
        one_worker(kube)
        drivers = [
            stack.enter_context(driver_of(kube, seam, tmp_path / job, job=job, workers=2, **LEAN))
            for job in jobs
        ]
        wait_for(lambda: len(kube.clusters) == 2, "there were never two")
        for driver in drivers:
            assert driver.ended() == 0, driver.said
            assert "Dask workers: 1, threads: " in driver.said, "as many as there is room for are enough"
        assert not kube.clusters
        owners = [made["metadata"]["ownerReferences"][0]["name"] for made in kube.posted]
        assert sorted(owners) == ["one", "two"], "a lost answer makes no second cluster"
        assert any("already exists" in refusal for refusal in kube.refusals)
        asked = Counter(call[:2] for call in kube.calls)
        assert all(asked[verb] > max(faults) for verb, faults in ill.items()), "each fault came"
    assert all(is_right(seam, tmp_path / job / "out") for job in jobs)


# ------------------------------------------------------------------ inside of a pod

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
MOUNTED = f'mount -t tmpfs none /var/run && mkdir -p {ACCOUNT} && cp "$GIVEN"/* {ACCOUNT} && exec "$@"'


@pytest.mark.skipif(not may_mount(), reason="no user namespaces here: no service account can be mounted")
def test_inside_of_a_pod_its_service_account_is_enough(seam: Seam, tmp_path: Path) -> None:
    known = Authority.make(tmp_path / "known")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(known.cert, known.key)
    account = tmp_path / "account"
    account.mkdir()
    shutil.copy(known.ca, account / "ca.crt")
    with kube_api(tmp_path / "kube", context, awake=False) as kube:
        (account / "token").write_text(kube.token)
        (account / "namespace").write_text(kube.namespace)
        host, port = kube.url.removeprefix("http://").split(":")
        environment = kube.driver(JOB) | {
            "KUBECONFIG": "",
            "HOME": str(tmp_path),
            "KUBERNETES_SERVICE_HOST": host,
            "KUBERNETES_SERVICE_PORT": port,
            "GIVEN": str(account),
        }
        del environment["ZONAL_NAMESPACE"]
        words = [Path(sys.executable).with_name("zonal"), "run", workflow(tmp_path, seam.mirror)]
        words += ["--output", tmp_path / "out", "--cluster", "kubernetes", "--patience", 3]
        log = tmp_path / "run.log"
        unshare = ("unshare", "-rm", "sh", "-c", MOUNTED, "sh")
        with process(*unshare, *words, folder=tmp_path, log=log, **environment) as driver:
            wait_for(lambda: driver.poll() is not None, "it never ended")
        assert ASLEEP in log.read_text().splitlines()[-1], log.read_text()
        assert driver.returncode == 4
        assert len(kube.posted) == 1 and not kube.clusters
