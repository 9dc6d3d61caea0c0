"""One folder of files on any store: whole writes, JSON, and what killed processes left of their writing.

Knows paths and bytes; knows nothing of what the files hold. A file appears
under its name complete or not at all.
"""

from __future__ import annotations

import contextlib
import glob
import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import fsspec

from zonal.credentials import scrub_urls, secrets
from zonal.errors import InputError, StoreError, ZonalError
from zonal.io.store import clients
from zonal.io.store.disk import draft_of, flush_to_disk, make, writable
from zonal.io.store.ranges import Blob, ReadPolicy

_BROKEN = {"ClientPayloadError", "ResponseStreamingError", "IncompleteRead", "IncompleteReadError"} | {
    "FSTimeoutError", "TimeoutError", "ServerTimeoutError", "SocketTimeoutError",
}  # fmt: skip
"""What clients raise when an answer's body breaks off or stops: botocore repeats requests, no more."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in a listing: its bytes, and when it was written, where the store tells."""

    size: int
    written: datetime | None


@dataclass(frozen=True)
class Folder:
    """A folder on a disk or an object store, as any fsspec URL.

    Parameters
    ----------
    url : str
        Path or URL of the folder; it need not exist yet. Shown without credentials.
    options : mapping
        fsspec storage options; never printed.
    policy : ReadPolicy
        How often to try a remote store, and how long to wait for it.
    """

    url: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    policy: ReadPolicy = field(default_factory=ReadPolicy, repr=False)

    def __repr__(self) -> str:
        return f"Folder({self.shown()!r})"

    def _resolved(self) -> tuple[Any, str]:
        try:
            attempts, stall = self.policy.attempts, self.policy.stall
            options = clients.write_options(self.url, self.options, attempts=attempts, stall=stall)
            fs, root = fsspec.core.url_to_fs(self.url, **options)
        except (ValueError, ImportError, TypeError) as error:
            cause = self._hide(clients.explain(error))
        else:
            if "s3" in _protocols(fs):
                fs.retries = 1  # botocore's are the only ones: one layer, and for each request
            return fs, str(root).rstrip("/")
        # Outside the handler: the original may quote the options.
        raise InputError(f"{self.shown()}: cannot be opened: {cause}")

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
        return Folder(self._place(name), self.options, self.policy)

    def shown(self, name: str = "") -> str:
        """Name a file inside as the user would, without credentials: for messages."""
        return scrub_urls(self._place(name))

    def blob(self, name: str) -> Blob:
        """Return the bytes of a file inside, to be read by ranges."""
        return Blob(self._place(name), self.options, self.policy)

    def _place(self, name: str) -> str:
        return f"{self.url.rstrip('/')}/{name}" if name else self.url

    def exists(self, name: str = "") -> bool:
        """Whether a file is there; a store's own error is not taken for absence."""
        fs = self.filesystem
        # Clients keep listings, and other processes write here.
        fs.invalidate_cache(self.path())
        return bool(self._done("read", lambda: fs.exists(self.path(name))))

    def names(self, sub: str = "") -> list[str]:
        """File names inside, or inside a folder inside, sorted; empty where there is none."""
        fs = self.filesystem
        fs.invalidate_cache(self.path(sub))
        try:
            paths = self._done("read", lambda: fs.ls(self.path(sub), detail=False))
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(str(path).rstrip("/").rsplit("/", 1)[-1] for path in paths)

    def entries(self, sub: str = "") -> dict[str, Entry]:
        """List the files inside, or inside a folder inside, by name; empty where there is none."""
        fs = self.filesystem
        fs.invalidate_cache(self.path(sub))
        try:
            listing = self._done("read", lambda: fs.ls(self.path(sub), detail=True))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        files = [info for info in listing if info["type"] == "file"]
        return {str(i["name"]).rsplit("/", 1)[-1]: Entry(int(i["size"] or 0), _written(i)) for i in files}

    def below(self) -> list[str]:
        """Files of the folder and of all folders inside, by path from here."""
        root = self.path()
        paths = self._done("read", lambda: self.filesystem.find(root))
        return sorted(str(path)[len(root) :].lstrip("/") for path in paths)

    def read(self, name: str) -> bytes:
        """Read a whole file."""
        return bytes(self._done("read", lambda: self.filesystem.cat_file(self.path(name))))

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
    def create(self, name: str, *, durable: bool = True) -> Iterator[Path]:
        """Give a local path to write to; on leaving without error the file appears as `name`, whole.

        On a disk the path lies beside the final one and is renamed onto it, and a loss of power after that
        loses nothing if it is `durable`; for a store it is a temporary file, put there in one upload.
        """
        target = self.path(name)
        if self.local:
            final = Path(target)
            draft = draft_of(final)
            with writable(self.shown()):
                make(final.parent)
                try:
                    yield draft
                    if durable:
                        flush_to_disk(draft)
                    draft.replace(final)
                    if durable:
                        flush_to_disk(final.parent)
                finally:
                    draft.unlink(missing_ok=True)
            return
        scratch = tempfile.gettempdir()
        with writable(scratch), tempfile.TemporaryDirectory(prefix="zonal-", dir=scratch) as folder:
            draft = Path(folder) / "draft"
            yield draft
            try:
                self._done("write to", lambda: self.filesystem.put_file(str(draft), target))
            except Exception:
                raise
            except BaseException:  # a signal; the client goes on with an upload of several requests
                with contextlib.suppress(ZonalError):
                    self._abort_uploads(lambda begun: begun == name)
                raise

    def write(self, name: str, data: bytes, *, durable: bool = True) -> None:
        """Write a whole file."""
        with self.create(name, durable=durable) as draft:
            draft.write_bytes(data)

    def claim(self, name: str, data: bytes) -> bool:
        """Write a small file where there is none; False where there is one with other bytes.

        A store that cannot do so replaces what was written since somebody looked: read it again.
        """
        if self.local:
            final = Path(self.path(name))
            draft = draft_of(final)
            with writable(self.shown()):
                try:
                    try:
                        make(final.parent)
                        draft.write_bytes(data)
                    except FileNotFoundError:  # a run that ended took the folder along, for it was empty
                        make(final.parent)
                        draft.write_bytes(data)
                    return _linked(draft, final)
                finally:
                    with contextlib.suppress(NotADirectoryError):
                        draft.unlink(missing_ok=True)

        def is_ours() -> bool:
            return self.exists(name) and self.read(name) == data

        def put() -> bool:
            try:
                self.filesystem.pipe_file(self.path(name), data, mode="create")
            except FileExistsError:  # it may be ours: the answer was lost, and the request repeated
                return is_ours()
            except (TypeError, ValueError, NotImplementedError):  # a client that does not know the mode
                self.write(name, data)
            except Exception as error:
                reason = clients.explain(error)
                if reason.startswith(("HTTP 409", "HTTP 412")):  # a conflict, or in MinIO's words
                    return is_ours()
                if not reason.startswith(("HTTP 400", "HTTP 501")):
                    raise
                self.write(name, data)  # a server that does not know the condition
            return True

        return self._done("write to", put)

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a JSON object, keys in the order given."""
        self.write(name, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())

    def copy(self, name: str, target: str) -> None:
        """Copy a file inside the folder, whole; on a disk as a second name of the same bytes."""
        if self.local:
            source, final = Path(self.path(name)), Path(self.path(target))
            with writable(self.shown()):
                make(final.parent)
            try:
                final.hardlink_to(source)
                flush_to_disk(final.parent)
            except OSError:  # a file system without links
                with self.create(target) as draft:
                    shutil.copyfile(source, draft)
        else:
            self._done("write to", lambda: self.filesystem.cp_file(self.path(name), self.path(target)))

    def move(self, name: str, target: str) -> None:
        """Give a file inside another name, whole; what had that name is replaced."""
        if self.local:
            source, final = Path(self.path(name)), Path(self.path(target))
            with writable(self.shown()):
                make(final.parent)
                source.replace(final)
                flush_to_disk(final.parent)
        else:
            self.copy(name, target)
            self.remove(name)

    def remove(self, name: str) -> None:
        """Remove a file or a folder with all it holds; nothing happens where there is none."""
        if self.local:
            path = Path(self.path(name))
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with writable(self.shown()):
                    path.unlink(missing_ok=True)
            return
        # Clients take a path to remove for a pattern: of `run[1]` they would remove `run1`.
        literal = glob.escape(self.path(name))
        with contextlib.suppress(FileNotFoundError):
            self._done("remove from", lambda: self.filesystem.rm(literal, recursive=True))
        self.filesystem.invalidate_cache(self.path())

    def prune(self, name: str) -> None:
        """Remove an empty folder inside, and this one if that leaves it empty (stores have none)."""
        if self.local:
            with contextlib.suppress(OSError):
                Path(self.path(name)).rmdir()
                Path(self.path()).rmdir()

    def clear_drafts(self, ours: Callable[[str], bool], places: Sequence[str]) -> None:
        """Remove what processes that were killed left of files they were writing.

        On a disk these are drafts beside the files, on S3 uploads that were begun; other stores forget
        theirs. Nobody may be writing: hold the lock.

        Parameters
        ----------
        ours : callable
            Whether a file, by its path from here, is one that zonal writes.
        places : sequence of str
            Where to look on a disk: glob patterns of folders, each with a slash at its end.
        """
        if not self.local:
            self._abort_uploads(ours)
            return
        root = Path(self.path())
        for path in [path for place in places for path in root.glob(f"{place}.*.tmp")]:
            draft = re.fullmatch(r"\.(.+)\.[0-9a-f]{32}\.tmp", path.name)
            if draft and ours(path.with_name(draft[1]).relative_to(root).as_posix()):
                with writable(self.shown()):
                    path.unlink(missing_ok=True)

    def _abort_uploads(self, ours: Callable[[str], bool]) -> None:
        """End uploads to S3 that were begun: they are paid for, and no listing of files shows them."""
        fs = self.filesystem
        if "s3" not in _protocols(fs):
            return
        bucket, root, _ = fs.split_path(self.path())
        prefix = f"{root}/" if root else ""

        def abort() -> None:
            begun = fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix).get("Uploads", [])
            for key, upload in [(upload["Key"], upload["UploadId"]) for upload in begun]:
                if ours(key.removeprefix(prefix)):
                    with contextlib.suppress(FileNotFoundError):  # it ended by itself
                        fs.call_s3("abort_multipart_upload", Bucket=bucket, Key=key, UploadId=upload)

        self._done("remove from", abort)

    def _done(self, verb: str, act: Callable[[], T]) -> T:
        """Do what may be done twice; again where the answer broke off, which the client does not repeat.

        What a client raises becomes one sentence; that there is no file to read or remove passes.
        """
        # botocore repeats requests, but not what follows them, such as a listing whose body broke off.
        delays = self.policy.delays()
        while True:
            try:
                return act()
            except ZonalError:
                raise
            except (AttributeError, NameError):  # a bug, here or in a client
                raise
            except Exception as error:
                if verb != "write to" and isinstance(error, (FileNotFoundError, NotADirectoryError)):
                    raise
                problem = self._problem(verb, error)
                pause = next(delays, None) if type(error).__name__ in _BROKEN else None
            if pause is None:
                raise problem
            time.sleep(pause)

    def _problem(self, verb: str, error: Exception) -> ZonalError:
        what = f"cannot {verb} {self.shown()}"
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


def _linked(draft: Path, final: Path) -> bool:
    """Give a finished draft its name, if there is no such file."""
    try:
        final.hardlink_to(draft)
    except FileExistsError:
        return False
    except OSError:  # a file system without links: somebody may read half of it
        try:
            file = final.open("xb")
        except FileExistsError:
            return False
        try:
            with file:
                file.write(draft.read_bytes())
        except BaseException:
            final.unlink(missing_ok=True)
            raise
    return True


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def _written(info: Mapping[str, Any]) -> datetime | None:
    """When a file was written, in whichever way a client says so."""
    names = ("mtime", "LastModified", "last_modified", "updated", "created")
    value = next((info[name] for name in names if info.get(name)), None)
    if isinstance(value, float | int):
        return datetime.fromtimestamp(value, UTC)
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = datetime.fromisoformat(value)
    return value if isinstance(value, datetime) and value.tzinfo else None
