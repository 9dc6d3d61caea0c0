"""A Dask cluster of pods for one run: asked of the dask-kubernetes operator, watched, taken away.

Knows what the operator makes of a `DaskCluster`, and how long it is waited for; knows neither HTTP
nor Dask's clients, nor what the workers are for.
"""

from __future__ import annotations

import contextlib
import copy
import math
import os
import signal
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zonal.cluster.kubeapi import CLOCK, POLL_SECONDS, RESOURCE, Api, Clock
from zonal.config.workflows import bundled
from zonal.config.yaml_file import read_mapping
from zonal.errors import InputError, StoreError

TEMPLATE = "deploy/kubernetes/dask-operator/daskcluster.yaml"
"""The bundled `DaskCluster`, where the settings name none."""

TELL_AFTER = 10.0
"""Seconds after which what keeps pods from running is worth telling: most of it passes."""


@dataclass(frozen=True)
class DriverPod:
    """The process that asks for a cluster, as the downward API tells it; outside of a pod, mostly nothing.

    Parameters
    ----------
    namespace, pod : str or None
        ``ZONAL_NAMESPACE`` and ``ZONAL_POD`` of the environment.
    job, uid : str or None
        The Job that runs it: ``ZONAL_JOB`` and ``ZONAL_JOB_UID``.
    """

    namespace: str | None = None
    pod: str | None = None
    job: str | None = None
    uid: str | None = None

    @classmethod
    def here(cls) -> DriverPod:
        """Read the environment."""
        names = ("ZONAL_NAMESPACE", "ZONAL_POD", "ZONAL_JOB", "ZONAL_JOB_UID")
        return cls(*(os.environ.get(name) or None for name in names))

    @property
    def owner(self) -> dict[str, Any] | None:
        """The reference by which a cluster goes when its Job goes."""
        if not (self.job and self.uid):
            return None
        return {"apiVersion": "batch/v1", "kind": "Job", "name": self.job, "uid": self.uid}


def load_template(template: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """Read a `DaskCluster` from a file, from the settings themselves, or the bundled one.

    Raises
    ------
    InputError
        If there is no such file, or it is no mapping.
    """
    if isinstance(template, Mapping):
        return copy.deepcopy(dict(template))
    path = Path(template) if template else bundled(TEMPLATE)
    return read_mapping(path, f"cluster template {path}")


def manifest(
    template: Mapping[str, Any],
    name: str,
    namespace: str,
    *,
    image: str | None = None,
    workers: int | None = None,
    owner: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Fill in a template.

    Parameters
    ----------
    template : mapping
        A `DaskCluster`; what it has stays, but for what follows.
    name, namespace : str
        Of this cluster.
    image : str, optional
        The driver's own, for every container that names none.
    workers : int, optional
        In place of the template's ``spec.worker.replicas``.
    owner : mapping, optional
        Whose end is the cluster's, too.

    Raises
    ------
    InputError
        If it is no `DaskCluster`, or scheduler or workers have another image than the driver, or none.
    """
    body = copy.deepcopy(dict(template))
    kind = (body.get("apiVersion"), body.get("kind"))
    if kind != (f"{RESOURCE['group']}/{RESOURCE['version']}", "DaskCluster"):
        raise InputError(f"cluster template: expected a DaskCluster of kubernetes.dask.org/v1, found {kind}")
    metadata = _section(body, "metadata")
    metadata |= {"name": name, "namespace": namespace}
    if owner:
        metadata["ownerReferences"] = [dict(owner)]
    spec = _section(body, "spec")
    selector = _section(_section(_section(spec, "scheduler"), "service"), "selector")
    selector |= {"dask.org/cluster-name": name, "dask.org/component": "scheduler"}
    if workers:
        _section(spec, "worker")["replicas"] = workers
    for role in ("scheduler", "worker"):
        pod = _section(_section(spec, role), "spec")
        containers = pod.get("containers")
        if not (containers and isinstance(containers, list) and all(isinstance(c, dict) for c in containers)):
            raise InputError(f"cluster template: spec.{role}.spec.containers is no list of containers")
        for number, container in enumerate(containers):
            own = container.setdefault("image", image)
            if own is None:
                raise InputError(
                    f"cluster template: no image for the {role}, and this process runs in no pod whose image "
                    "could be taken; write one into the template"
                )
            # Only the first container is Dask's.
            if number == 0 and image and own != image:
                raise InputError(
                    f"cluster template: the image of the {role} is {own}, the driver's is {image}; "
                    "leave it out, and it is the driver's"
                )
    return body


def _section(mapping: dict[str, Any], name: str) -> dict[str, Any]:
    section = mapping.setdefault(name, {})
    if not isinstance(section, dict):
        raise InputError(f"cluster template: {name} is no mapping")
    return section


@dataclass(frozen=True)
class DaskCluster:
    """A `DaskCluster` that exists, as the API tells of it.

    Parameters
    ----------
    name, namespace : str
    """

    name: str
    namespace: str
    _api: Api = field(repr=False)

    def address(self) -> str | None:
        """Return the scheduler's address, ``tcp://host:port``, once its service has one.

        Raises
        ------
        StoreError
            If the cluster is gone, or the API does not answer.
        InputError
            If the operator refuses it.
        """
        if self._phase() == "Error":
            raise InputError(f"the Dask operator refuses {self}: kubectl describe it for the reason")
        service = self._api.get(
            self._api.core.read_namespaced_service, f"{self.name}-scheduler", self.namespace
        )
        host = service and service["spec"].get("clusterIP")
        if service is None or host in (None, "", "None"):
            return None
        port = {port.get("name"): port["port"] for port in service["spec"].get("ports", ())}.get("tcp-comm")
        if port is None:
            raise InputError(f"the scheduler's service of {self} has no port named tcp-comm")
        return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"

    def troubles(self) -> list[str]:
        """Say what keeps it, or its pods, from running: one sentence each."""
        if self._phase() is None:
            return [
                f"the Dask operator has not taken it up; does it run, and watch namespace {self.namespace}?"
            ]
        listed = self._api.call(
            self._api.core.list_namespaced_pod,
            self.namespace,
            label_selector=f"dask.org/cluster-name={self.name}",
        )
        if not listed["items"]:
            return ["no pod of it is there; the events of its deployments say why (a quota, an admission)"]
        troubles = {pod["metadata"]["name"]: _trouble(pod.get("status", {})) for pod in listed["items"]}
        return [f"pod {name}: {trouble}" for name, trouble in troubles.items() if trouble]

    def _phase(self) -> str | None:
        """Return what the operator says of it; None before it does."""
        body = self._api.get(
            self._api.objects.get_namespaced_custom_object,
            **RESOURCE, namespace=self.namespace, name=self.name,
        )  # fmt: skip
        if body is None:
            raise StoreError(f"{self} was deleted by somebody, or by its idleTimeout")
        phase = body.get("status", {}).get("phase")
        return str(phase) if phase else None

    def __str__(self) -> str:
        return f"DaskCluster {self.namespace}/{self.name}"


def _trouble(status: Mapping[str, Any]) -> str | None:
    """Say what is wrong with a pod, if anything is."""
    for container in status.get("containerStatuses", ()):
        state = container.get("state", {})
        ended = state.get("terminated") or container.get("lastState", {}).get("terminated")
        if ended and ended.get("exitCode"):
            return f"its container ended with exit code {ended.get('exitCode')} ({ended.get('reason')})"
        waiting = state.get("waiting", {})
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return ": ".join(filter(None, (waiting["reason"], waiting.get("message"))))
    for condition in status.get("conditions", ()):
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"{condition.get('reason')}: {condition.get('message')}"
    return None


class Startup:
    """The wait for a cluster to come up: it has an end, and what stays in the way is told once.

    Parameters
    ----------
    cluster : DaskCluster
    patience : float
        Seconds, from now on, for all that is waited for.
    tell : callable
        Told what keeps pods from running.
    clock : Clock
    """

    def __init__(
        self,
        cluster: DaskCluster,
        patience: float,
        tell: Callable[[str], None],
        clock: Clock = CLOCK,
    ) -> None:
        self._cluster = cluster
        self._patience = patience
        self._tell = tell
        self._clock = clock
        self._until = clock.now() + patience
        self._tell_at: dict[str, float] = {}

    def wait(self, state: str) -> None:
        """Wait a moment, since the cluster still has only this.

        Raises
        ------
        StoreError
            If all of it took longer than the patience, or the cluster is gone.
        """
        troubles = self._cluster.troubles()
        now = self._clock.now()
        for trouble in troubles:
            if now > self._tell_at.setdefault(trouble, now + TELL_AFTER):
                self._tell_at[trouble] = math.inf
                self._tell(trouble)
        if now > self._until:
            because = f": {troubles[0]}" if troubles else ""
            raise StoreError(f"{self._cluster} has {state} after {self._patience:g} s{because}")
        self._clock.sleep(POLL_SECONDS)


@contextlib.contextmanager
def requested(
    template: Mapping[str, Any],
    workers: int | None,
    min_workers: int,
    tell: Callable[[str], None],
    warn: Callable[[str], None],
    clock: Clock = CLOCK,
) -> Iterator[DaskCluster]:
    """Have a cluster for as long as a `with` lasts.

    It is deleted in every ending, signals included. A driver that is killed cannot: then its Job's end,
    or the template's ``idleTimeout``, ends the cluster.

    Parameters
    ----------
    template : mapping
    workers : int or None
        As for `manifest`.
    min_workers : int
        How many of them are of any use.
    tell, warn : callable
        Told what is made and taken away, and what could not be.
    clock : Clock

    Raises
    ------
    InputError
        If no API is configured, or it refuses the cluster.
    StoreError
        If it does not answer.
    """
    driver = DriverPod.here()
    api = Api.configured(clock)
    namespace = driver.namespace or api.namespace
    image = None
    if driver.pod:
        own = api.call(api.core.read_namespaced_pod, driver.pod, namespace)
        containers = own["spec"]["containers"]
        images = {container["name"]: container["image"] for container in containers}
        # A sidecar may come first.
        image = images.get("zonal", containers[0]["image"])
    name = f"zonal-{uuid.uuid4().hex[:12]}"
    body = manifest(template, name, namespace, image=image, workers=workers, owner=driver.owner)
    replicas = body["spec"]["worker"].get("replicas", 1)
    if replicas < min_workers:
        raise InputError(f"cluster template: {replicas} workers, and {min_workers} are to be waited for")
    # Not known: who is interrupted while asking may have been heard.
    made: bool | None = None
    try:
        try:
            api.create(body, namespace)
            made = True
        except InputError:
            made = False
            raise
        cluster = DaskCluster(name, namespace, api)
        tell(f"{cluster} is asked for, with {replicas} workers")
        yield cluster
    finally:
        if made is not False:
            with _undisturbed():
                failure = api.delete(name, namespace, sure=bool(made))
            if failure:
                warn(f"DaskCluster {namespace}/{name} {failure}")
            elif made:
                tell(f"DaskCluster {namespace}/{name} is deleted")


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Put a second signal off: who interrupts twice would leave the cluster behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler or signal.SIG_DFL)
