"""A table's evaluation, written: JSON and Markdown.

Knows which files are read and written; leaves every figure to `assess`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from zonal.config.analysis import EvaluationSettings
from zonal.events import Event, Notify, quiet
from zonal.findings.evaluation.assess import assess
from zonal.findings.evaluation.markdown import markdown
from zonal.findings.evaluation.model import Evaluation
from zonal.io.store.folder import Folder
from zonal.io.table.finished import FinishedTable, load_table


def evaluate_table(
    table: FinishedTable,
    asked: EvaluationSettings,
    folder: Folder,
    name: str,
    options_of: Callable[[str], dict[str, Any]],
    notify: Notify = quiet,
) -> Evaluation:
    """Evaluate a table and write ``{name}.json`` and ``{name}.md`` into a folder.

    Parameters
    ----------
    table : FinishedTable
    asked : EvaluationSettings
    folder : Folder
    name : str
        Of the files, without their ends.
    options_of : callable
        Gives fsspec storage options for the place of `asked.attributes`.
    notify : callable
        Told of every `Event`.

    Raises
    ------
    InputError
        As `assess`, and if a file cannot be read.
    """
    file = None if asked.attributes is None else load_table(asked.attributes, options_of(asked.attributes))
    year = (table.about or {}).get("year")
    evaluation = assess(
        table,
        asked,
        file,
        version=version("zonal"),
        year=year if isinstance(year, int) else None,
        notify=notify,
    )
    if (joined := evaluation.attributes) and joined.table_unmatched:
        notify(
            Event("warning", f"{joined.file}: {joined.table_unmatched:,} rows of the table have no row in it")
        )
    folder.write(f"{name}.json", (evaluation.model_dump_json(indent=2) + "\n").encode())
    folder.write(f"{name}.md", markdown(evaluation).encode())
    return evaluation
