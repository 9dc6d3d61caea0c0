"""Credentials in URLs and options: left out of whatever is shown or written.

An address in a file keeps what of its query names the data (`without_credentials`), so that the same
input is the same; a message loses the whole query (`scrub_urls`, and `hide` where storage options were
in play); of options themselves only names show (`redacted`). Knows how stores spell secrets; knows no store.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_SECRET = re.compile(r"sig|token|key|secret|pass|pwd|auth|cred|expires|^x-(amz|goog)-|^sk[ot]", re.IGNORECASE)
# Those parameters of a signed Azure URL whose names alone say nothing.
_AZURE = frozenset(
    {"se", "sp", "sv", "sr", "st", "spr", "sip", "srt", "ss", "sdd", "ske", "skt", "sks", "skv"}
)
_HIDDEN = "***"
_SECRET_KEY = re.compile(r"key|secret|token|passw|auth|cred|sas|sign|cookie|connection_string", re.IGNORECASE)


def without_credentials(url: str) -> str:
    """Return `url` without the user and password before its host and without signatures in its query.

    A path that is no URL comes back as it is. Query parameters that carry no secret stay, for they
    may name the file.
    """
    if "://" not in url:
        return url

    def clean(query: re.Match[str]) -> str:
        pairs = [pair for pair in query[0][1:].split("&") if pair]
        names = {pair.split("=")[0].lower() for pair in pairs}
        secret = {name for name in names if _SECRET.search(name) or ("sig" in names and name in _AZURE)}
        kept = [pair for pair in pairs if pair.split("=")[0].lower() not in secret]
        return "?" + "&".join(kept) if kept else ""

    return re.sub(r"\?[^#\s]*", clean, re.sub(r"://[^/?#\s]*@", "://", url))


def redacted(options: object, depth: int = 3) -> object:
    """Nested options with every value hidden: only their names show."""
    if not isinstance(options, dict) or depth == 0:  # YAML aliases can nest a mapping in itself
        return _HIDDEN
    return {str(key): redacted(item, depth - 1) for key, item in options.items()}


def scrub_urls(text: str) -> str:
    """Drop credentials from every URL in a text, and with them the whole query, for messages."""
    # A password may hold a quote or an unescaped @: all up to the last one before the path goes.
    return re.sub(r"(\w+://[^\s?'\"]*)\?[^\s'\"]*", r"\1", re.sub(r"(\w+://)[^/\s?]*@", r"\1", text))


def hide(text: str, *options: Mapping[str, Any]) -> str:
    """Drop from a text what `scrub_urls` drops, and the secrets of storage options."""
    text = scrub_urls(text)
    for secret in (secret for some in options for secret in secrets(some)):
        text = text.replace(secret, _HIDDEN)
    return text


def secrets(options: Mapping[str, Any], inherited: bool = False) -> Iterator[str]:
    """Yield the strings in storage options that no message may show."""
    for key, value in options.items():
        secret = inherited or bool(_SECRET_KEY.search(str(key)))
        if isinstance(value, Mapping):
            yield from secrets(value, secret or str(key) == "headers")
        elif secret and isinstance(value, str) and len(value) > 3:
            yield value
