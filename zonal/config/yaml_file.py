"""YAML files that people write: read without YAML's traps, mistakes told in one sentence.

Knows YAML and pydantic's findings; must not know what a workflow or a catalog means.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from zonal.errors import InputError
from zonal.text import did_you_mean, shown

_LONG_MESSAGE = 600


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
