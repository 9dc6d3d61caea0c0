"""Workflow files and flags become `Settings`; the files that come with zonal are found here.

Knows where bundled files lie and how YAML spells a key; knows neither the
catalog's content nor what the settings do.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from zonal.config.settings import Settings, of_other_clusters, settings_error
from zonal.config.yaml_file import read_mapping
from zonal.errors import InputError, UsageError
from zonal.text import did_you_mean

SECTIONS = ("pca", "evaluate")
"""Settings that are mappings of settings."""


def bundled(name: str) -> Path:
    """Return where a bundled file lies, in an installed wheel or in a checkout.

    Parameters
    ----------
    name : str
        ``"data_catalog.yaml"`` or ``"workflows/washington-2020.yaml"``.

    Raises
    ------
    InputError
        It is in neither place.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_data", package.parent):
        if (folder / name).exists():
            return folder / name
    raise InputError(f"{name} is not bundled with this installation of zonal")


def workflow_names() -> tuple[str, ...]:
    """Return the names of the bundled workflows, in alphabetical order."""
    files = bundled("workflows").glob("*.yaml")
    return tuple(sorted(file.stem for file in files if file.name != "kustomization.yaml"))


def _workflow_file(workflow: str) -> Path:
    path = Path(workflow)
    if path.suffix in (".yaml", ".yml") or len(path.parts) != 1:
        return path
    names = workflow_names()
    if workflow in names:
        return bundled(f"workflows/{workflow}.yaml")
    raise UsageError(
        f"workflow {workflow!r}: not a YAML file and no bundled workflow ({', '.join(names)})"
        f"{did_you_mean(workflow, names)}"
    )


def _spelt(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Keys with ``_`` for ``-``, in sections too; what is null counts as not given."""
    spelt: dict[str, Any] = {}
    for key, value in values.items():
        name = key if key in Settings.model_fields else key.replace("-", "_")
        if name in spelt:
            raise UsageError(f"{where}: the key {name!r} comes twice")
        if name in SECTIONS and isinstance(value, dict):
            value = {str(inner).replace("-", "_"): item for inner, item in value.items() if item is not None}
        if value is not None or name not in Settings.model_fields:
            spelt[name] = value
    return spelt


def load(workflow: str | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read a workflow, lay the flags over it, and check the result.

    Parameters
    ----------
    workflow : str, optional
        A YAML file, or the name of a bundled workflow (``"washington-2020"``). Its keys are the fields of
        `Settings`, written with ``-`` or ``_``; its relative paths count from the working directory.
    overrides : mapping, optional
        Fields of `Settings` that win over the workflow; those that are None or an empty list count as not
        given.

    Returns
    -------
    Settings
        `mirror` comes from the environment (``ZONAL_MIRROR``) where neither names one.

    Raises
    ------
    InputError
        The file is missing, unreadable, or not a YAML mapping.
    UsageError
        An unknown workflow, key or value; the message is one sentence and names the nearest valid word.
    """
    values: dict[str, Any] = {}
    where = None
    if workflow is not None:
        file = _workflow_file(workflow)
        where = f"workflow {workflow}"
        values = _spelt(read_mapping(file, where), where)
        _check(values, where)
    flags = {
        name: value for name, value in _spelt(overrides or {}, "settings").items() if value not in ([], ())
    }
    if "cluster" in flags:  # the workflow sized another that is not wanted now
        others = of_other_clusters(flags["cluster"])
        values = {name: value for name, value in values.items() if name not in others}
    values |= flags
    return _check(values, None)


def _check(values: Mapping[str, Any], where: str | None) -> Settings:
    try:
        return Settings(**values)
    except ValidationError as exc:
        raise settings_error(exc, where) from None
