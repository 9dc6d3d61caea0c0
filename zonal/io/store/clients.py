"""The fsspec clients: how each is set up, and what its errors mean.

Knows HTTP, S3 and the shapes of their clients' exceptions; sends nothing and
retries nothing. Keeps credentials out of every text it makes.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
from collections.abc import Mapping
from functools import cache
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from zonal.credentials import scrub_urls

CONNECTIONS = 128
"""Of a process to one store: the 64 ranges of two chunks. Those of more threads wait in line."""

PACE = 0.002
"""Seconds between two new connections. A plain server's queue may hold 5 that it has not accepted yet; when
64 come at once the kernel drops the rest, and the client waits a second or three before it asks again."""

MISSING = "no such file"

_EXTRAS = {"gcsfs": "gs", "adlfs": "az"}
"""Clients that not everybody needs, and the extra that brings each."""

_RETRIED_4XX = {403, 408, 425, 429}  # 403: what data.source.coop answers when it throttles


class PastEndError(OSError):
    """The server says that the range ends after the file."""


class WrongRangeError(OSError):
    """The server answered with other bytes than those asked for."""


def client_options(
    url: str, storage_options: Mapping[str, Any] | None, *, stall: float, total: float
) -> dict[str, Any]:
    """Add to the user's storage options what makes the client fit; the user's own come first.

    Parameters
    ----------
    url : str
    storage_options : mapping or None
    stall : float
        Seconds without a byte after which the client gives a request up.
    total : float
        Seconds that one request may take.
    """
    options = dict(storage_options or {})
    if "::" in url:  # chained filesystems take options by protocol: leave them as they are
        return options
    if url.startswith(("http://", "https://")):
        import aiohttp

        client = dict(options.get("client_kwargs") or {})
        # data.source.coop answers 403 without a User-Agent; a compressed answer has another length.
        headers = {"User-Agent": f"zonal/{_version()}", "Accept-Encoding": "identity"}
        client["headers"] = headers | dict(client.get("headers") or {})
        # aiohttp's default would let one stalled socket hold a chunk for five minutes.
        timeout = aiohttp.ClientTimeout(total=total, sock_connect=stall, sock_read=stall)
        client.setdefault("timeout", timeout)
        client["raise_for_status"] = _check_answer
        options["client_kwargs"] = client
        options.setdefault("get_client", _session)
    elif url.startswith(("s3://", "s3a://")):
        # botocore would try five times inside each of our attempts, and its pool of 10 connections would
        # halt the 64 ranges of one chunk.
        _configure_s3(options, attempts=1, stall=stall, max_pool_connections=CONNECTIONS)
    return options


def _configure_s3(options: dict[str, Any], *, attempts: int, stall: float, **defaults: Any) -> None:
    """Set botocore's retries, timeouts and our name where the user has not set them."""
    defaults |= {
        "retries": {"total_max_attempts": attempts, "mode": "standard"},
        "connect_timeout": stall,
        "read_timeout": stall,
        "user_agent_extra": f"zonal/{_version()}",
    }
    options["config_kwargs"] = defaults | dict(options.get("config_kwargs") or {})


async def _session(**options: Any) -> Any:
    """Make the HTTP client of a process: many connections, opened one after the other."""
    import aiohttp

    turn = 0.0

    async def wait(*_: Any) -> None:
        nonlocal turn
        now = asyncio.get_running_loop().time()
        turn = max(turn + PACE, now)
        await asyncio.sleep(turn - now)

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_start.append(wait)
    if "connector" not in options:
        options["connector"] = aiohttp.TCPConnector(limit=CONNECTIONS)
    options["trace_configs"] = [*(options.get("trace_configs") or ()), trace]
    session = aiohttp.ClientSession(**options)
    # It would ask a second time, uncounted, where a connection that it had kept was closed meanwhile. There
    # is no public way to stop it: tried on aiohttp 3.14, and test_ranges counts what the server saw.
    session._retry_connection = False
    return session


async def _check_answer(response: Any) -> None:
    """Refuse an HTTP answer by its head, before a body of gigabytes is read."""
    response.raise_for_status()
    asked, stated = response.request_info.headers.get("Range", ""), response.headers.get("Content-Range", "")
    problem = _wrong_range(asked, response.status, stated)
    if problem is not None:
        response.close()
        raise problem


def _wrong_range(asked: str, status: int, stated: str) -> OSError | None:
    """Compare an answer's status and Content-Range with the Range header that was sent."""
    request = re.fullmatch(r"bytes=(\d+)-(\d+)", asked)
    if request is None:
        return None
    if status != HTTPStatus.PARTIAL_CONTENT:
        return WrongRangeError(f"the server ignores byte ranges (HTTP {status} in place of 206)")
    answer = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", stated.strip())
    if answer and answer[3] != "*" and int(request[2]) >= int(answer[3]):
        return PastEndError(stated)
    if stated and (answer is None or (answer[1], answer[2]) != (request[1], request[2])):
        return WrongRangeError(f"the server answered with {stated!r}")
    return None


def check_s3_answers(fs: Any) -> None:
    """Have an s3fs file system refuse other bytes than those asked for: neither it nor botocore looks."""

    def remember(params: Mapping[str, Any], context: dict[str, Any], **_: Any) -> None:
        context["zonal_asked"] = params["headers"].get("Range", "")

    def compare(http_response: Any, parsed: Mapping[str, Any], context: Mapping[str, Any], **_: Any) -> None:
        status = http_response.status_code
        if status < 300:
            problem = _wrong_range(context["zonal_asked"], status, parsed.get("ContentRange", ""))
            if problem is not None:
                raise problem

    events = fs.s3.meta.events
    events.register("before-call.s3.GetObject", remember, unique_id="zonal-asked")
    events.register("after-call.s3.GetObject", compare, unique_id="zonal-answered")


def permanent(error: Exception, *, local: bool) -> str:
    """Say why another attempt is pointless, or ``""`` where it is not.

    Parameters
    ----------
    error : Exception
        What a client raised or returned.
    local : bool
        Whether the file is one of this machine, where a refusal is final.
    """
    cause = _root(error)
    status = _status(cause)
    if isinstance(cause, PastEndError) or status == 416:
        return "the range lies beyond the end of the file; is it truncated?"
    if status == 404 or (status is None and isinstance(cause, FileNotFoundError)):
        return MISSING
    if isinstance(cause, (IsADirectoryError, NotADirectoryError)):
        return "not a file"
    if local and isinstance(cause, PermissionError):
        return "permission denied"
    if local and isinstance(cause, OSError) and cause.errno in (errno.ENAMETOOLONG, errno.ELOOP):
        return os.strerror(cause.errno).lower()
    if type(cause).__name__ in ("NoCredentialsError", "PartialCredentialsError"):
        return (
            "no credentials found; set them in the environment, or `anon: true` in the storage options "
            "of a public store"
        )
    if isinstance(cause, ValueError) or (status and 400 <= status < 500 and status not in _RETRIED_4XX):
        return explain(cause)
    return ""


def explain(error: Exception) -> str:
    """Say what went wrong in a few words, without the query or user of any URL."""
    error = _root(error)
    status = _status(error)
    if status is not None:
        phrases = {item.value: item.phrase for item in HTTPStatus}
        return f"HTTP {status} {phrases.get(status, '')}".strip()
    text = scrub_urls(" ".join(str(error).split()))
    if isinstance(error, ImportError):
        for client, extra in _EXTRAS.items():
            if client in text:
                return f"{client} is not installed; pip install 'zonal[{extra}]'"
    if isinstance(error, (WrongRangeError, PastEndError)) or (type(error) is OSError and text):
        return text
    kind = type(error).__name__
    return f"{kind}: {text}" if text else kind


def _root(error: Exception) -> Exception:
    """Return what lies behind a FileNotFoundError: fsspec's HTTP client makes every failed `info` one."""
    while isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return error


def _status(error: BaseException | None) -> int | None:
    """HTTP status of an aiohttp or botocore error, or of one that s3fs made of it."""
    for _ in range(4):
        if error is None:
            return None
        status = getattr(error, "status", None)
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if isinstance(status, int):
            return status
        error = error.__cause__
    return None


@cache
def _version() -> str:
    try:
        return version("zonal")
    except PackageNotFoundError:
        return "0"


def write_options(
    url: str, storage_options: Mapping[str, Any] | None, *, attempts: int, stall: float
) -> dict[str, Any]:
    """Add to the user's storage options what makes a client fit for an output; the user's own come first.

    Requests are repeated by botocore: each one singly, so that a long upload does not begin anew.

    Parameters
    ----------
    url : str
    storage_options : mapping or None
    attempts : int
        Of one request, the first included.
    stall : float
        Seconds without a byte after which a request has failed.
    """
    options = dict(storage_options or {})
    if url.startswith(("s3://", "s3a://")) and "::" not in url:
        _configure_s3(options, attempts=attempts, stall=stall)
        options.setdefault("use_listings_cache", False)  # workers write what this process has listed
    elif url.startswith(("http://", "https://")) and "::" not in url:
        client = dict(options.get("client_kwargs") or {})
        client["headers"] = {"User-Agent": f"zonal/{_version()}"} | dict(client.get("headers") or {})
        options["client_kwargs"] = client
    return options
