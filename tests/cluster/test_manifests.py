"""What is in deploy/kubernetes, rendered as users do, with what the Dask operator makes of it."""

from __future__ import annotations

import ast
import copy
import importlib
import re
import subprocess
import sysconfig
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import jsonschema
import kubernetes_validate
import pytest
import typer.main
import yaml
from builds import REPO
from dask_kubernetes.operator.controller import controller as operator
from dask_kubernetes.operator.validation import validate_cluster_name
from distributed.cli import dask_scheduler, dask_worker

from zonal.cli.app import app
from zonal.cluster import kubeapi, local, pods
from zonal.config.settings import Settings
from zonal.config.workflows import load
from zonal.errors import InputError, OtherRunError, UsageError

Object = dict[str, Any]

PLACE = REPO / "deploy" / "kubernetes"
OVERLAYS = ("single-node", "dask-operator", "all-states")
LOCAL = ("single-node", "all-states")
VERSIONS = ("1.33", kubernetes_validate.latest_version())
CLUSTER = "zonal-0123456789ab"
NEVER_RETRIED = sorted(error.exit_code for error in (UsageError, InputError, OtherRunError))
GIB = 2**30

each_folder = pytest.mark.parametrize("folder", ("base", *OVERLAYS))
each_overlay = pytest.mark.parametrize("folder", OVERLAYS)


class Pod(NamedTuple):
    """A pod template, whoever makes pods of it."""

    owner: str
    metadata: Object
    spec: Object

    @property
    def container(self) -> Object:
        (container,) = self.spec["containers"]
        return container

    @property
    def role(self) -> str:
        return str(self.metadata["labels"]["app.kubernetes.io/component"])


# ---------------------------------------------------------------- what there is


def render(folder: Path) -> list[Object]:
    kubectl = Path(sysconfig.get_path("scripts")) / "kubectl"
    made = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True)
    assert (made.returncode, made.stderr) == (0, "")  # a deprecated field would be a warning
    return list(yaml.safe_load_all(made.stdout))


@pytest.fixture(scope="session")
def rendered() -> dict[str, list[Object]]:
    return {folder: render(PLACE / folder) for folder in ("base", *OVERLAYS)}


def cluster_of(objects: list[Object]) -> Object | None:
    """The DaskCluster that the driver will ask for, if it will."""
    (driver,) = (pod for pod in pods_of(objects) if pod.owner.startswith("CronJob"))
    for thing in named(objects, "ConfigMap"):
        if "daskcluster.yaml" in thing["data"]:
            template = yaml.safe_load(thing["data"]["daskcluster.yaml"])
            owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "zonal-29381400", "uid": "4a5b"}
            image = driver.container["image"]
            return pods.manifest(template, CLUSTER, "zonal", image=image, workers=4, owner=owner)
    return None


def live(objects: list[Object]) -> list[Object]:
    """All that is there during a run: what was applied, and what the operator's code makes of the cluster."""
    cluster = cluster_of(objects)
    if cluster is None:
        return objects
    meta, scheduler, worker = cluster["metadata"], cluster["spec"]["scheduler"], cluster["spec"]["worker"]
    words = [
        (part["metadata"]["annotations"], meta["labels"] | part["metadata"]["labels"])
        for part in (scheduler, worker)
    ]
    group = f"{CLUSTER}-default"
    made = [
        operator.build_scheduler_deployment_spec(CLUSTER, scheduler["spec"], *words[0]),
        operator.build_scheduler_service_spec(CLUSTER, scheduler["service"], *words[0]),
        operator.build_worker_deployment_spec(
            group, "zonal", CLUSTER, "0a1b2c3d4e", worker["spec"], *words[1]
        ),
    ]
    for thing in made:
        thing["metadata"] = thing["metadata"] | {"namespace": meta["namespace"]}
    return objects + made


def named(objects: list[Object], kind: str) -> list[Object]:
    return [thing for thing in objects if thing["kind"] == kind]


def pods_of(objects: list[Object]) -> list[Pod]:
    found = []
    for thing in objects:
        spec = thing.get("spec", {})
        template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
        if template:
            name = f"{thing['kind']} {thing['metadata']['name']}"
            found.append(Pod(name, template["metadata"], template["spec"]))
    return found


def driver_of(objects: list[Object]) -> Pod:
    (driver,) = (pod for pod in pods_of(objects) if pod.role == "driver")
    return driver


def job_of(objects: list[Object]) -> Object:
    (cron,) = named(objects, "CronJob")
    job: Object = cron["spec"]["jobTemplate"]["spec"]
    return job


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)
    elif isinstance(value, str):
        yield value


def test_the_folders_are_these(rendered: dict[str, list[Object]]) -> None:
    assert {file.parent.name for file in PLACE.rglob("kustomization.yaml")} == {*rendered}
    roles = {folder: sorted(pod.role for pod in pods_of(live(rendered[folder]))) for folder in rendered}
    assert roles.pop("dask-operator") == ["driver", "scheduler", "worker"]
    assert roles == {folder: ["driver"] for folder in ("base", *LOCAL)}


# ---------------------------------------------------------------- schemas


@each_folder
@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_passes_strict_validation(
    folder: str, version: str, rendered: dict[str, list[Object]]
) -> None:
    for thing in live(rendered[folder]):
        kubernetes_validate.validate(thing, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_misspelt_field_does_not_pass(version: str, rendered: dict[str, list[Object]]) -> None:
    (cron,) = named(copy.deepcopy(rendered["base"]), "CronJob")
    cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["livenessProb"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="livenessProb"):
        kubernetes_validate.validate(cron, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_secrets_example_is_valid_and_is_the_secret_that_pods_ask_for(
    version: str, rendered: dict[str, list[Object]]
) -> None:
    secret = yaml.safe_load((PLACE / "secret.example.yaml").read_text())
    kubernetes_validate.validate(secret, version, strict=True)
    for folder in OVERLAYS:
        for pod in pods_of(live(rendered[folder])):
            if pod.role != "scheduler":
                (source,) = pod.container["envFrom"]
                name = secret["metadata"]["name"]
                assert source == {"secretRef": {"name": name, "optional": True}}
        assert secret["metadata"]["namespace"] == "zonal"
        assert not named(rendered[folder], "Secret")


def strict(schema: Any) -> Any:
    """The schema as a server takes it that is asked for strict validation."""
    if isinstance(schema, list):
        return [strict(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: strict(inner) for name, inner in schema.items()}
    open_ = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if schema.get("type") == "object" and "properties" in schema and not open_:
        made["additionalProperties"] = False
    return made


@pytest.fixture(scope="session")
def dask_cluster() -> jsonschema.Draft202012Validator:
    folder = resources.files("dask_kubernetes") / "operator" / "deployment" / "helm"
    file = folder / "dask-kubernetes-operator" / "crds" / "daskcluster.yaml"
    (version,) = yaml.safe_load(file.read_text())["spec"]["versions"]
    schema = strict(version["schema"]["openAPIV3Schema"])
    # Every object has these; definitions do not repeat them.
    schema["properties"] |= {
        "apiVersion": {"const": f"kubernetes.dask.org/{version['name']}"},
        "kind": {"const": "DaskCluster"},
        "metadata": {"type": "object"},
    }
    return jsonschema.Draft202012Validator(schema)


def test_the_dask_cluster_passes_the_operators_schema_and_nothing_misspelt_does(
    dask_cluster: jsonschema.Draft202012Validator, rendered: dict[str, list[Object]]
) -> None:
    cluster = cluster_of(rendered["dask-operator"])
    dask_cluster.validate(cluster)
    validate_cluster_name(CLUSTER)
    for way in (("spec",), ("spec", "worker"), ("spec", "worker", "spec", "containers", 0)):
        misspelt = copy.deepcopy(cluster)
        inner: Any = misspelt
        for step in way:
            inner = inner[step]
        inner["idelTimeout"] = 1
        with pytest.raises(jsonschema.ValidationError, match="idelTimeout"):
            dask_cluster.validate(misspelt)


def test_the_bundled_template_is_the_one_of_the_overlay(rendered: dict[str, list[Object]]) -> None:
    template = pods.load_template(None)
    assert pods.manifest(template, CLUSTER, "zonal", image="zonal:0.1.0")["spec"]["worker"]["replicas"]
    (found,) = (
        thing["data"]["daskcluster.yaml"]
        for thing in named(rendered["dask-operator"], "ConfigMap")
        if "daskcluster.yaml" in thing["data"]
    )
    assert found == (PLACE / "dask-operator" / "daskcluster.yaml").read_text()
    assert yaml.safe_load(found) == template
    assert not any(
        "image" in template["spec"][part]["spec"]["containers"][0] for part in ("scheduler", "worker")
    )


# ---------------------------------------------------------------- what names what


@each_folder
def test_whatever_is_named_exists(folder: str, rendered: dict[str, list[Object]]) -> None:
    there = {(thing["kind"], thing["metadata"]["name"]) for thing in rendered[folder]}
    keys = {thing["metadata"]["name"]: {*thing["data"]} for thing in named(rendered[folder], "ConfigMap")}
    wanted, read = set(), set()
    for pod in pods_of(live(rendered[folder])):
        wanted.add(("ServiceAccount", pod.spec["serviceAccountName"]))
        for volume in pod.spec["volumes"]:
            if "configMap" in volume:
                wanted.add(("ConfigMap", volume["configMap"]["name"]))
            if "persistentVolumeClaim" in volume:
                wanted.add(("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]))
        for variable in pod.container.get("env", ()):
            if "configMapKeyRef" in variable.get("valueFrom", {}):
                reference = variable["valueFrom"]["configMapKeyRef"]
                wanted.add(("ConfigMap", reference["name"]))
                read.add((reference["name"], reference["key"]))
    for binding in named(rendered[folder], "RoleBinding"):
        wanted |= {(subject["kind"], subject["name"]) for subject in binding["subjects"]}
        wanted.add((binding["roleRef"]["kind"], binding["roleRef"]["name"]))
        assert {subject["namespace"] for subject in binding["subjects"]} == {"zonal"}
    # An overlay says where the output goes; without one there is nothing to run.
    assert wanted - there == ({("ConfigMap", "zonal-settings")} if folder == "base" else set())
    assert folder == "base" or all(key in keys[name] for name, key in read)
    # And nothing lies there that nobody asks for.
    asked = {"ServiceAccount", "ConfigMap", "PersistentVolumeClaim", "Role"}
    later = {("ServiceAccount", "zonal-dask")} if folder == "base" else set()
    assert {(kind, name) for kind, name in there if kind in asked} - wanted == later


@each_folder
def test_everything_is_in_the_namespace_which_is_restricted(
    folder: str, rendered: dict[str, list[Object]]
) -> None:
    (namespace,) = named(rendered[folder], "Namespace")
    levels = {
        name.split("/")[1]: level
        for name, level in namespace["metadata"]["labels"].items()
        if name.startswith("pod-security.kubernetes.io/")
    }
    assert levels == dict.fromkeys(("enforce", "audit", "warn"), "restricted")
    for thing in live(rendered[folder]):
        if thing is not namespace:
            assert thing["metadata"]["namespace"] == namespace["metadata"]["name"] == "zonal"
        assert thing["metadata"]["labels"]["app.kubernetes.io/name"] == "zonal"


@each_folder
def test_names_and_labels_are_as_long_as_they_may_be(folder: str, rendered: dict[str, list[Object]]) -> None:
    for thing in live(rendered[folder]):
        name = thing["metadata"]["name"]
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)
        assert len(name) <= (52 if thing["kind"] == "CronJob" else 63)
        for pod in pods_of([thing]):
            for label, value in (thing["metadata"]["labels"] | pod.metadata["labels"]).items():
                assert re.fullmatch(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9][-\w.]{0,62}", label)
                assert re.fullmatch(r"([A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?)?", value)
            assert all(isinstance(value, str) for value in pod.metadata["annotations"].values())


@each_folder
def test_volumes_are_mounted_and_mounts_have_volumes(folder: str, rendered: dict[str, list[Object]]) -> None:
    for pod in pods_of(live(rendered[folder])):
        volumes = [volume["name"] for volume in pod.spec["volumes"]]
        mounts = [mount["name"] for mount in pod.container["volumeMounts"]]
        assert sorted(volumes) == sorted(mounts)
        paths = [mount["mountPath"] for mount in pod.container["volumeMounts"]]
        assert len({*paths}) == len(paths)
        assert "/tmp" in paths
        for word in strings(pod.container["args"]):
            for path in re.findall(r"/(?:etc|data|tmp)/[\w./-]*", word):
                assert any(path.startswith(mount) for mount in paths)


@each_folder
def test_variables_are_there_before_they_are_used(folder: str, rendered: dict[str, list[Object]]) -> None:
    for pod in pods_of(live(rendered[folder])):
        before: list[str] = []
        for variable in pod.container.get("env", ()):
            assert {*re.findall(r"\$\((\w+)\)", variable.get("value", ""))} <= {*before}, pod.owner
            before.append(variable["name"])
        assert len({*before}) == len(before)
        assert {*re.findall(r"\$\((\w+)\)", " ".join(pod.container["args"]))} <= {*before}, pod.owner


@each_folder
def test_ports_that_are_named_are_open(folder: str, rendered: dict[str, list[Object]]) -> None:
    objects = live(rendered[folder])
    pods = pods_of(objects)
    for pod in pods:
        ports = {port["name"]: port["containerPort"] for port in pod.container["ports"]}
        probes = [probe for name, probe in pod.container.items() if name.endswith("Probe")]
        assert "livenessProbe" in pod.container
        assert {probe["httpGet"]["port"] for probe in probes} <= {*ports}
        assert int(pod.metadata["annotations"]["prometheus.io/port"]) in ports.values()
        assert pod.metadata["annotations"]["prometheus.io/scrape"] == "true"
    for service in named(objects, "Service"):
        selected = [
            pod for pod in pods if service["spec"]["selector"].items() <= pod.metadata["labels"].items()
        ]
        assert [pod.role for pod in selected] == ["scheduler"]
        ports = {port["name"]: port["containerPort"] for port in selected[0].container["ports"]}
        assert {port["targetPort"]: port["port"] for port in service["spec"]["ports"]} == ports
        assert ports == {"tcp-comm": 8786, "http-dashboard": 8787}


@each_folder
def test_the_network_is_closed_but_for_what_is_needed(folder: str, rendered: dict[str, list[Object]]) -> None:
    (policy,) = named(rendered[folder], "NetworkPolicy")
    spec = policy["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    chosen = spec["podSelector"]["matchLabels"]
    for pod in pods_of(live(rendered[folder])):
        assert chosen.items() <= pod.metadata["labels"].items()
    doors = {}
    for rule in spec["ingress"]:
        (peer,) = rule["from"]
        (labels,) = (selector["matchLabels"] for selector in peer.values())
        doors[" ".join(labels.values())] = {port["port"] for port in rule.get("ports", ())}
    assert doors == {"zonal": set(), "dask-operator": {8786, 8787}, "monitoring": {9464, 8787, 8788}}
    out = [
        (rule.get("to"), sorted({port["port"] for port in rule.get("ports", ())})) for rule in spec["egress"]
    ]
    assert out == [([{"podSelector": {"matchLabels": chosen}}], []), (None, [53]), (None, [443, 6443])]


@each_folder
def test_the_role_allows_the_calls_that_are_made_and_no_other(
    folder: str, rendered: dict[str, list[Object]]
) -> None:
    source = "".join(Path(str(module.__file__)).read_text() for module in (pods, kubeapi))
    kinds = {"pod": "pods", "service": "services", "custom_object": kubeapi.RESOURCE["plural"]}
    calls = {
        (kinds[kind], {"read": "get"}.get(verb, verb))
        for verb, kind in re.findall(r"\.([a-z]+)_namespaced_(\w+)", source)
    }
    groups = {"pods": "", "services": "", "daskclusters": kubeapi.RESOURCE["group"]}
    allowed = [
        (group, resource, verb)
        for role in named(rendered[folder], "Role")
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    ]
    driver = driver_of(rendered[folder])
    if folder in LOCAL:  # nothing is asked of the API
        assert (allowed, driver.spec["automountServiceAccountToken"]) == ([], False)
    else:
        assert sorted(allowed) == sorted((groups[resource], resource, verb) for resource, verb in calls)
        assert driver.spec["automountServiceAccountToken"] is True
    assert not named(rendered[folder], "ClusterRole")
    for account in named(rendered[folder], "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


# ---------------------------------------------------------------- pods


@each_folder
def test_pods_are_as_restricted_as_pod_security_wants(folder: str, rendered: dict[str, list[Object]]) -> None:
    for pod in pods_of(live(rendered[folder])):
        outer, inner = pod.spec["securityContext"], pod.container["securityContext"]
        assert (outer["runAsNonRoot"], outer["seccompProfile"]) == (True, {"type": "RuntimeDefault"})
        assert {outer["runAsUser"], outer["runAsGroup"], outer["fsGroup"]} == {65532}
        assert inner == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & {*pod.spec}
        assert not any("hostPort" in port for port in pod.container["ports"])
        kinds = {kind for volume in pod.spec["volumes"] for kind in volume if kind != "name"}
        assert kinds <= {"emptyDir", "configMap", "persistentVolumeClaim"}
        if pod.role != "driver":
            assert pod.spec["serviceAccountName"] == "zonal-dask"
            assert pod.spec["automountServiceAccountToken"] is False
        # A variable for every service of the namespace would look like the driver's own: ZONAL_...
        assert pod.spec["enableServiceLinks"] is False


def amount(text: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(m|Gi|)", text).groups()  # type: ignore[union-attr]
    return int(number) * {"m": 1e-3, "Gi": GIB, "": 1}[unit]


@each_folder
def test_what_a_pod_may_take_is_what_dask_is_told(folder: str, rendered: dict[str, list[Object]]) -> None:
    for pod in pods_of(live(rendered[folder])):
        requests, limits = (pod.container["resources"][name] for name in ("requests", "limits"))
        assert {*requests} == {*limits} == {"cpu", "memory", "ephemeral-storage"}
        assert requests["memory"] == limits["memory"]
        assert amount(requests["cpu"]) <= amount(limits["cpu"])
        sizes = {volume["emptyDir"]["sizeLimit"] for volume in pod.spec["volumes"] if "emptyDir" in volume}
        assert sizes == {requests["ephemeral-storage"]} == {limits["ephemeral-storage"]}
        told = {
            variable["name"]: variable["valueFrom"]["resourceFieldRef"]
            for variable in pod.container.get("env", ())
            if "resourceFieldRef" in variable.get("valueFrom", {})
        }
        args = dict(word.split("=", 1) for word in pod.container["args"] if "=" in word)
        if pod.role == "worker":
            assert told[args["--nthreads"][2:-1]] == {"resource": "limits.cpu"}
            assert told[args["--memory-limit"][2:-1]] == {"resource": "limits.memory"}
            assert amount(limits["memory"]) >= 2 * GIB * amount(limits["cpu"])
        if pod.role == "driver" and folder in LOCAL:
            assert args["--workers"] == "1"
            assert told[args["--threads"][2:-1]] == {"resource": "limits.cpu"}


def test_workers_have_the_allocator_that_local_ones_have(rendered: dict[str, list[Object]]) -> None:
    (worker,) = (pod for pod in pods_of(live(rendered["dask-operator"])) if pod.role == "worker")
    values = {variable["name"]: variable.get("value") for variable in worker.container["env"]}
    assert values.items() >= local.ALLOCATOR.items()


@each_folder
def test_autoscalers_leave_driver_and_scheduler_alone(folder: str, rendered: dict[str, list[Object]]) -> None:
    for pod in pods_of(live(rendered[folder])):
        kept = pod.metadata["annotations"].get("cluster-autoscaler.kubernetes.io/safe-to-evict") == "false"
        assert kept == (pod.role != "worker")


@each_folder
def test_every_pod_runs_the_image_of_this_version(folder: str, rendered: dict[str, list[Object]]) -> None:
    version = re.search(r'(?m)^version = "(.+)"$', (REPO / "pyproject.toml").read_text())
    for pod in pods_of(live(rendered[folder])):
        assert pod.container["image"] == f"zonal:{version[1]}"  # type: ignore[index]
        assert pod.container["imagePullPolicy"] == "IfNotPresent"


# ---------------------------------------------------------------- command lines


def settings_of(objects: list[Object], **more: str) -> Settings:
    """Parse the driver's words as `zonal` does, with its variables filled in."""
    pod = driver_of(objects)
    given = {"ZONAL_CPUS": "4"} | more
    for thing in named(objects, "ConfigMap"):
        given |= {name: value for name, value in thing["data"].items() if name == "ZONAL_OUTPUT"}
    words = [re.sub(r"\$\((\w+)\)", lambda found: given[found[1]], word) for word in pod.container["args"]]
    assert "command" not in pod.container
    command, *words = words
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    params = commands[command].make_context(command, words).params
    folder, _, workflow = params["workflow"].rpartition("/")
    mounts = {mount["mountPath"]: mount["name"] for mount in pod.container["volumeMounts"]}
    assert mounts[folder] == "workflows"
    if params["cluster_template"]:
        place, _, file = params["cluster_template"].rpartition("/")
        assert (mounts[place], file) == ("cluster", "daskcluster.yaml")
    flags = {name: params[name] for name in Settings.model_fields if params.get(name) is not None}
    settings = load(str(REPO / "workflows" / workflow), flags)
    return settings if params["state_index"] is None else settings.of_state(params["state_index"])


@each_overlay
def test_the_drivers_words_are_words_of_zonal(folder: str, rendered: dict[str, list[Object]]) -> None:
    settings = settings_of(rendered[folder], ZONAL_STATE_INDEX="0")
    pod = driver_of(rendered[folder])
    assert settings.metrics == f"0.0.0.0:{pod.metadata['annotations']['prometheus.io/port']}"
    assert "--json-logs" in pod.container["args"]
    assert settings.cluster == ("local" if folder in LOCAL else "kubernetes")
    assert settings.state == (("AL",) if folder == "all-states" else ("WA",))
    place = "/data" if folder == "single-node" else "s3://example-bucket/zonal"
    assert settings.output == f"{place}/{{state}}-{{year}}"


def test_the_drivers_of_pods_wait_for_some_and_have_the_templates_number(
    rendered: dict[str, list[Object]],
) -> None:
    settings = settings_of(rendered["dask-operator"])
    replicas = pods.load_template(None)["spec"]["worker"]["replicas"]
    assert (settings.workers, settings.min_workers, settings.patience) == (replicas, 2, 900)


def test_the_words_of_scheduler_and_workers_are_words_of_dask(rendered: dict[str, list[Object]]) -> None:
    values = {"DASK_WORKER_NAME": "one", "CPU_LIMIT": "2", "MEMORY_LIMIT": str(4 * GIB)}
    pods = {pod.role: pod for pod in pods_of(live(rendered["dask-operator"]))}
    for role, main in (("scheduler", dask_scheduler.main), ("worker", dask_worker.main)):
        container = pods[role].container
        assert container["command"] == ["dask", role]
        words = [re.sub(r"\$\((\w+)\)", lambda found: values[found[1]], word) for word in container["args"]]
        params = main.make_context(role, words).params
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert params["dashboard_address"] == f":{ports['http-dashboard']}"
        if role == "scheduler":
            assert params["port"] == str(ports["tcp-comm"])
        else:
            assert (params["preload"], params["scheduler"]) == (("zonal.preload",), None)
            assert params["local_directory"].startswith("/tmp/")


# ---------------------------------------------------------------- jobs


@each_folder
def test_the_schedule_is_monthly_and_its_time_zone_is_known(
    folder: str, rendered: dict[str, list[Object]]
) -> None:
    (cron,) = named(rendered[folder], "CronJob")
    spec = cron["spec"]
    minute, hour, day, month, weekday = spec["schedule"].split(" ")
    assert (int(minute) in range(60), int(hour) in range(24), int(day) in range(1, 29)) == (True,) * 3
    assert (month, weekday) == ("*", "*")
    assert ZoneInfo(spec["timeZone"]).key == "Etc/UTC"
    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["startingDeadlineSeconds"] >= 100  # under 10 the controller may miss it


@each_folder
def test_a_job_ends_and_is_not_retried_in_vain(folder: str, rendered: dict[str, list[Object]]) -> None:
    job = job_of(rendered[folder])
    pod = driver_of(rendered[folder])
    indexed = folder == "all-states"
    assert (pod.spec["restartPolicy"], job["podReplacementPolicy"]) == ("Never", "Failed")
    assert pod.spec["terminationGracePeriodSeconds"] == 60
    assert {"activeDeadlineSeconds", "ttlSecondsAfterFinished"} <= {*job}
    assert ("backoffLimitPerIndex" if indexed else "backoffLimit") in job
    drained, hopeless = job["podFailurePolicy"]["rules"]
    assert drained == {
        "action": "Ignore",
        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
    }
    assert hopeless == {
        "action": "FailIndex" if indexed else "FailJob",
        "onExitCodes": {
            "containerName": pod.container["name"],
            "operator": "In",
            "values": NEVER_RETRIED,
        },
    }
    owner = {variable["name"]: variable.get("value") for variable in pod.container["env"]}["ZONAL_OWNER"]
    assert owner == ("$(ZONAL_JOB)-$(ZONAL_STATE_INDEX)" if indexed else "$(ZONAL_JOB)")


@each_folder
def test_the_driver_is_told_who_it_is(folder: str, rendered: dict[str, list[Object]]) -> None:
    told = {
        variable["name"]: variable["valueFrom"]["fieldRef"]["fieldPath"]
        for variable in driver_of(rendered[folder]).container["env"]
        if "fieldRef" in variable.get("valueFrom", {})
    }
    index = {"ZONAL_STATE_INDEX": "metadata.annotations['batch.kubernetes.io/job-completion-index']"}
    assert told == {
        "ZONAL_POD": "metadata.name",
        "ZONAL_NAMESPACE": "metadata.namespace",
        "ZONAL_JOB": "metadata.labels['batch.kubernetes.io/job-name']",
        "ZONAL_JOB_UID": "metadata.labels['batch.kubernetes.io/controller-uid']",
    } | (index if folder == "all-states" else {})


def test_each_index_is_a_state_and_each_state_has_one(rendered: dict[str, list[Object]]) -> None:
    job = job_of(rendered["all-states"])
    assert job["completionMode"] == "Indexed"
    assert job["maxFailedIndexes"] <= job["completions"]
    assert job["parallelism"] <= job["completions"]
    assert "backoffLimit" not in job
    found = [
        settings_of(rendered["all-states"], ZONAL_STATE_INDEX=str(index)).state
        for index in range(job["completions"])
    ]
    assert [state for (state,) in found] == list(load("all-states").state)
    with pytest.raises(UsageError):
        settings_of(rendered["all-states"], ZONAL_STATE_INDEX=str(job["completions"]))


# ---------------------------------------------------------------- workflows


def test_the_file_that_a_pod_runs_is_the_file_in_workflows(rendered: dict[str, list[Object]]) -> None:
    files = {
        file.name: file.read_text()
        for file in (REPO / "workflows").glob("*.yaml")
        if file.name != "kustomization.yaml"
    }
    (alone,) = render(REPO / "workflows")
    assert alone["data"] == files
    for objects in rendered.values():
        pod = driver_of(objects)
        (name,) = (
            volume["configMap"]["name"] for volume in pod.spec["volumes"] if volume["name"] == "workflows"
        )
        (found,) = (thing for thing in named(objects, "ConfigMap") if thing["metadata"]["name"] == name)
        assert found["data"] == files


def test_the_scheduler_answers_the_operator_how_long_it_has_been_idle() -> None:
    """Where it does not, the operator's check sets a time of five minutes, after which it ends itself."""
    container = pods.load_template(None)["spec"]["scheduler"]["spec"]["containers"][0]
    (routes,) = [one["value"] for one in container["env"] if one["name"].endswith("SCHEDULER__HTTP__ROUTES")]
    modules = ast.literal_eval(routes)  # as Dask reads it
    assert {"distributed.http.scheduler.api", "distributed.http.health"} <= {*modules}
    assert all(hasattr(importlib.import_module(module), "routes") for module in modules)
