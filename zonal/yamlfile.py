"""YAML files that people write: read without YAML's traps, mistakes told in one sentence.

Knows YAML, pydantic's findings and which word is spelt most like another. Must not know
what a workflow or a catalog means.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from zonal.credentials import scrub_urls
from zonal.errors import InputError

_LONG_MESSAGE = 600


class _Brief(reprlib.Repr):
    def repr_str(self, x: str, level: int) -> str:
        return super().repr_str(scrub_urls(x), level)  # before it is cut: half a password is one, too


def shown(value: object) -> str:
    """`value` for an error message: short, whatever it is."""
    brief = _Brief()
    brief.maxlevel = 2  # YAML aliases can nest a list in itself
    text = brief.repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """Return ``"; did you mean 'state'?"`` for the nearest of `names`, or an empty string."""
    if len(word) > 100:  # no slip of the pen
        return ""
    spelt = {name.casefold(): name for name in names}
    word = word.casefold()
    close = get_close_matches(word.replace("-", "_"), spelt) or get_close_matches(word, spelt)
    close.sort(key=lambda name: sorted(name) != sorted(word))  # two letters swapped come first
    return f"; did you mean {spelt[close[0]]!r}?" if close else ""


def validation_sentence(
    exc: ValidationError,
    names: Iterable[str],
    thing: str = "key",
    inside: Mapping[str, Iterable[str]] | None = None,
) -> str:
    """Say in one sentence what pydantic found first.

    Parameters
    ----------
    exc : pydantic.ValidationError
        From any model of this package.
    names : iterable of str
        The valid keys, to offer the nearest one.
    thing : str
        What a key is called: ``"key"`` in a file, ``"setting"`` elsewhere.
    inside : mapping, optional
        For keys that are mappings themselves, the valid keys in them.
    """
    error = exc.errors(include_url=False)[0]
    # An optional or tagged field adds steps to the path that the user never wrote.
    key = str(error["loc"][0]) if error["loc"] else ""
    if inside and key in inside and len(error["loc"]) > 1:
        key, names = str(error["loc"][1]), inside[key]
    message = error["msg"].removeprefix("Value error, ")
    if len(message) > _LONG_MESSAGE:  # it quotes what somebody wrote
        message = f"{message[: _LONG_MESSAGE // 2]} ... {message[-_LONG_MESSAGE // 2 :]}"
    if error["type"] == "extra_forbidden":
        return f"unknown {thing} {key!r}{did_you_mean(key, names)}"
    if error["type"] == "missing":
        return f"{thing} {key!r} is missing"
    if error["type"] == "value_error":
        return message if key in ("", message.split(" ")[0].rstrip(":")) else f"{key}: {message}"
    if error["type"] == "literal_error":
        message = message.replace("Input should be", "expected")
    message = message.replace("Input should be", "should be").replace("Input", "it")
    value = "" if key == "storage_options" else f" {shown(error['input'])}"
    return f"{key}{value}: {message}"


LONGEST = 256 * 1024
"""Bytes of a YAML file, at most: PyYAML takes seconds for each further one of these."""
MOST = 100_000
"""Values in it, at most, each alias counted as often as it is used."""
DEEPEST = 50
"""Levels of values in values, at most."""

# What PyYAML lets through for tags whose text does not fit (`!!bool x`, `!!timestamp x`) or deep nesting.
_ODD = (ValueError, ArithmeticError, LookupError, AttributeError, TypeError, RecursionError)


class _Loader(yaml.SafeLoader):
    """YAML's safe loader without its traps.

    ``no`` is text, ``033`` is text and not 27, ``1:30`` is text, a date is text (as YAML 1.2 has it),
    and a key that comes twice is an error.
    """

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (as PyYAML has it)

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > DEEPEST:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.constructor.ConstructorError(None, None, f"nested over {DEEPEST} deep", mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None:
            _count(node, {})
        return node

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Any, Any]:
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
                if key.value in seen:
                    problem = f"the key {key.value!r} comes twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)  # type: ignore[arg-type]


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Count the values below a node, those behind aliases too; refuse many, and one that holds itself."""
    if id(node) in known:
        if not known[id(node)]:
            raise yaml.constructor.ConstructorError(None, None, "an alias refers to itself", node.start_mark)
        return known[id(node)]
    known[id(node)] = 0
    below = node.value if isinstance(node, yaml.SequenceNode) else ()
    if isinstance(node, yaml.MappingNode):
        below = [item for pair in node.value for item in pair]
    total = 1 + sum(_count(item, known) for item in below)
    if total > MOST:
        raise yaml.constructor.ConstructorError(None, None, f"over {MOST:,} values", node.start_mark)
    known[id(node)] = total
    return total


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9_]*)", "-+0123456789"),
    ("float", r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def read_mapping(path: Path, what: str) -> dict[str, Any]:
    """Read a YAML file whose top level is a mapping.

    Parameters
    ----------
    path : Path
        The file.
    what : str
        Name of the file for messages, ``"workflow x.yaml"``.

    Raises
    ------
    InputError
        Missing, unreadable, not YAML, or not a mapping of names.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(LONGEST + 1)
        if len(raw) > LONGEST:
            raise InputError(f"{what}: over {LONGEST // 1024} KiB long; expected a file that people write")
        content = yaml.load(raw.decode("utf-8"), _Loader)  # a SafeLoader: builds no objects
    except FileNotFoundError:
        raise InputError(f"{what}: no such file") from None
    except OSError as exc:
        raise InputError(f"{what}: cannot be read ({exc.strerror})") from exc
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        line = f" at line {mark.line + 1}" if mark else ""
        raise InputError(f"{what}: not valid YAML{line}: {exc.problem or exc.context}") from exc
    except (yaml.YAMLError, *_ODD) as exc:
        raise InputError(f"{what}: not valid YAML ({type(exc).__name__})") from exc
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InputError(f"{what}: expected lines of 'key: value', such as 'state: WA'")
    return content
