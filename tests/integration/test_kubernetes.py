"""`--cluster kubernetes` against a double of the API.

What a driver asks, waits for and leaves behind is tested in this process, by a clock that passes waits at
once and counts them. A few whole runs, whose pods are processes of this machine, are marked slow.
"""

from __future__ import annotations

import logging
import re
import shutil
import signal
import ssl
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from distributed import LocalCluster
from kube_double import (
    DEPLOY,
    VALID,
    Call,
    Kube,
    Pod,
    Refused,
    allowed,
    crashing,
    driver_template,
    kube_api,
    unpullable,
    unschedulable,
)
from kubernetes import config
from kubernetes.config import incluster_config
from processes import Driver, Family, process, wait_for, zonal_run
from seam import Seam, goes_on, is_right, settings, some_written, workflow, written
from servers import LOOPBACK, FolderServer, http_server
from test_atomic import may_mount
from test_tls import Authority

from zonal.cli.ending import Stopped, stop
from zonal.cluster import connection, kubeapi, pods
from zonal.cluster.connection import on_kubernetes
from zonal.cluster.kubeapi import Clock
from zonal.cluster.runner import Runner
from zonal.config.settings import Settings
from zonal.errors import InputError, StoreError, UsageError, ZonalError
from zonal.events import Event, Notify, quiet
from zonal.steps import run

pytestmark = pytest.mark.timeout(240)

JOB = "zonal-29399040"
FULL = "0/3 nodes are available: 3 Insufficient memory."
NAME = r"DaskCluster \S+/zonal-\w+"
QUOTA = 'pods "x" is forbidden: exceeded quota: team, requested: cpu=8, used: cpu=60, limited: cpu=64'
ASLEEP = "the Dask operator has not taken it up; does it run"


@dataclass
class FakeClock:
    """Passes waits at once, and counts them.

    Parameters
    ----------
    during : callable
        Called in each wait, with how many there were before.
    """

    during: Callable[[int], object] = lambda number: None
    seconds: float = 0.0
    waits: int = 0

    def sleep(self, seconds: float) -> None:
        self.during(self.waits)
        self.waits += 1
        self.seconds += seconds

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.seconds, self.sleep)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def kube(tmp_path: Path) -> Iterator[Kube]:
    with kube_api(tmp_path / "kube") as kube:
        yield kube


@contextmanager
def two_workers() -> Iterator[LocalCluster]:
    """Start a scheduler and two workers of one thread, in this process."""
    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=False,
        protocol="tcp://",
        host=LOOPBACK,
        dashboard_address=f"{LOOPBACK}:0",
        silence_logs=logging.CRITICAL,
    ) as cluster:
        cluster.wait_for_workers(2)
        yield cluster


@pytest.fixture(scope="module")
def dask() -> Iterator[LocalCluster]:
    with two_workers() as cluster:
        yield cluster


def as_driver(kube: Kube, monkeypatch: pytest.MonkeyPatch, job: str = JOB, **environment: str) -> None:
    """Let this process be the driver of a Job."""
    for name, value in {**kube.driver(job), **environment}.items():
        monkeypatch.setenv(name, value)
    # They have read the environment already.
    file = environment.get("KUBECONFIG", str(kube.folder / "kubeconfig"))
    for module in (config, config.kube_config):
        monkeypatch.setattr(module, "KUBE_CONFIG_DEFAULT_LOCATION", file)
    # On a busy machine even loopback is slow, and calls are counted.
    monkeypatch.setattr(kubeapi, "ANSWER_SECONDS", 60)
    monkeypatch.setattr(connection, "LISTENING", 60)


def on_pods(clock: FakeClock, notify: Notify = quiet, **given: Any) -> AbstractContextManager[Runner]:
    """Have pods, by a clock of a test."""
    wanted = Settings(state="WA", year=2024, cluster="kubernetes", **given)
    return on_kubernetes(wanted, pods.load_template(wanted.cluster_template), notify, clock.clock)


def template() -> dict[str, Any]:
    return dict(yaml.safe_load((DEPLOY / "daskcluster.yaml").read_text()))


def altered(role: str, **values: Any) -> dict[str, Any]:
    """Return a workflow's template with this in the first container of a role."""
    body = template()
    body["spec"][role]["spec"]["containers"][0] |= values
    return {"cluster_template": body}


# ------------------------------------------------------------------ a run in which nothing goes wrong


@dataclass(frozen=True)
class Whole:
    """A finished run: what it asked for, told and made."""

    kube: Kube
    posted: dict[str, Any]
    messages: list[str]
    output: Path


@pytest.fixture(scope="module")
def whole(seam: Seam, dask: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    folder = tmp_path_factory.mktemp("whole")
    output = folder / "out"
    events: list[Event] = []
    two = {"workers": 2, "min_workers": 2}
    with kube_api(folder / "kube", scheduler=dask.scheduler_address) as kube:
        with pytest.MonkeyPatch.context() as monkeypatch:
            as_driver(kube, monkeypatch)
            run(
                settings(seam.mirror, output, cluster="kubernetes", steps="stats", **two),
                notify=events.append,
            )
        assert "warning" not in {event.kind for event in events}
        yield Whole(kube, kube.posted[0], [event.message for event in events], output)


def test_a_run_on_pods_makes_the_very_table_of_a_local_run_and_leaves_no_cluster(
    seam: Seam, whole: Whole
) -> None:
    assert is_right(seam, whole.output)
    assert not whole.kube.clusters
    name = f"DaskCluster {whole.kube.namespace}/{whole.posted['metadata']['name']}"
    assert f"{name} is asked for, with 2 workers" in whole.messages
    assert any(message.startswith("Dask workers: 2, threads: 2, ") for message in whole.messages)
    assert f"{name} is deleted" in whole.messages


def test_the_cluster_is_owned_by_the_job_ends_when_idle_and_has_workers_of_a_fixed_number(
    whole: Whole,
) -> None:
    body = whole.posted
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": JOB, "uid": f"uid-of-{JOB}"}
    assert body["metadata"]["ownerReferences"] == [owner]
    assert body["metadata"]["namespace"] == whole.kube.namespace
    assert VALID.fullmatch(body["metadata"]["name"])
    selector = body["spec"]["scheduler"]["service"]["selector"]
    assert selector["dask.org/cluster-name"] == body["metadata"]["name"], "or it leads to any run's scheduler"
    assert 0 < body["spec"]["idleTimeout"] < 24 * 3600
    assert body["spec"]["worker"]["replicas"] == 2


def test_every_container_of_the_cluster_has_the_image_of_the_driver(whole: Whole) -> None:
    image = driver_template()["spec"]["containers"][0]["image"]
    parts = [whole.posted["spec"][role]["spec"] for role in ("scheduler", "worker")]
    assert {container["image"] for part in parts for container in part["containers"]} == {image}


def test_where_nothing_is_to_do_no_cluster_is_made(
    seam: Seam, whole: Whole, kube: Kube, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_driver(kube, monkeypatch)
    (result,) = run(settings(seam.mirror, whole.output, cluster="kubernetes", steps="stats"))
    assert not result.fresh
    assert not kube.calls


def test_a_driver_asks_of_the_api_what_its_role_allows_and_nothing_else(
    kube: Kube, dask: LocalCluster, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for an operator that takes its time, and looks meanwhile at what keeps pods from running."""
    kube.awake, kube.scheduler = False, dask.scheduler_address
    as_driver(kube, monkeypatch)

    def during(number: int) -> None:
        (cluster,) = kube.clusters.values()
        if number == 2:
            cluster.body["status"] = {"phase": "Created"}
        if number == 4:
            kube.operate(cluster)

    clock.during = during
    with on_pods(clock) as runner:
        assert runner.threads == 2
    assert clock.waits == 5
    asked = Counter((call.resource, call.verb) for call in kube.calls)
    assert {*asked} == {(resource, verb) for _, resource, verb in allowed()}
    assert asked["daskclusters", "create"] == asked["daskclusters", "delete"] == 1


# ------------------------------------------------------------------ before work begins


@dataclass(frozen=True)
class Way:
    """A way to go wrong, and what is said of it.

    Parameters
    ----------
    error : type
    says : str
        A pattern of the sentence.
    arrange : callable
        Prepares the API.
    waits : int
        How often the driver waits before it gives up.
    settings, environment : dict
    """

    error: type[ZonalError]
    says: str
    arrange: Callable[[Kube], object] = lambda kube: None
    waits: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


def given(**values: Any) -> Callable[[Kube], object]:
    """Set these of an API."""
    return lambda kube: [setattr(kube, name, value) for name, value in values.items()]


def refusing(verb: str, code: int, reason: str, message: str) -> Callable[[Kube], object]:
    """Refuse a verb for ever."""

    def refuse(call: Call) -> None:
        if call.verb == verb:
            raise Refused(code, reason, message)

    return given(before=refuse)


def without_create(kube: Kube) -> None:
    kube.rules = {rule for rule in kube.rules if rule[-1] != "create"}


def failing(kube: Kube) -> None:
    """Have an operator that refuses the cluster."""
    kube.awake = False

    def fail(call: Call) -> None:
        if call.verb == "create":
            for cluster in kube.clusters.values():
                cluster.body["status"] = {"phase": "Error"}

    kube.after = fail


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


def two_fit(kube: Kube) -> None:
    """Have room for a scheduler and two workers only."""

    def kubelet(pod: Pod) -> dict[str, Any] | None:
        return unschedulable(FULL) if len(kube.pods) > 2 else None

    kube.kubelet = kubelet


REFUSED = {
    "no DaskCluster": Way(
        InputError,
        "the Kubernetes API knows no DaskCluster; install the operator: https://",
        given(installed=False),
    ),
    "forbidden": Way(
        InputError, 'the Kubernetes API refuses: .*cannot create resource "daskclusters"', without_create
    ),
    "a quota": Way(
        InputError,
        f"the Kubernetes API refuses: {re.escape(QUOTA)}",
        refusing("create", 403, "Forbidden", QUOTA),
    ),
    "an unknown token": Way(
        InputError, "the Kubernetes API refuses: Unauthorized", given(expected="another")
    ),
    "a misspelt field": Way(
        InputError,
        'the Kubernetes API refuses: .*unknown field "spec.scheduler.spec.containers.0.comand"',
        settings=altered("scheduler", comand=["dask", "scheduler"]),
    ),
    "a wrong value": Way(
        InputError,
        "the Kubernetes API refuses: .* is invalid: spec.worker.spec.containers.0.command",
        settings=altered("worker", command="dask worker"),
    ),
    "another image": Way(
        InputError,
        r"cluster template: the image of the worker is example\.org/zonal:2, the driver's is \S+; leave it",
        settings=altered("worker", image="example.org/zonal:2"),
    ),
    "no pod whose image it could take": Way(
        InputError, "cluster template: no image for the scheduler", environment={"ZONAL_POD": ""}
    ),
    "fewer workers than are waited for": Way(
        InputError,
        r"cluster template: \d workers, and 99 are to be waited for",
        settings={"min_workers": 99},
    ),
    "no API": Way(
        InputError,
        "cluster kubernetes: no API is configured .*set KUBECONFIG",
        environment={"KUBECONFIG": "/nowhere/kubeconfig"},
    ),
    "the API is not there": Way(
        StoreError,
        "the Kubernetes API does not answer: .*refused",
        lambda kube: setattr(kube, "url", f"http://{LOOPBACK}:1"),
        3,
    ),
    "the API is ill": Way(
        StoreError,
        "the Kubernetes API does not answer: etcd is down",
        refusing("get", 503, "ServiceUnavailable", "etcd is down"),
        3,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_cluster_that_is_refused_is_one_sentence_at_once_and_one_that_is_not_heard_soon(
    name: str, kube: Kube, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = REFUSED[name]
    way.arrange(kube)
    as_driver(kube, monkeypatch, **way.environment)
    monkeypatch.setattr(kubeapi, "RETRY_SECONDS", 2)
    with pytest.raises(way.error, match=way.says) as caught, on_pods(clock, **way.settings) as runner:
        assert not runner.threads
    assert clock.waits == way.waits
    assert "\n" not in str(caught.value)
    assert not kube.posted


def test_an_api_that_answers_nothing_is_not_waited_for_without_end(
    kube: Kube, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    kube.before = lambda call: kube.over.wait() and None
    as_driver(kube, monkeypatch)
    monkeypatch.setattr(kubeapi, "ANSWER_SECONDS", 0.1)
    monkeypatch.setattr(kubeapi, "RETRY_SECONDS", 2)
    with pytest.raises(StoreError, match="the Kubernetes API does not answer: "), on_pods(clock) as runner:
        assert not runner.threads
    assert clock.waits == 3
    assert not kube.posted


PATIENCE = {"patience": 3}
AFTER = "after 3 s: pod"

ENDED = {
    "an operator that refuses it": Way(InputError, f"the Dask operator refuses {NAME}", failing),
    "an operator that sleeps": Way(
        StoreError, f"{NAME} has no scheduler after 3 s: {ASLEEP}", given(awake=False), 4, PATIENCE
    ),
    "no room": Way(
        StoreError,
        rf"{NAME} has no scheduler.* {AFTER} \S+-scheduler-\S+: Unschedulable: {re.escape(FULL)}",
        full,
        4,
        PATIENCE,
    ),
    "no image to pull": Way(
        StoreError,
        rf'{NAME} has no scheduler.* {AFTER} \S+: ImagePullBackOff: Back-off pulling image "\S+"',
        given(kubelet=lambda pod: unpullable(pod.container["image"])),
        4,
        PATIENCE,
    ),
    "a scheduler that crashes": Way(
        StoreError,
        rf"{NAME} has no scheduler.* {AFTER} \S+-scheduler-\S+: .*exit code 1",
        given(kubelet=lambda pod: crashing(1)),
        4,
        PATIENCE,
    ),
    "a scheduler that does not answer": Way(
        StoreError, f"{NAME} has no scheduler that answers after 3 s", waits=4, settings=PATIENCE
    ),
    "deleted by somebody": Way(
        StoreError, f"{NAME} was deleted by somebody, or by its idleTimeout", deleting, 1
    ),
}


@pytest.mark.parametrize("name", ENDED)
def test_a_cluster_that_does_not_come_up_says_why_and_is_deleted(
    name: str, kube: Kube, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = ENDED[name]
    way.arrange(kube)
    as_driver(kube, monkeypatch)
    with pytest.raises(way.error, match=way.says) as caught, on_pods(clock, **way.settings) as runner:
        assert not runner.threads
    assert clock.waits == way.waits
    assert "\n" not in str(caught.value)
    assert len(kube.posted) == 1 and not kube.clusters


def test_too_few_workers_are_waited_for_until_the_patience_is_over(
    kube: Kube, dask: LocalCluster, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_fit(kube)
    kube.scheduler = dask.scheduler_address
    as_driver(kube, monkeypatch)
    because = rf"pod \S+-worker-\S+: Unschedulable: {re.escape(FULL)}"
    three = {"workers": 3, "min_workers": 3, "patience": 5}
    with (
        pytest.raises(StoreError, match=f"{NAME} has 2 of 3 workers after 5 s: {because}"),
        on_pods(clock, **three) as runner,
    ):
        assert not runner.threads
    assert clock.waits == 6
    assert not kube.clusters


def test_as_many_workers_as_are_to_be_waited_for_are_enough(
    kube: Kube, dask: LocalCluster, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_fit(kube)
    kube.scheduler = dask.scheduler_address
    as_driver(kube, monkeypatch)
    with on_pods(clock, workers=3, min_workers=2) as runner:
        assert runner.described.startswith("Dask workers: 2, threads: 2, ")
    assert clock.waits == 0


def test_what_keeps_pods_from_running_is_told_once_and_what_passes_is_not(
    kube: Kube, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    kube.kubelet = lambda pod: unpullable("zonal:1")
    as_driver(kube, monkeypatch)

    def fill(number: int) -> None:
        if number == 5:
            for pod in kube.pods:
                pod.status = unschedulable(FULL)

    clock.during = fill
    events: list[Event] = []
    with (
        pytest.raises(StoreError, match="Unschedulable"),
        on_pods(clock, events.append, workers=2, patience=20) as runner,
    ):
        assert not runner.threads
    messages = [event.message for event in events]
    assert not any("ImagePullBackOff" in message for message in messages)
    troubles = [message for message in messages if "Unschedulable" in message]
    assert len(troubles) == len({*troubles}) == 3, "the scheduler and two workers, once each"


def test_workers_of_another_version_are_refused_before_any_work(
    kube: Kube, dask: LocalCluster, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    kube.scheduler = dask.scheduler_address
    as_driver(kube, monkeypatch)

    def elsewhere(name: str) -> str:
        """Answer as another installation would, wherever it is not the driver that asks."""
        here = threading.current_thread() is threading.main_thread()
        return version(name) if here or name != "zonal" else "0.0.9"

    monkeypatch.setattr(connection, "version", elsewhere)
    says = r"the scheduler of the cluster at tcp://\S+ has zonal 0.0.9, this process zonal "
    with pytest.raises(InputError, match=says), on_pods(clock) as runner:
        assert not runner.threads
    assert len(kube.posted) == 1 and not kube.clusters


def test_a_cluster_that_cannot_be_deleted_is_named_and_what_ends_it(
    kube: Kube, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing("delete", 500, "InternalError", "etcdserver: request timed out")(kube)
    kube.awake = False
    as_driver(kube, monkeypatch)
    monkeypatch.setattr(kubeapi, "RETRY_SECONDS", 2)
    events: list[Event] = []
    with (
        pytest.raises(StoreError, match=f"{NAME} has no scheduler after 3 s: {ASLEEP}"),
        on_pods(clock, events.append, **PATIENCE) as runner,
    ):
        assert not runner.threads
    (left,) = kube.clusters
    (warning,) = [event.message for event in events if event.kind == "warning"]
    assert re.search(
        rf"{NAME} could not be deleted \(.*etcdserver: request timed out\); its idleTimeout", warning
    )
    assert left in warning
    assert not any("is deleted" in event.message for event in events)
    assert sum(call.verb == "delete" for call in kube.calls) == 4


def test_an_api_that_is_away_for_a_while_or_loses_an_answer_does_not_show(
    kube: Kube, dask: LocalCluster, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = {
        ("get", "pods"): {0: 503},
        ("create", "daskclusters"): {0: 500, 1: 0},
        ("get", "daskclusters"): {0: 429, 1: 0},
        ("get", "services"): {0: 500},
        ("delete", "daskclusters"): {0: 500, 1: 503},
    }
    lost = ("create", "daskclusters", "", 2)

    def fail(call: Call) -> None:
        code = faults.get(call[:2], {}).get(call.number)
        if code == 0:
            raise ConnectionResetError("the API hangs up without an answer")
        if code:
            raise Refused(code, "ServerTimeout", "try again")

    def lose(call: Call) -> None:
        if call == lost:
            raise ConnectionResetError("a cluster is there, and the answer is lost")

    kube.before, kube.after, kube.scheduler = fail, lose, dask.scheduler_address
    as_driver(kube, monkeypatch)
    with on_pods(clock) as runner:
        assert runner.threads == 2
    assert not kube.clusters
    assert len(kube.posted) == 1, "a lost answer makes no second cluster"
    assert any("already exists" in refusal for refusal in kube.refusals)
    asked = Counter(call[:2] for call in kube.calls)
    assert all(asked[verb] > max(numbers) for verb, numbers in faults.items()), "each fault came"


def test_two_runs_at_once_have_a_cluster_each_and_each_deletes_its_own(
    kube: Kube, dask: LocalCluster, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    kube.scheduler = dask.scheduler_address
    as_driver(kube, monkeypatch, "one")
    with on_pods(clock) as first:
        (name,) = kube.clusters
        as_driver(kube, monkeypatch, "two")
        with on_pods(clock) as second:
            assert first.threads == second.threads == 2
            assert len(kube.clusters) == 2
        assert [*kube.clusters] == [name]
    assert not kube.clusters
    assert [body["metadata"]["ownerReferences"][0]["name"] for body in kube.posted] == ["one", "two"]


def test_without_the_client_of_kubernetes_it_is_said_how_to_install_it(
    seam: Seam, kube: Kube, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_driver(kube, monkeypatch)
    monkeypatch.setattr(kubeapi, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"is not installed; pip install 'zonal\[kubernetes\]'$"):
        run(settings(seam.mirror, tmp_path / "out", cluster="kubernetes", steps="stats"))
    assert not kube.calls
    assert not (tmp_path / "out").exists()


def test_a_service_account_is_enough(
    kube: Kube, dask: LocalCluster, clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Authority.make(tmp_path / "known")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(known.cert, known.key)
    with kube_api(tmp_path / "inside", context, scheduler=dask.scheduler_address) as kube:
        environment = inside_of_a_pod(kube, known, account := tmp_path / "account")
        as_driver(kube, monkeypatch, **environment, HOME=str(tmp_path))
        monkeypatch.delenv("ZONAL_NAMESPACE")
        monkeypatch.setattr(kubeapi, "SERVICE_ACCOUNT", account)
        monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(account / "token"))
        monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(account / "ca.crt"))
        with on_pods(clock) as runner:
            assert runner.threads == 2
        assert [body["metadata"]["namespace"] for body in kube.posted] == [kube.namespace]
        assert not kube.clusters


def inside_of_a_pod(kube: Kube, known: Authority, account: Path) -> dict[str, str]:
    """Write what a pod is given to speak with the API; return the environment besides."""
    account.mkdir()
    shutil.copy(known.ca, account / "ca.crt")
    (account / "token").write_text(kube.token)
    (account / "namespace").write_text(kube.namespace)
    host, port = kube.url.removeprefix("http://").split(":")
    return {"KUBECONFIG": "", "KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}


# ------------------------------------------------------------------ signals


@pytest.fixture
def stoppable() -> Iterator[None]:
    """Let signals unwind this process, as they do the command."""
    handlers = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    logging.disable(logging.NOTSET)


def interrupt(number: int) -> None:
    """Send a signal to the main thread, which waits for an answer."""
    ident = threading.main_thread().ident
    assert ident
    signal.pthread_kill(ident, number)


def while_it_waits(kube: Kube, clock: FakeClock, number: int) -> None:
    full(kube)
    clock.during = lambda waits: signal.raise_signal(number)


def before_the_cluster_is_there(kube: Kube, clock: FakeClock, number: int) -> None:
    """It comes into being when its driver has already tried to delete it, in vain."""
    tried = threading.Event()

    def before(call: Call) -> None:
        if call.verb == "create":
            interrupt(number)
            assert tried.wait(60)

    def during(waits: int) -> None:
        tried.set()
        wait_for(lambda: kube.clusters, "it never came")

    kube.before, clock.during = before, during


def before_it_is_known_that_the_cluster_is_there(kube: Kube, clock: FakeClock, number: int) -> None:
    def after(call: Call) -> None:
        if call.verb == "create":
            interrupt(number)
            wait_for(lambda: any(call.verb == "delete" for call in kube.calls), "nobody deletes it")

    kube.after = after


def and_again_while_the_cluster_is_deleted(kube: Kube, clock: FakeClock, number: int) -> None:
    while_it_waits(kube, clock, number)

    def before(call: Call) -> None:
        if call.verb == "delete":
            interrupt(number)

    kube.before = before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "arrange",
    [
        while_it_waits,
        before_the_cluster_is_there,
        before_it_is_known_that_the_cluster_is_there,
        and_again_while_the_cluster_is_deleted,
    ],
)
def test_a_signal_before_work_began_leaves_no_cluster(
    arrange: Callable[[Kube, FakeClock, int], None],
    number: signal.Signals,
    kube: Kube,
    clock: FakeClock,
    stoppable: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arrange(kube, clock, number)
    as_driver(kube, monkeypatch)
    with pytest.raises(Stopped) as caught, on_pods(clock) as runner:
        assert not runner.threads
    assert caught.value.code == number
    assert len(kube.posted) == 1 and not kube.clusters


# ------------------------------------------------------------------ while it works


def after_two_parts(output: Path, act: Callable[[], object]) -> tuple[list[Event], Notify]:
    """Act once, in the middle of a run; return its events, and who collects them."""
    events: list[Event] = []

    def notify(event: Event) -> None:
        events.append(event)
        if sum(event.kind == "part" for event in events) == 2 and event.kind == "part":
            act()

    return events, notify


def test_a_signal_while_it_works_deletes_the_cluster_and_keeps_what_is_done(
    seam: Seam, kube: Kube, stoppable: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    with two_workers() as dask:
        kube.scheduler = dask.scheduler_address
        as_driver(kube, monkeypatch)
        _, notify = after_two_parts(output, lambda: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(Stopped):
            run(settings(seam.mirror, output, cluster="kubernetes", steps="stats"), notify=notify)
        assert len(kube.posted) == 1 and not kube.clusters
    assert goes_on(seam, seam.mirror, output)


def test_a_cluster_that_is_deleted_while_it_works_is_named_and_the_run_goes_on_from_there(
    seam: Seam, kube: Kube, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    with two_workers() as dask:
        kube.scheduler = dask.scheduler_address
        as_driver(kube, monkeypatch)

        def delete() -> None:
            kube.delete(*kube.clusters)
            dask.close()

        events, notify = after_two_parts(output, delete)
        says = "finished parts are kept: the same command goes on where it stopped$"
        with pytest.raises(StoreError, match=says):
            run(settings(seam.mirror, output, cluster="kubernetes", steps="stats"), notify=notify)
    warnings = [event.message for event in events if event.kind == "warning"]
    assert any(re.match(f"{NAME} was deleted by somebody, or by its idleTimeout", text) for text in warnings)
    assert goes_on(seam, seam.mirror, output)


# ------------------------------------------------------------------ whole runs, whose pods are processes

LATENCY = 0.03
"""Seconds of each answer of the tiles' server: so that a run lasts."""

AGAIN = "; the same command goes on where it stopped"

LEAN = altered("worker", args=["--name=$(DASK_WORKER_NAME)", "--nthreads=2", "--no-nanny"])
"""A template without what takes time to start."""


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


@dataclass(frozen=True)
class Processes:
    """A finished run, and what there was while it worked."""

    kube: Kube
    folder: Path
    said: str
    roles: list[str]
    health: dict[tuple[str, str], int]


@pytest.fixture(scope="module")
def processes(seam: Seam, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    folder = tmp_path_factory.mktemp("processes")
    with (
        kube_api(folder / "kube", processes=True) as kube,
        http_server(seam.mirror, latency=LATENCY) as server,
    ):
        two = {"workers": 2, "min_workers": 2}
        with driver_of(kube, seam, folder, mirror=server.url, **two) as driver:
            some_written(folder / "out", 1, driver)
            server.gate.clear()
            roles = sorted(pod.role for pod in kube.pods)
            health = {
                (pod.role, kind): urllib.request.urlopen(address, timeout=10).status
                for pod in kube.pods
                for kind, address in pod.probes().items()
            }
            server.gate.set()
            server.latency = 0
            assert driver.ended() == 0, driver.said
            assert not driver.family.alive()
        yield Processes(kube, folder, driver.said, roles, health)


@pytest.mark.slow
def test_a_command_on_pods_makes_the_very_table_of_a_local_run_and_leaves_nothing(
    seam: Seam, processes: Processes
) -> None:
    assert is_right(seam, processes.folder / "out")
    assert not processes.kube.clusters
    assert processes.roles == ["scheduler", "worker", "worker"]
    (body,) = processes.kube.posted
    name = f"DaskCluster {processes.kube.namespace}/{body['metadata']['name']}"
    assert f"{name} is asked for, with 2 workers\n" in processes.said
    assert "Dask workers: 2, threads: " in processes.said
    assert f"{name} is deleted\n" in processes.said
    assert "warning" not in processes.said


@pytest.mark.slow
def test_each_probe_of_the_cluster_s_pods_is_answered_by_what_runs_in_them(processes: Processes) -> None:
    assert {role for role, _ in processes.health} == {"scheduler", "worker"}
    assert {*processes.health.values()} == {200}


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


@pytest.mark.slow
def test_sigterm_while_a_command_works_ends_its_pods_and_keeps_what_is_done(
    seam: Seam, tiles: FolderServer, tmp_path: Path
) -> None:
    with kube_api(tmp_path / "kube", processes=True) as kube, working(kube, seam, tmp_path, tiles) as driver:
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


@pytest.mark.slow
def test_a_killed_driver_leaves_its_cluster_to_its_job_whose_next_pod_goes_on_until_it_is_interrupted(
    seam: Seam, tiles: FolderServer, tmp_path: Path
) -> None:
    with kube_api(tmp_path / "kube", processes=True) as kube:
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


ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
MOUNTED = f'mount -t tmpfs none /var/run && mkdir -p {ACCOUNT} && cp "$GIVEN"/* {ACCOUNT} && exec "$@"'


@pytest.mark.slow
@pytest.mark.skipif(not may_mount(), reason="no user namespaces here: no service account can be mounted")
def test_a_command_inside_of_a_pod_finds_its_service_account(seam: Seam, tmp_path: Path) -> None:
    known = Authority.make(tmp_path / "known")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(known.cert, known.key)
    with kube_api(tmp_path / "kube", context, awake=False) as kube:
        account = tmp_path / "account"
        environment = kube.driver(JOB) | inside_of_a_pod(kube, known, account)
        environment |= {"HOME": str(tmp_path), "GIVEN": str(account)}
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
