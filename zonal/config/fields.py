"""What fields of settings are made of: how strict a model is, types of values, options.

Knows pydantic; must not know any setting, nor who makes options of them.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, PositiveInt

from zonal.config.parse import comma_list, unbool

STRICT = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
"""Of every model: immutable, no unknown key, and no value in messages, for it may hold a password."""

Text = Annotated[str, Field(min_length=1)]
Count = Annotated[PositiveInt, BeforeValidator(unbool)]
Positive = Annotated[float, BeforeValidator(unbool), Field(gt=0, allow_inf_nan=False)]
CommaList = BeforeValidator(comma_list)


def option(default: Any, metavar: str, description: str, *details: str) -> Any:
    """Describe a field that is also an option of the command line.

    Parameters
    ----------
    default : object
        The default value, or a function that makes it.
    metavar : str
        What stands for the value in a help text; empty for a flag.
    description : str
        The help text of the option.
    *details : str
        What only Python and workflow files need to know: shape, order, units.
    """
    made = {"default_factory": default} if callable(default) else {"default": default}
    text = "\n".join((description, *details))
    return Field(**made, description=text, json_schema_extra={"metavar": metavar})
