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
from typing import Any, NamedTuple

from zonal.errors import InputError, StoreError, UsageError, first_line

RESOURCE = {"group": "kubernetes.dask.org", "version": "v1", "plural": "daskclusters"}

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""What every pod is given to speak with the API."""

ANSWER_SECONDS = 10.0
"""For one answer of the API."""

RETRY_SECONDS = 30.0
"""During which calls are repeated where it does not answer, or is not well."""

POLL_SECONDS = 1.0
"""Between two looks at what comes up."""


class Clock(NamedTuple):
    """By which waits are measured, and that passes them."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


CLOCK = Clock()


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
    """The two parts of Kubernetes' client that are needed, and what its errors mean."""

    core: Any
    objects: Any
    namespace: str
    clock: Clock = CLOCK

    @classmethod
    def configured(cls, clock: Clock = CLOCK) -> Api:
        """Configure it: by $KUBECONFIG or ~/.kube/config where there is one, else as a pod's."""
        from kubernetes import client, config

        configuration = client.Configuration()
        # Retries are `call`'s, which knows when to stop.
        configuration.retries = False
        namespace = "default"
        try:
            if os.environ.get("KUBECONFIG") or Path("~/.kube/config").expanduser().exists():
                config.load_kube_config(client_configuration=configuration)
                namespace = config.list_kube_config_contexts()[1]["context"].get("namespace") or namespace
            else:
                config.load_incluster_config(client_configuration=configuration)
                with contextlib.suppress(OSError):
                    namespace = (SERVICE_ACCOUNT / "namespace").read_text().strip() or namespace
        # Whatever is in the file, the client says it in its own words and classes.
        except Exception as error:
            file = os.environ.get("KUBECONFIG", "")
            raise InputError(
                f"cluster kubernetes: no API is configured{file and f' by {file}'} ({first_line(error)}); "
                "run inside a pod, or set KUBECONFIG"
            ) from None
        connection = client.ApiClient(configuration)
        return cls(client.CoreV1Api(connection), client.CustomObjectsApi(connection), namespace, clock)

    def call(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> dict[str, Any]:
        """Call the API; again, for a while, where it does not answer or is not well.

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

        until = self.clock.now() + RETRY_SECONDS
        while True:
            try:
                answer = function(
                    *arguments, **options, _request_timeout=ANSWER_SECONDS, _preload_content=False
                )
                return dict(json.loads(answer.data))
            except ApiException as error:
                temporary = error.status in (0, 429) or error.status >= 500
                if not temporary:
                    raise InputError(f"the Kubernetes API refuses: {_message(error)}") from error
                cause = _message(error)
            # ValueError: what came is no JSON.
            except (HTTPError, ValueError) as error:
                cause = first_line(error)
            if self.clock.now() > until:
                raise StoreError(f"the Kubernetes API does not answer: {cause}")
            self.clock.sleep(POLL_SECONDS)

    def get(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> dict[str, Any] | None:
        """Call the API; None where there is no such object."""
        try:
            return self.call(function, *arguments, **options)
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
            # Its name is this run's alone: where it is there already, an answer was lost.
            if _status(error) != 409:
                raise

    def delete(self, name: str, namespace: str, *, sure: bool) -> str | None:
        """Delete a cluster; one that may still come into being (not `sure`) is waited for, a while.

        Returns
        -------
        str or None
            Why it could not be.
        """
        until = self.clock.now() + ANSWER_SECONDS
        try:
            while self.get(
                self.objects.delete_namespaced_custom_object, **RESOURCE, namespace=namespace, name=name
            ) is None:  # fmt: skip
                if sure or self.clock.now() > until:
                    break
                self.clock.sleep(POLL_SECONDS)
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
