"""The data catalog: names become typed sources, and public addresses become mirrored ones.

Knows the layout of `data_catalog.yaml`, which prefixes a mirror answers for and whose
options open a URL. Must not open any of the data, nor know what is done with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import (
    ValidationError,
)

from zonal.config.sources import RasterSource, Source, ZoneSource
from zonal.config.workflows import bundled
from zonal.config.yaml_file import read_mapping, validation_sentence
from zonal.credentials import scrub_urls
from zonal.errors import InputError, UsageError
from zonal.text import did_you_mean, shown

_ENTRY_KEYS = ("data_type", "driver", "uri", "storage_options", "metadata")
_ALIASES = {"s3a": "s3", "gcs": "gs", "abfs": "az", "abfss": "az", "local": "file"}

# Who asks and where. A source that is public stays anonymous and at its own address.
_IDENTITY = frozenset(
    {"anon", "key", "secret", "token", "profile", "session", "username", "password", "endpoint_url"}
    | {"client_kwargs", "requester_pays"}
)


_Kind = type[RasterSource] | type[ZoneSource]
_KINDS: dict[str, _Kind] = {"RasterTiles": RasterSource, "GeoDataFrame": ZoneSource}


@dataclass(frozen=True)
class Catalog:
    """Sources by name, the prefixes that a mirror answers for, and the user's storage options.

    Made by `Catalog.load`. Iterating gives the sources in the order of the file.
    """

    file: str
    mirror: str | None = field(repr=False)
    _sources: Mapping[str, Source] = field(repr=False)
    _services: Mapping[str, tuple[str, ...]] = field(repr=False)
    _options: Mapping[str, Mapping[str, Any]] = field(repr=False)

    @classmethod
    def load(
        cls,
        path: str | None = None,
        mirror: str | None = None,
        storage_options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Catalog:
        """Read and check a catalog file.

        Parameters
        ----------
        path : str, optional
            None for the bundled catalog. A relative `uri` in the file counts from the file's folder. A file
            without `services` has those of the bundled catalog.
        mirror : str, optional
            Folder or URL that answers for the services; a relative folder counts from the working directory.
        storage_options : mapping, optional
            The user's fsspec options by protocol, ``{"s3": {"endpoint_url": ...}}``.

        Raises
        ------
        InputError
            The file is missing or wrong; the sentence names file, source and key.
        """
        file = Path(path) if path is not None else bundled("data_catalog.yaml")
        what = f"catalog {path}" if path is not None else "the bundled catalog"
        content = read_mapping(file, what)
        given = content.pop("services", None)
        if given is None and path is not None:
            given = read_mapping(bundled("data_catalog.yaml"), "the bundled catalog").get("services")
        sources = {name: _source(name, entry, file.parent, what) for name, entry in content.items()}
        return cls(str(file), _base(mirror), sources, _services(given, what), dict(storage_options or {}))

    def __iter__(self) -> Iterator[Source]:
        return iter(self._sources.values())

    def __len__(self) -> int:
        return len(self._sources)

    def __contains__(self, name: object) -> bool:
        return name in self._sources

    def names(self) -> tuple[str, ...]:
        """Return the names of all sources, in the order of the file."""
        return tuple(self._sources)

    def raster(self, name: str) -> RasterSource:
        """Return the raster source of that name; `UsageError` where there is none."""
        source = self._get(name, RasterSource)
        if not isinstance(source, RasterSource):
            raise UsageError(f"raster {name!r} is a zone source of the catalog, not a raster")
        return source

    def zones(self, name: str) -> ZoneSource:
        """Return the zone source of that name; `UsageError` where there is none."""
        source = self._get(name, ZoneSource)
        if not isinstance(source, ZoneSource):
            raise UsageError(f"zones {name!r} is a raster source of the catalog, not a zone source")
        return source

    def _get(self, name: str, kind: _Kind) -> Source:
        if name in self._sources:
            return self._sources[name]
        word = "raster" if kind is RasterSource else "zones"
        names = [other for other, source in self._sources.items() if isinstance(source, kind)]
        raise UsageError(
            f"{word} {name!r}: neither a file nor in the catalog, which has {', '.join(names) or 'none'}"
            f"{did_you_mean(name, names)}"
        )

    # -------------------------------------------------------------- addresses

    def resolve(self, url: str) -> str:
        """Return where `url` is read: under the mirror where it answers for it, else unchanged.

        Resolving twice changes nothing.

        Raises
        ------
        InputError
            The URL would leave the mirror's folder.
        """
        rest = None if self.mirror is None or self._is_mirrored(url) else self._rest(url)
        if rest is None:
            return url
        rest = rest.lstrip("/")
        if ".." in re.split(r"[/\\]", rest):
            raise InputError(scrub_urls(f"{url}: '..' would lead out of the mirror {self.mirror}"))
        return f"{self.mirror}/{rest}" if self.mirror != "/" else f"/{rest}"

    def storage_options(self, url: str, source: Source | None = None) -> dict[str, Any]:
        """Return fsspec's options for a URL.

        Parameters
        ----------
        url : str
            As listed or as resolved.
        source : RasterSource or ZoneSource, optional
            Where the URL comes from; None for the source, if any, that lies on the same service.

        Returns
        -------
        dict
            The source's own options where they are written for this protocol and the mirror has not moved the
            URL; over them the user's for the protocol. What neither says, the store's client takes from the
            environment (``AWS_ENDPOINT_URL``, ``AWS_ACCESS_KEY_ID``, ...). A source that is anonymous keeps
            its address and stays so: the user's credentials and endpoint are meant for private stores.
        """
        resolved = self.resolve(url)
        protocol = _protocol(resolved)
        own: Mapping[str, Any] = {}
        if not self._is_mirrored(resolved):
            source = source or self._neighbour(resolved)
            if source and _protocol(source.uri) == protocol:
                own = source.storage_options
        user: dict[str, Any] = {}
        for name, options in self._options.items():
            if _ALIASES.get(name, name) == protocol:
                user = _merged(user, options)
        if own.get("anon"):
            user = {name: value for name, value in user.items() if name not in _IDENTITY}
        if protocol == "s3" and "." in resolved.split("://")[1].split("/")[0]:
            # No certificate covers a bucket with dots as a host name.
            own = _merged({"config_kwargs": {"s3": {"addressing_style": "path"}}}, own)
        return _merged(own, user)

    def _rest(self, url: str) -> str | None:
        for prefix in (prefix for prefixes in self._services.values() for prefix in prefixes):
            if url.startswith(prefix):
                return url[len(prefix) :]
        return None

    def _is_mirrored(self, url: str) -> bool:
        return self.mirror is not None and url.startswith(self.mirror.rstrip("/") + "/")

    def _neighbour(self, url: str) -> Source | None:
        """Return the first source on the same service and protocol as `url`."""
        for prefixes in self._services.values():
            if url.startswith(prefixes):
                near = (source for source in self if source.uri.startswith(prefixes))
                return next((source for source in near if _protocol(source.uri) == _protocol(url)), None)
        return None


def _source(name: str, entry: object, folder: Path, what: str) -> Source:
    """Check one entry of the file; its metadata become fields of the source."""
    where = f"{what}: source {name!r}"
    if not isinstance(entry, dict):
        raise InputError(f"{where}: expected the keys {', '.join(_ENTRY_KEYS)}")
    for key in entry:
        if key not in _ENTRY_KEYS:
            raise InputError(f"{where}: unknown key {str(key)!r}{did_you_mean(str(key), _ENTRY_KEYS)}")
    kind = shown(entry.get("data_type")).strip("'")
    model = _KINDS.get(kind)
    if model is None:
        expected = f"expected {' or '.join(_KINDS)}{did_you_mean(kind, _KINDS)}"
        raise InputError(f"{where}: data_type {kind!r}: {expected}")
    metadata = entry.get("metadata") or {}
    allowed = [key for key in model.model_fields if key != "name" and key not in _ENTRY_KEYS]
    if not isinstance(metadata, dict):
        raise InputError(f"{where}: metadata: expected some of {', '.join(allowed)}")
    for key in metadata:
        if key not in allowed:
            raise InputError(
                f"{where}: unknown key {str(key)!r} in metadata{did_you_mean(str(key), allowed)}"
            )
    values = {key: value for key, value in entry.items() if key != "metadata" and value is not None}
    uri = values.get("uri")
    if isinstance(uri, str) and "://" not in uri and not Path(uri).is_absolute():
        values["uri"] = str((folder / uri).absolute())
    try:
        return model(name=name, **values, **metadata)
    except ValidationError as exc:
        raise InputError(f"{where}: {validation_sentence(exc, allowed)}") from None


def _services(given: object, what: str) -> dict[str, tuple[str, ...]]:
    """Check the service prefixes; each ends with one slash."""
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise InputError(f"{what}: services: expected names with lists of URL prefixes")
    services: dict[str, tuple[str, ...]] = {}
    for name, prefixes in given.items():
        listed = [prefixes] if isinstance(prefixes, str) else prefixes
        if not isinstance(listed, list) or not all(isinstance(url, str) and "://" in url for url in listed):
            raise InputError(
                f"{what}: services: {name}: expected a list of URL prefixes such as https://host/"
            )
        services[str(name)] = tuple(url.rstrip("/") + "/" for url in listed)
    return services


def _base(mirror: str | None) -> str | None:
    """Return the mirror without a slash at its end; a folder as an absolute path, which workers share."""
    if not mirror or not mirror.strip():
        return None
    base = mirror.strip()
    if "://" not in base:
        base = str(Path(base).expanduser().absolute())
    return base.rstrip("/") or "/"


def _protocol(url: str) -> str:
    """Return fsspec's name of the protocol of `url`, one name for all spellings."""
    protocol = url.split("://")[0].lower() if "://" in url else "file"
    return _ALIASES.get(protocol, protocol)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `over` laid on it, mapping by mapping."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = (
            _merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
        )
    return merged
