"""The API of Kubernetes on loopback, with the operator and the kubelet behind it, as far as a driver can see.

It lets a caller do what the Role of `deploy/` allows. The pods that it makes of a `DaskCluster` are words
only, and their scheduler's service leads to one that a test has; or they are processes of this machine, which
run the very words of the template, and which it ends by their numbers.
"""

from __future__ import annotations

import functools
import json
import math
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import yaml
from builds import REPO
from jsonschema import Draft7Validator
from kubernetes.utils.quantity import parse_quantity
from processes import process
from servers import LOOPBACK, Answer, send, serving

DEPLOY = REPO / "deploy/kubernetes/dask-operator"

ROUTE = re.compile(
    r"/(?:api/v1|apis/(?P<group>[^/]+)/v1)/namespaces/(?P<namespace>[^/]+)"
    r"/(?P<resource>pods|services|daskclusters)(?:/(?P<name>[^/]+))?"
)
VERBS = {"POST": "create", "DELETE": "delete", "GET": "get"}
GROUP = "kubernetes.dask.org"
VALID = re.compile(r"(?=.{,53}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?")
"""Names that the operator takes: with ``-scheduler`` they make a Service's."""

TOKEN = "made-up-token-of-the-loopback-api"

PORTS = re.compile(r"\b878[678]\b")
"""Dask's, for which the processes of one machine need ports of their own."""


class Refused(Exception):
    """What the API answers in place of what was asked for: a code, a reason and a message of Kubernetes."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason = code, reason


class Call(NamedTuple):
    """Something that was asked of the API; `number` counts those with the same verb and resource, from 0."""

    verb: str
    resource: str
    name: str
    number: int


# ------------------------------------------------------------------ what deploy/ says


@functools.cache
def rendered() -> dict[str, list[dict[str, Any]]]:
    """What `kubectl apply -k` would apply, by kind."""
    kubectl = Path(sys.executable).with_name("kubectl")
    words = [str(kubectl) if kubectl.exists() else shutil.which("kubectl") or "kubectl", "kustomize"]
    done = subprocess.run([*words, str(DEPLOY)], capture_output=True, text=True, check=True)
    found: dict[str, list[dict[str, Any]]] = {}
    for one in yaml.safe_load_all(done.stdout):
        found.setdefault(one["kind"], []).append(one)
    return found


def driver_template() -> dict[str, Any]:
    """The pod template of the CronJob."""
    (job,) = rendered()["CronJob"]
    return dict(job["spec"]["jobTemplate"]["spec"]["template"])


def allowed() -> set[tuple[str, str, str]]:
    """(group, resource, verb) that the Roles of the driver's service account let it do."""
    account = driver_template()["spec"]["serviceAccountName"]
    bound = {
        binding["roleRef"]["name"]
        for binding in rendered()["RoleBinding"]
        if any(subject["name"] == account for subject in binding["subjects"])
    }
    return {
        (group, resource, verb)
        for role in rendered()["Role"]
        if role["metadata"]["name"] in bound
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


@functools.cache
def _validator() -> Draft7Validator:
    """The definition of a `DaskCluster` that the operator's package installs, in which nothing is unknown."""
    spec = find_spec("dask_kubernetes")
    assert spec and spec.origin
    charts = Path(spec.origin).parent / "operator/deployment/helm/dask-kubernetes-operator"
    definition = yaml.safe_load((charts / "crds/daskcluster.yaml").read_text())
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"] |= {name: {} for name in ("apiVersion", "kind", "metadata")}
    _close(schema)
    return Draft7Validator(schema)


def _close(schema: dict[str, Any]) -> None:
    properties = schema.get("properties", {})
    if properties and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema.setdefault("additionalProperties", False)
    for inner in (*properties.values(), schema.get("items"), schema.get("additionalProperties")):
        if isinstance(inner, dict):
            _close(inner)


# ------------------------------------------------------------------ pods


@dataclass
class Pod:
    """A pod: its spec, and what the kubelet says of it.

    Parameters
    ----------
    status : dict or None
        In place of a process's; None of one that runs here.
    ports : dict
        Those that stand for Dask's, here.
    """

    name: str
    namespace: str
    labels: dict[str, str]
    spec: dict[str, Any]
    annotations: dict[str, str] = field(default_factory=dict)
    status: dict[str, Any] | None = None
    process: subprocess.Popen[str] | None = None
    ports: dict[int, int] = field(default_factory=dict)

    @property
    def role(self) -> str:
        return self.labels["dask.org/component"]

    @property
    def container(self) -> dict[str, Any]:
        return dict(self.spec["containers"][0])

    def environment(self) -> dict[str, str]:
        """Resolve what the container's `env` takes from the pod, and from variables before it."""
        found: dict[str, str] = {}
        for entry in self.container.get("env", ()):
            given = entry.get("valueFrom", {})
            if "fieldRef" in given:
                found[entry["name"]] = self._field(given["fieldRef"]["fieldPath"])
            elif "resourceFieldRef" in given:
                wanted = given["resourceFieldRef"]
                kind, name = wanted["resource"].split(".")
                amount = parse_quantity(self.container["resources"][kind][name])
                divisor = parse_quantity(wanted.get("divisor", 1)) or 1
                found[entry["name"]] = str(math.ceil(amount / divisor))
            elif not given:
                found[entry["name"]] = expanded(entry.get("value", ""), found)
        return found

    def _field(self, path: str) -> str:
        if match := re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path):
            return str(getattr(self, match[1]).get(match[2], ""))
        known = {"metadata.name": self.name, "metadata.namespace": self.namespace, "status.podIP": LOOPBACK}
        return known[path]

    def start(self, folder: Path, stack: ExitStack, more: dict[str, str]) -> None:
        """Run what its first container runs. What it mounts lies in `folder`; its ports are free ones."""
        folder.mkdir(parents=True)
        mounts = [mount["mountPath"] for mount in self.container.get("volumeMounts", ())]

        def here(word: str) -> str:
            option, equals, value = word.rpartition("=")
            value = PORTS.sub(lambda port: str(self.ports.setdefault(int(port[0]), free_port())), value)
            if value.startswith(":"):  # any interface: of a pod's own network, but of all this machine's
                value = LOOPBACK + value
            if any(value == mount or value.startswith(f"{mount}/") for mount in mounts):
                value = f"{folder}{value}"
            return f"{option}{equals}{value}"

        environment = {name: here(value) for name, value in self.environment().items()}
        words = [*self.container.get("command", ["zonal"]), *self.container.get("args", ())]
        words = [here(expanded(word, environment)) for word in words]
        if words[0] == "dask":
            words += ["--host", LOOPBACK]
        environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        log = folder.with_suffix(".log")
        self.process = stack.enter_context(process(*words, folder=folder, log=log, **{**environment, **more}))

    def probes(self) -> dict[str, str]:
        """Addresses that the kubelet would ask, by the kind of probe."""
        named = {port["name"]: port["containerPort"] for port in self.container.get("ports", ())}
        found = {}
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            if asked := self.container.get(kind, {}).get("httpGet"):
                port = self.ports[int(named.get(asked["port"], asked["port"]))]
                found[kind] = f"http://{LOOPBACK}:{port}{asked['path']}"
        return found

    def shown(self) -> dict[str, Any]:
        """Return the pod as the API does."""
        code = self.process.poll() if self.process else None
        status = self.status or (running() if code is None else crashing(code))
        names = {"name": self.container["name"], "image": self.container["image"], "imageID": ""}
        containers = [names | one for one in status.get("containerStatuses", ())]
        metadata = {"name": self.name, "namespace": self.namespace, "labels": self.labels}
        return {
            "metadata": metadata,
            "spec": self.spec,
            "status": {**status, "containerStatuses": containers},
        }


def expanded(text: str, known: dict[str, str]) -> str:
    """Replace ``$(NAME)`` as Kubernetes does: one that is not known stays, ``$$`` is a dollar."""
    return re.sub(
        r"\$\$|\$\(([\w.-]+)\)", lambda match: known.get(match[1], match[0]) if match[1] else "$", text
    )


def running() -> dict[str, Any]:
    return _status("Running", {"running": {}})


def crashing(code: int) -> dict[str, Any]:
    """Of a container that ended, and is not started again at once."""
    waiting = {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}
    ended = {"exitCode": code, "reason": "Error" if code else "Completed"}
    return _status("Running", {"waiting": waiting}, {"terminated": ended})


def unpullable(image: str) -> dict[str, Any]:
    waiting = {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "{image}"'}
    return _status("Pending", {"waiting": waiting})


def unschedulable(message: str) -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return {"phase": "Pending", "conditions": [condition]}


def _status(phase: str, state: dict[str, Any], last: dict[str, Any] | None = None) -> dict[str, Any]:
    scheduled = {"type": "PodScheduled", "status": "True"}
    container = {"ready": "running" in state, "restartCount": int(bool(last)), "state": state}
    container |= {"lastState": last} if last else {}
    return {"phase": phase, "conditions": [scheduled], "containerStatuses": [container]}


def free_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as listener:
        return int(listener.getsockname()[1])


# ------------------------------------------------------------------ the API


@dataclass
class Cluster:
    """A `DaskCluster`, its pods and its scheduler's service."""

    body: dict[str, Any]
    pods: list[Pod] = field(default_factory=list)
    service: dict[str, Any] | None = None
    stack: ExitStack = field(default_factory=ExitStack)

    @property
    def name(self) -> str:
        return str(self.body["metadata"]["name"])


@dataclass
class Kube:
    """One namespace: what there is, what was asked, and what goes wrong.

    Parameters
    ----------
    folder : Path
        For what processes write.
    rules : set of (group, resource, verb)
        What the caller may do.
    processes : bool
        Whether pods are processes, and the operator takes its time.
    scheduler : str
        Address that the service leads to where they are not; without one, nobody listens there.
    installed, awake : bool
        Whether there is a definition of `DaskCluster`, and whether the operator does anything.
    kubelet : callable
        Gives the status of a pod that does not run, else None.
    before, after : callable
        Called with each `Call` before and after it has its effect: may wait, and raise `Refused`.
    environment : dict
        More of it, by the pods' role.
    """

    folder: Path
    namespace: str
    rules: set[tuple[str, str, str]]
    processes: bool = False
    scheduler: str = ""
    installed: bool = True
    awake: bool = True
    kubelet: Callable[[Pod], dict[str, Any] | None] = lambda pod: None
    before: Callable[[Call], None] = lambda call: None
    after: Callable[[Call], None] = lambda call: None
    environment: dict[str, dict[str, str]] = field(default_factory=dict)
    url: str = ""
    token: str = TOKEN
    expected: str = TOKEN
    calls: list[Call] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    posted: list[dict[str, Any]] = field(default_factory=list)
    clusters: dict[str, Cluster] = field(default_factory=dict)
    own: dict[str, Pod] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    over: threading.Event = field(default_factory=threading.Event)

    def driver(self, job: str) -> dict[str, str]:
        """Make the pod of a Job, and return the environment of its container."""
        labels = {"batch.kubernetes.io/job-name": job, "batch.kubernetes.io/controller-uid": f"uid-of-{job}"}
        template = driver_template()
        labels |= template["metadata"].get("labels", {})
        pod = Pod(f"{job}-{uuid.uuid4().hex[:5]}", self.namespace, labels, template["spec"])
        self.own[pod.name] = pod
        found = {name: value for name, value in pod.environment().items() if name.startswith("ZONAL_")}
        return {**found, "KUBECONFIG": str(self.kubeconfig())}

    def kubeconfig(self) -> Path:
        file = self.folder / "kubeconfig"
        name = {"name": "double"}
        context = {"cluster": "double", "user": "double", "namespace": self.namespace}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{**name, "cluster": {"server": self.url}}],
            "users": [{**name, "user": {"token": self.token}}],
            "contexts": [{**name, "context": context}],
            "current-context": "double",
        }
        file.write_text(yaml.safe_dump(config))
        return file

    @property
    def pods(self) -> list[Pod]:
        """Of all clusters."""
        return [pod for cluster in list(self.clusters.values()) for pod in list(cluster.pods)]

    def answer(self, method: str, address: str, body: bytes, login: str | None) -> dict[str, Any]:
        """Do what is asked; raise Refused as the API would."""
        url = urlsplit(address)
        route = ROUTE.fullmatch(url.path)
        if not route or method not in VERBS:
            self.calls.append(Call(method, url.path, "", 0))
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        verb = "list" if method == "GET" and not route["name"] else VERBS[method]
        group, resource, name = route["group"] or "", route["resource"], route["name"] or ""
        with self.lock:
            number = sum(call[:2] == (verb, resource) for call in self.calls)
            call = Call(verb, resource, name, number)
            self.calls.append(call)
        scheme, _, token = (login or "").partition(" ")
        if (scheme.lower(), token) != ("bearer", self.expected):
            raise Refused(401, "Unauthorized", "Unauthorized")
        if (group, resource, verb) not in self.rules or route["namespace"] != self.namespace:
            raise Refused(
                403,
                "Forbidden",
                f'{resource} is forbidden: User "system:serviceaccount:{self.namespace}:zonal" cannot {verb} '
                f'resource "{resource}" in API group "{group}" in the namespace "{route["namespace"]}"',
            )
        self.before(call)
        with self.lock:
            found = self._do(call, parse_qs(url.query), body)
        self.after(call)
        return found

    def _do(self, call: Call, query: dict[str, list[str]], body: bytes) -> dict[str, Any]:
        if call.resource == "daskclusters" and not self.installed:
            raise Refused(404, "", "404 page not found")
        if call.verb == "create":
            return self._create(json.loads(body), query.get("fieldValidation") == ["Strict"])
        if call.verb == "list":
            name, _, value = query["labelSelector"][0].partition("=")
            found = [pod.shown() for pod in self.pods if pod.labels.get(name) == value]
            return {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": found}
        if call.verb == "delete" and call.name in self.clusters:
            self.delete(call.name)
            return {"kind": "Status", "apiVersion": "v1", "status": "Success"}
        known = {
            "pods": {name: pod.shown() for name, pod in self.own.items()},
            "services": {
                f"{one.name}-scheduler": one.service for one in self.clusters.values() if one.service
            },
            "daskclusters": {name: cluster.body for name, cluster in self.clusters.items()},
        }[call.resource]
        if call.name not in known:
            raise Refused(404, "NotFound", f'{call.resource} "{call.name}" not found')
        return dict(known[call.name])

    def _create(self, body: dict[str, Any], strict: bool) -> dict[str, Any]:
        name = body["metadata"]["name"]
        for error in _validator().iter_errors(body):
            where = ".".join(map(str, error.absolute_path))
            if error.validator != "additionalProperties":
                message = f'DaskCluster.{GROUP} "{name}" is invalid: {where}: Invalid value: {error.message}'
                raise Refused(422, "Invalid", message)
            if strict:
                unknown = error.message.split("'")[1]
                message = f'strict decoding error: unknown field "{where}.{unknown}"'
                raise Refused(400, "BadRequest", f"DaskCluster in version v1 cannot be handled: {message}")
        if name in self.clusters:
            raise Refused(409, "AlreadyExists", f'daskclusters.{GROUP} "{name}" already exists')
        self.posted.append(json.loads(json.dumps(body)))
        body["metadata"] |= {"uid": str(uuid.uuid4()), "resourceVersion": "1", "generation": 1}
        cluster = self.clusters[name] = Cluster(body)
        if self.awake and self.processes:
            later = threading.Timer(0.2, self.operate, args=(cluster,))
            later.daemon = True
            later.start()
        elif self.awake:
            self.operate(cluster)
        return body

    def delete(self, name: str) -> None:
        """Delete a cluster and all that belongs to it."""
        with self.lock:
            self.clusters.pop(name).stack.close()

    def collect(self, uid: str) -> None:
        """Delete what a Job owned that is no more, as the garbage collector does."""
        with self.lock:
            for name, cluster in list(self.clusters.items()):
                if any(owner["uid"] == uid for owner in cluster.body["metadata"].get("ownerReferences", ())):
                    self.delete(name)

    # -------------------------------------------------------------- the operator, and the kubelet

    def operate(self, cluster: Cluster) -> None:
        """Make of a cluster a scheduler, its service and workers, one after the other."""
        name, spec = cluster.name, cluster.body["spec"]
        status = cluster.body.setdefault("status", {})
        status["phase"] = "Created" if VALID.fullmatch(name) else "Error"
        if status["phase"] == "Error":
            return
        scheduler = self._pod(cluster, "scheduler", f"{name}-scheduler", {})
        cluster.service = self._service(cluster, scheduler)
        status["phase"] = "Running"
        to = f"tcp://{LOOPBACK}:{scheduler.ports.get(8786, free_port())}"
        for _ in range(spec["worker"].get("replicas", 1)):
            worker = f"{name}-default-worker-{uuid.uuid4().hex[:10]}"
            self._pod(cluster, "worker", worker, {"DASK_WORKER_NAME": worker, "DASK_SCHEDULER_ADDRESS": to})

    def _pod(self, cluster: Cluster, role: str, name: str, injected: dict[str, str]) -> Pod:
        """Make a pod as a Deployment does, and start it unless the kubelet of this test says otherwise."""
        part = json.loads(json.dumps(cluster.body["spec"][role]))
        labels = cluster.body["metadata"].get("labels", {}) | part.get("metadata", {}).get("labels", {})
        labels |= {"dask.org/cluster-name": cluster.name, "dask.org/component": role}
        for container in part["spec"]["containers"]:
            env = container.setdefault("env", [])
            named = {entry["name"] for entry in env}
            env += [{"name": one, "value": value} for one, value in injected.items() if one not in named]
        pod = Pod(f"{name}-{uuid.uuid4().hex[:5]}", self.namespace, labels, part["spec"])
        pod.status = self.kubelet(pod) or (None if self.processes else running())
        with self.lock:
            if self.clusters.get(cluster.name) is cluster:  # not deleted meanwhile
                cluster.pods.append(pod)
                if pod.status is None:
                    pod.start(self.folder / pod.name, cluster.stack, self.environment.get(role, {}))
        return pod

    def _service(self, cluster: Cluster, scheduler: Pod) -> dict[str, Any]:
        """Lead to the scheduler, if its labels are those that the service selects."""
        spec = json.loads(json.dumps(cluster.body["spec"]["scheduler"]["service"]))
        reached = spec["selector"].items() <= scheduler.labels.items()
        if self.scheduler:
            scheduler.ports[8786] = int(self.scheduler.rpartition(":")[2])
        for port in spec["ports"]:
            port["port"] = (reached and scheduler.ports.get(port["port"])) or free_port()
        metadata = {"name": f"{cluster.name}-scheduler", "namespace": self.namespace}
        return {"metadata": metadata, "spec": {**spec, "clusterIP": LOOPBACK}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body are two writes: the second would wait for a delayed acknowledgement, 40 ms each time.
    disable_nagle_algorithm = True

    def __init__(self, kube: Kube, context: ssl.SSLContext | None, *args: Any) -> None:
        self.kube, self.context = kube, context
        super().__init__(*args)

    def setup(self) -> None:
        if self.context:
            self.request = self.context.wrap_socket(self.request, server_side=True)
        super().setup()

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        code = HTTPStatus.CREATED if self.command == "POST" else HTTPStatus.OK
        try:
            found = self.kube.answer(self.command, self.path, body, self.headers.get("Authorization"))
        except Refused as refused:
            self.kube.refusals.append(str(refused))
            code = HTTPStatus(refused.code)
            found = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
            found |= {"message": str(refused), "reason": refused.reason, "code": code}
        text = json.dumps(found).encode()
        send(self, Answer(code, {"Content-Type": "application/json", "Content-Length": str(len(text))}, text))

    do_POST = do_DELETE = do_PUT = do_PATCH = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def kube_api(folder: Path, context: ssl.SSLContext | None = None, **more: Any) -> Iterator[Kube]:
    """Serve an API of its own; what it has left at the end is deleted."""
    folder.mkdir(parents=True, exist_ok=True)
    namespace = rendered()["Namespace"][0]["metadata"]["name"]
    kube = Kube(folder, namespace, allowed(), **more)
    with serving(functools.partial(_Handler, kube, context)) as (kube.url, _):
        try:
            yield kube
        finally:
            kube.over.set()
            for name in list(kube.clusters):
                kube.delete(name)
    if kube.rules == allowed():
        assert not [said for said in kube.refusals if " is forbidden: User" in said]
