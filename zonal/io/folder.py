"""One folder of files on any store: whole writes, JSON and the lock.

Knows paths and bytes; knows nothing of what the files hold. A file appears
under its name complete or not at all.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec

from zonal.credentials import scrub_urls, secrets
from zonal.errors import InputError, LockedError, StoreError, ZonalError
from zonal.io import clients
from zonal.io.ranges import Blob

LOCK = "lock.json"

_SESSION = uuid.uuid4().hex
"""Tells this process from an ended one of the same host and number (a container that started again)."""


@dataclass(frozen=True)
class Folder:
    """A folder on a disk or an object store, as any fsspec URL.

    Parameters
    ----------
    url : str
        Path or URL of the folder; it need not exist yet.
    options : mapping
        fsspec storage options; never printed.
    """

    url: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def _resolved(self) -> tuple[Any, str]:
        try:
            fs, root = fsspec.core.url_to_fs(self.url, **self.options)
        except (ValueError, ImportError, TypeError) as error:
            cause = self._hide(clients.explain(error))
        else:
            return fs, str(root).rstrip("/")
        # Outside the handler: the original may quote the options.
        raise InputError(f"{scrub_urls(self.url)}: cannot be opened: {cause}")

    def path(self, name: str = "") -> str:
        """Path of a file inside, as `filesystem` takes it."""
        root = self._resolved()[1]
        return f"{root}/{name}" if name else root

    @property
    def filesystem(self) -> Any:
        """The fsspec file system (instances are cached by fsspec)."""
        return self._resolved()[0]

    @property
    def local(self) -> bool:
        """Whether the folder is on a disk of this machine."""
        return "file" in _protocols(self.filesystem)

    def sub(self, name: str) -> Folder:
        """Return a folder inside this one."""
        return Folder(f"{self.url.rstrip('/')}/{name}", self.options)

    def shown(self, name: str = "") -> str:
        """Name a file inside as the user would."""
        return f"{self.url.rstrip('/')}/{name}" if name else self.url

    def blob(self, name: str) -> Blob:
        """Return the bytes of a file inside, to be read by ranges."""
        return Blob(self.shown(name), self.options)

    def exists(self, name: str = "") -> bool:
        """Whether a file is there; a store's own error is not taken for absence."""
        fs = self.filesystem
        fs.invalidate_cache(self.path())
        with self._effect("read"):
            return bool(fs.exists(self.path(name)))

    def names(self, sub: str = "") -> list[str]:
        """File names inside, or inside a folder inside, sorted; empty where there is none."""
        fs = self.filesystem
        fs.invalidate_cache(self.path(sub))
        try:
            with self._effect("read"):
                found = fs.ls(self.path(sub), detail=False)
        except FileNotFoundError:
            return []
        return sorted(str(path).rstrip("/").rsplit("/", 1)[-1] for path in found)

    def below(self) -> list[str]:
        """Files of the folder and of all folders inside, by path from here."""
        root = self.path()
        with self._effect("read"):
            return sorted(str(path)[len(root) :].lstrip("/") for path in self.filesystem.find(root))

    def read(self, name: str) -> bytes:
        """Read a whole file."""
        with self._effect("read"):
            return bytes(self.filesystem.cat_file(self.path(name)))

    def read_json(self, name: str) -> dict[str, Any] | None:
        """Read a JSON object; None where there is no such file.

        Raises
        ------
        InputError
            If the file is not JSON.
        """
        try:
            data = self.read(name)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            value = json.loads(data)
        except ValueError as error:
            raise InputError(f"{self.shown(name)} is not JSON ({error}); is it a folder of zonal?") from None
        if not isinstance(value, dict):
            raise InputError(f"{self.shown(name)} is not a JSON object; is it a folder of zonal?")
        return value

    @contextlib.contextmanager
    def create(self, name: str) -> Iterator[Path]:
        """Give a local path to write to; on leaving without error the file appears as `name`, whole.

        On a disk the path lies beside the final one and is renamed onto it;
        for a store it is a temporary file, put there in one upload.
        """
        target = self.path(name)
        if self.local:
            final = Path(target)
            with _writable(self.shown()):
                final.parent.mkdir(parents=True, exist_ok=True)
            draft = final.with_name(f".{final.name}.{uuid.uuid4().hex}.tmp")
            try:
                with _writable(self.shown()):
                    yield draft
                with draft.open("rb+") as file:
                    os.fsync(file.fileno())
                draft.replace(final)
            finally:
                draft.unlink(missing_ok=True)
            return
        with tempfile.TemporaryDirectory(prefix="zonal-") as scratch:
            draft = Path(scratch) / "draft"
            yield draft
            with self._effect("write to"):
                self.filesystem.put_file(str(draft), target)

    def write(self, name: str, data: bytes) -> None:
        """Write a whole file."""
        with self.create(name) as draft:
            draft.write_bytes(data)

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a JSON object, keys in the order given."""
        self.write(name, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())

    def copy(self, name: str, target: str) -> None:
        """Copy a file inside the folder, whole; on a disk as a second name of the same bytes."""
        if self.local:
            source, final = Path(self.path(name)), Path(self.path(target))
            with _writable(self.shown()):
                final.parent.mkdir(parents=True, exist_ok=True)
            try:
                final.hardlink_to(source)
            except OSError:  # a file system without links
                with self.create(target) as draft:
                    shutil.copyfile(source, draft)
        else:
            with self._effect("write to"):
                self.filesystem.cp_file(self.path(name), self.path(target))

    def remove(self, name: str) -> None:
        """Remove a file or a folder with all it holds; nothing happens where there is none."""
        if self.local:
            path = Path(self.path(name))
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with _writable(self.shown()):
                    path.unlink(missing_ok=True)
            return
        with contextlib.suppress(FileNotFoundError), self._effect("remove from"):
            self.filesystem.rm(self.path(name), recursive=True)
        self.filesystem.invalidate_cache(self.path())

    def prune(self, name: str) -> None:
        """Remove an empty folder inside, and this one if that leaves it empty (stores have none)."""
        if self.local:
            with contextlib.suppress(OSError):
                Path(self.path(name)).rmdir()
                Path(self.path()).rmdir()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder's lock.

        Raises
        ------
        LockedError
            If another run holds it, of a live process or of this one.
        """
        owner = {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "session": _SESSION,
            "holder": uuid.uuid4().hex,
        }
        held = self.read_json(LOCK)
        if held is not None and not _dead(held):
            raise LockedError(
                f"{self.shown()} is in use by process {held.get('process')} on {held.get('host')}; "
                f"wait for it, or remove {self.shown(LOCK)} if that run is gone"
            )
        self._claim(owner, over=held)
        try:
            yield
        except BaseException:
            with contextlib.suppress(ZonalError):  # what ended the work matters more
                self._release(owner)
            raise
        self._release(owner)

    def _release(self, owner: Mapping[str, Any]) -> None:
        if self.read_json(LOCK) == owner:
            self.remove(LOCK)

    def _claim(self, owner: Mapping[str, Any], over: Mapping[str, Any] | None) -> None:
        if not self.local or over is not None:
            self.write_json(LOCK, owner)
            if self.read_json(LOCK) != owner:
                raise LockedError(f"{self.shown()} was taken by another run this very moment")
            return
        with _writable(self.shown()):
            path = Path(self.path(LOCK))
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except FileNotFoundError as error:  # what /proc and dead mounts say of a new folder
                raise InputError(f"cannot write to {self.shown()}: {error.strerror}") from error
            try:
                with path.open("x") as file:  # fails if another run was faster by a moment
                    json.dump(owner, file)
            except FileExistsError:
                raise LockedError(f"{self.shown()} was taken by another run this very moment") from None

    @contextlib.contextmanager
    def _effect(self, verb: str) -> Iterator[None]:
        """Turn what a client raises into one sentence; that there is no file to read or remove passes."""
        try:
            yield
        except ZonalError:
            raise
        except (AttributeError, NameError):  # a bug, here or in a client
            raise
        except Exception as error:
            if verb != "write to" and isinstance(error, (FileNotFoundError, NotADirectoryError)):
                raise
            problem = self._problem(verb, error)
        else:
            return
        raise problem

    def _problem(self, verb: str, error: Exception) -> ZonalError:
        what = f"cannot {verb} {scrub_urls(self.shown())}"
        if isinstance(error, FileNotFoundError):
            return InputError(f"{what}: no such bucket or folder")
        if isinstance(error, NotImplementedError):
            return InputError(f"{what}: this kind of store does not allow it")
        reason = self._hide(clients.permanent(error, local=self.local))
        if isinstance(error, PermissionError):
            reason = reason or "permission denied"
        if reason:
            return InputError(f"{what}: {reason}")
        return StoreError(f"{what}: {self._hide(clients.explain(error))}; try again later")

    def _hide(self, text: str) -> str:
        for secret in secrets(self.options):
            text = text.replace(secret, "***")
        return text


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def _dead(owner: Mapping[str, Any]) -> bool:
    """Whether a lock's owner was a process of this machine that has ended."""
    if owner.get("host") != socket.gethostname() or not isinstance(owner.get("process"), int):
        return False
    if owner["process"] == os.getpid():
        return owner.get("session") != _SESSION
    try:
        os.kill(owner["process"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


@contextlib.contextmanager
def _writable(folder: str) -> Iterator[None]:
    """Turn the operating system's refusals into one sentence."""
    try:
        yield
    except (
        PermissionError,
        NotADirectoryError,
        FileExistsError,
        IsADirectoryError,
        NotImplementedError,
    ) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InputError(f"cannot write to {folder}: {reason}") from error
    except OSError as error:
        if error.errno in (28, 30, 122):  # no space, read-only file system, quota
            raise InputError(f"cannot write to {folder}: {error.strerror}") from error
        raise
