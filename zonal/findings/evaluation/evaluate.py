"""A table's evaluation, written: JSON for programs, Markdown to be read on GitHub.

Knows which files are read and written; leaves every figure to `assess`, and how it
is called and written to `presenter`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from typing import Any

from zonal.config.analysis import EvaluationSettings
from zonal.events import Event, Notify, quiet
from zonal.findings.evaluation import presenter
from zonal.findings.evaluation.assess import assess
from zonal.findings.evaluation.presenter import NONE, Cell, TextTable
from zonal.findings.evaluation.schema import Evaluation
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


def markdown(evaluation: Evaluation) -> str:
    """Write an evaluation as Markdown."""
    year = f" ({evaluation.year})" if evaluation.year else ""
    parts = [
        f"# What the features of {evaluation.table} know{year}",
        *presenter.facts(evaluation),
        presenter.KEY,
        *_regressions(evaluation),
        *_classifications(evaluation),
        *_correlations(evaluation),
    ]
    if evaluation.notes:
        parts += ["## To keep in mind", _list(evaluation.notes)]
    return "\n\n".join(parts) + "\n"


def _regressions(evaluation: Evaluation) -> list[str]:
    parts = []
    for table in presenter.r2_tables(evaluation):
        parts += [f"## {table.title}", _table(table)]
    if reasons := presenter.left_out(evaluation.regressions, evaluation):
        parts += ["Regressions left out:", _list(reasons)]
    return parts


def _classifications(evaluation: Evaluation) -> list[str]:
    parts = []
    for group in presenter.classes(evaluation):
        if not group.rows:
            continue
        table = presenter.measures(group, evaluation)
        parts += [f"## Two classes: {group.target}", presenter.class_shares(group.rows[0])]
        parts += [f"{table.title}:", _table(table)]
        for matrix in presenter.confusions(group, evaluation):
            taken = (f"taken for {name}" for name in matrix.names)
            rows = [
                (
                    Cell(name),
                    *(Cell(f"{count:,}", f"({presenter.percent(share)})") for count, share in counts),
                )
                for name, counts in zip(matrix.names, matrix.rows, strict=True)
            ]
            parts += [f"{matrix.title}:", _table(TextTable(matrix.title, ("", *taken), tuple(rows)))]
    if reasons := presenter.left_out(evaluation.classifications, evaluation):
        parts += ["Classifications left out:", _list(reasons)]
    return parts


def _correlations(evaluation: Evaluation) -> list[str]:
    parts = []
    for group in presenter.correlations(evaluation):
        rows = [
            (
                Cell(target),
                *(
                    presenter.cell(by_component[component].r) if component in by_component else Cell(NONE)
                    for component in group.components
                ),
            )
            for target, by_component in group.rows
        ]
        head = ("attribute", *(f"PC{component}" for component in group.components))
        parts += [f"### {group.features.capitalize()}", _table(TextTable(group.features, head, tuple(rows)))]
    if parts:
        parts = ["## Correlation with principal components", presenter.CORRELATION_KEY, *parts]
    return parts


def _list(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _table(table: TextTable) -> str:
    rule = ["---" if at < table.texts else "---:" for at in range(len(table.head))]
    lines: list[Sequence[str]] = [table.head, rule, *(tuple(map(str, row)) for row in table.rows)]
    cells = [[text.replace("|", r"\|") for text in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
