"""The Kubernetes API: how it is reached, and what its answers and refusals mean.

Knows the client's configuration, retries and HTTP codes, and the few calls on a `DaskCluster`;
knows nothing of what is in one.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from zonal.errors import InputError, StoreError, UsageError, first_line

RESOURCE = {"group": "kubernetes.dask.org", "version": "v1", "plural": "daskclusters"}

OWN = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""What every pod is given to speak with the API."""

ANSWER = 10.0
"""Seconds for one answer of the API."""

INSIST = 30.0
"""Seconds that it is insisted on where it does not answer, or is not well."""

LOOK = 1.0
"""Seconds between two looks at what comes up."""


def require() -> None:
    """Find out, before there is anything to lose, whether the client of Kubernetes is installed.

    Raises
    ------
    UsageError
        With the words that install it.
    """
    if find_spec("kubernetes") is None:
        raise UsageError(
            "cluster kubernetes: the client of Kubernetes is not installed; pip install 'zonal[kubernetes]'"
        )


@dataclass(frozen=True)
class Api:
    """The two faces of Kubernetes' client that are needed, and what its errors mean."""

    core: Any
    objects: Any
    namespace: str

    @classmethod
    def reached(cls) -> Api:
        """Configure it: by $KUBECONFIG or ~/.kube/config where there is one, else as a pod's."""
        from kubernetes import client, config

        made = client.Configuration()
        made.retries = False  # they are `call`'s, which knows when to stop
        namespace = "default"
        try:
            if os.environ.get("KUBECONFIG") or Path("~/.kube/config").expanduser().exists():
                config.load_kube_config(client_configuration=made)
                namespace = config.list_kube_config_contexts()[1]["context"].get("namespace") or namespace
            else:
                config.load_incluster_config(client_configuration=made)
                with contextlib.suppress(OSError):
                    namespace = (OWN / "namespace").read_text().strip() or namespace
        except Exception as error:  # whatever is in the file, in the client's words
            given = os.environ.get("KUBECONFIG", "")
            raise InputError(
                f"cluster kubernetes: no API is configured{given and f' by {given}'} ({first_line(error)}); "
                "run inside a pod, or set KUBECONFIG"
            ) from None
        face = client.ApiClient(made)
        return cls(client.CoreV1Api(face), client.CustomObjectsApi(face), namespace)

    def call(self, function: Callable[..., Any], *words: Any, **more: Any) -> dict[str, Any]:
        """Call the API; insist for a while where it does not answer or is not well.

        What it says is taken as the JSON that it is: the client's own models know one version of Kubernetes.

        Raises
        ------
        InputError
            If it answers, and refuses.
        StoreError
            If it does not answer.
        """
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        until = time.monotonic() + INSIST
        while True:
            try:
                answer = function(*words, **more, _request_timeout=ANSWER, _preload_content=False)
                return dict(json.loads(answer.data))
            except ApiException as error:
                passing = error.status in (0, 429) or error.status >= 500
                if not passing:
                    raise InputError(f"the Kubernetes API refuses: {_message(error)}") from error
                cause = _message(error)
            except (HTTPError, ValueError) as error:  # or what came is no JSON
                cause = first_line(error)
            if time.monotonic() > until:
                raise StoreError(f"the Kubernetes API does not answer: {cause}")
            time.sleep(LOOK)

    def found(self, function: Callable[..., Any], *words: Any, **more: Any) -> dict[str, Any] | None:
        """Call the API; None where there is no such object."""
        try:
            return self.call(function, *words, **more)
        except InputError as error:
            if _status(error) == 404:
                return None
            raise

    def create(self, body: Mapping[str, Any], namespace: str) -> None:
        """Create a cluster; a misspelt field is an error, not left out."""
        try:
            self.call(
                self.objects.create_namespaced_custom_object,
                **RESOURCE, namespace=namespace, body=body, field_validation="Strict",
            )  # fmt: skip
        except InputError as error:
            if _status(error) == 404:
                raise InputError(
                    "the Kubernetes API knows no DaskCluster; install the operator: "
                    "https://kubernetes.dask.org/en/latest/installing.html"
                ) from error
            if _status(error) != 409:  # its name is ours alone: an answer was lost, and it is there
                raise

    def delete(self, name: str, namespace: str, *, sure: bool) -> str | None:
        """Delete a cluster; one that may still come into being (not `sure`) is waited for, a while.

        Returns
        -------
        str or None
            Why it could not be.
        """
        until = time.monotonic() + ANSWER
        try:
            while self.found(
                self.objects.delete_namespaced_custom_object, **RESOURCE, namespace=namespace, name=name
            ) is None:  # fmt: skip
                if sure or time.monotonic() > until:
                    break
                time.sleep(LOOK)
        except (InputError, StoreError) as error:
            return f"could not be deleted ({error}); its idleTimeout ends it"
        return None


def _status(error: InputError) -> int | None:
    """Of the API's answer that is behind an error."""
    return getattr(error.__cause__, "status", None)


def _message(error: Any) -> str:
    """Say a refusal in the API's own words."""
    with contextlib.suppress(ValueError, TypeError, AttributeError):
        return str(json.loads(error.body)["message"]).split("\n")[0].rstrip(".")
    return f"{error.status} {error.reason}"
