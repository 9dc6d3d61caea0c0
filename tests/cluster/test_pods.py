"""A template becomes the `DaskCluster` of one run."""

from __future__ import annotations

from typing import Any

import pytest

from zonal.cluster import pods
from zonal.errors import InputError

OWNER = {"apiVersion": "batch/v1", "kind": "Job", "name": "zonal-1", "uid": "u-1"}


def template(**image: str) -> dict[str, Any]:
    return {
        "apiVersion": "kubernetes.dask.org/v1",
        "kind": "DaskCluster",
        "metadata": {"labels": {"a": "b"}},
        "spec": {
            "scheduler": {
                "spec": {"containers": [{"name": "scheduler", **image}]},
                "service": {"type": "ClusterIP", "selector": {"more": "of it"}},
            },
            "worker": {
                "replicas": 3,
                "spec": {"containers": [{"name": "worker"}, {"name": "proxy", "image": "proxy:1"}]},
            },
        },
    }


def filled(given: dict[str, Any], **more: Any) -> dict[str, Any]:
    return pods.manifest(given, "zonal-x", "ns", **more)


def test_a_template_is_filled_in_and_stays_what_it_is() -> None:
    given = template()
    made = filled(given, image="zonal:1", workers=8, owner=OWNER)
    assert given == template()
    assert made["metadata"] == {
        "labels": {"a": "b"}, "name": "zonal-x", "namespace": "ns", "ownerReferences": [OWNER],
    }  # fmt: skip
    spec = made["spec"]
    assert spec["worker"]["replicas"] == 8
    selector = {"more": "of it", "dask.org/cluster-name": "zonal-x", "dask.org/component": "scheduler"}
    assert spec["scheduler"]["service"]["selector"] == selector
    assert [c["image"] for c in spec["worker"]["spec"]["containers"]] == ["zonal:1", "proxy:1"]


def test_without_a_number_and_an_owner_the_template_says_how_many_and_there_is_none() -> None:
    made = filled(template(), image="zonal:1")
    assert made["spec"]["worker"]["replicas"] == 3
    assert "ownerReferences" not in made["metadata"]


def test_another_image_than_the_drivers_is_refused_and_outside_of_a_pod_one_is_needed() -> None:
    with pytest.raises(InputError, match=r"image of the scheduler is other:2, the driver's is zonal:1"):
        filled(template(image="other:2"), image="zonal:1")
    with pytest.raises(InputError, match="no image for the worker"):
        filled(template(image="other:2"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "DaskJob"}, "expected a DaskCluster"),
        ({"spec": []}, "spec is no mapping"),
        ({"spec": {}}, r"spec\.scheduler\.spec\.containers is no list"),
    ],
)
def test_what_is_no_daskcluster_is_said(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        filled(template() | change, image="zonal:1")


def test_a_driver_outside_of_a_job_owns_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ZONAL_NAMESPACE", "ZONAL_POD", "ZONAL_JOB", "ZONAL_JOB_UID"):
        monkeypatch.delenv(name, raising=False)
    assert pods.DriverPod.here() == pods.DriverPod()
    assert pods.DriverPod.here().owner is None
    monkeypatch.setenv("ZONAL_JOB", "zonal-1")
    monkeypatch.setenv("ZONAL_JOB_UID", "u-1")
    assert pods.DriverPod.here().owner == OWNER
