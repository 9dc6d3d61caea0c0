"""The options of the command line: those that several commands share, and those made of settings.

Knows typer, and how a field of settings is given on a command line; knows no command and no value's meaning.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

Workflow = Annotated[
    str | None,
    typer.Argument(
        help="A YAML file, or the name of a bundled workflow.", show_default=False, metavar="WORKFLOW"
    ),
]
StateIndex = Annotated[
    int | None,
    typer.Option(metavar="N", help="Of these states only the N-th, from 0: for arrays of jobs."),
]
Quiet = Annotated[bool, typer.Option("--quiet", metavar="", help="Print warnings and errors only.")]
JsonLogs = Annotated[
    bool, typer.Option("--json-logs", metavar="", help="One JSON object a line, on standard error.")
]
Fresh = Annotated[bool, typer.Option("--fresh", metavar="", help="Replace what the output holds.")]

Function = Callable[..., None]


def command(app: typer.Typer, *names: str, without: Collection[str] = ()) -> Callable[[Function], Function]:
    """Make a function a command, with options of fields of `Settings` where its parameter `flags` stands.

    The options are made when the command is called: importing the settings takes longer than all
    that `zonal --help` does.

    Parameters
    ----------
    app : typer.Typer
        What the command belongs to.
    *names : str
        Fields of `Settings`; a section such as ``pca`` stands for its own fields. None for all but sections.
    without : collection of str
        Fields that make no sense for this command.

    Returns
    -------
    callable
        Decorator. The function is given its options as a mapping that `config.workflows.load` understands.
    """

    def register(function: Function) -> Function:
        class Late(TyperCommand):
            def make_context(
                self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
            ) -> Any:
                inner = typer.Typer(add_completion=False, rich_markup_mode=None)
                inner.command()(_with_options(function, names, without))
                made = typer.main.get_command(inner)
                several = {
                    word for param in made.params if getattr(param, "multiple", False) for word in param.opts
                }
                return made.make_context(info_name, spread(args, several), parent, **extra)

        # Typer reads the parameters of what it is given at once; this has none.
        app.command(function.__name__, cls=Late, help=inspect.getdoc(function))(lambda: None)
        return function

    return register


def _with_options(function: Function, names: Collection[str], without: Collection[str]) -> Function:
    """Replace the parameter `flags` of a function by one for each field; typer reads the signature."""
    from zonal.config.settings import Settings

    fields = Settings.model_fields
    sections = {
        name: fields[name].annotation.model_fields  # type: ignore[union-attr]
        for name in names
        if hasattr(fields[name].annotation, "model_fields")
    }
    plain = [name for name in names or fields if fields[name].json_schema_extra and name not in without]
    options = {name: field for section in sections.values() for name, field in section.items()}
    options |= {name: fields[name] for name in plain}

    def called(**given: Any) -> None:
        flags: dict[str, Any] = {name: given.pop(name) for name in plain}
        for name, section in sections.items():
            flags[name] = {inner: given.pop(inner) for inner in section}
        function(flags=flags, **given)

    own = inspect.signature(function, eval_str=True).parameters
    made = {name: _parameter(name, field) for name, field in options.items()}
    order = [option for name in own for option in (made if name == "flags" else [name])]
    if "state_index" in own:  # of which states, stands before
        order.remove("state_index")
        order.insert(order.index("state") + 1, "state_index")
    parameters = {**own, **made}
    called.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [parameters[name].replace(kind=inspect.Parameter.KEYWORD_ONLY) for name in order]
    )
    called.__doc__ = function.__doc__
    return called


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    """Make a parameter as typer wants it; None where the option is not given."""
    extra = field.json_schema_extra
    assert isinstance(extra, dict)
    flag = [f"--{name.replace('_', '-')}"] if field.default is False else []  # no --no-... beside it
    text = str(field.description).partition("\n")[0]
    option = typer.Option(*flag, metavar=str(extra["metavar"]), help=text)
    kind = _type(field.annotation) | None
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option]
    )


def _type(annotation: Any) -> Any:
    """Return what typer makes of an argument: numbers, flags, pairs, texts; else a text that the model reads.

    A tuple of texts is an option of several values. Of other things, and of texts with rules of their
    own, a tuple is written as one comma list.
    """
    while get_origin(annotation) in (Annotated, Union, UnionType):
        annotation = next(each for each in get_args(annotation) if each is not NoneType)
    if get_origin(annotation) is tuple:
        first, *others = get_args(annotation)
        if Ellipsis not in others:
            return annotation
        return list[str] if first is str else str
    return annotation if annotation in (bool, int, float) else str


def spread(arguments: list[str], several: Collection[str]) -> list[str]:
    """Repeat an option of several values before each: ``--raster a b`` is ``--raster a --raster b``.

    A workflow (a YAML file, or a bundled name) after them is not one of their values.
    """
    spread: list[str] = []
    option = None
    for at, word in enumerate(arguments):
        if word == "--":
            return spread + arguments[at:]
        if word.startswith("-"):
            option = word if word in several else None
        elif option is not None and arguments[at - 1] != option:
            if _is_workflow(word):
                option = None
            else:
                spread.append(option)
        spread.append(word)
    return spread


def _is_workflow(word: str) -> bool:
    from zonal.config.workflows import workflow_names

    return word.lower().endswith((".yaml", ".yml")) or word in workflow_names()
