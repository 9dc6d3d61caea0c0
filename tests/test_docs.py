from __future__ import annotations

import re
import tomllib
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
FOLDERS = ("", "zonal", "zonal/io", "tests", "deploy/kubernetes", "deploy/kubernetes/base")
"""Where the pages' paths count from: they say what they leave out."""

MADE = re.compile(
    r"pca\.|evaluation\.|report\.|stats\.|manifest\.json|lock\.json|steps\.json|\.work/|OUTPUT/|zonal-"
)
"""What begins the names of files that a run makes."""


def spans(page: str) -> list[str]:
    """Code spans of a page, in a line each; those that say `(new)` are what a reader is to make."""
    text = re.sub(r"^ *```.*?^ *```|^    .*?$", "", (ROOT / page).read_text(), flags=re.M | re.S)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`(?! \(new\))", text)]


@cache
def sources() -> str:
    return "\n".join(path.read_text() for top in ("zonal", "tests") for path in (ROOT / top).rglob("*.py"))


@cache
def names_of_tests() -> str:
    return "\n".join(re.findall(r"^ *(?:async )?def (test_\w+)", sources(), re.M))


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_names_exist(page: str) -> None:
    paths = [
        span for span in spans(page) if re.fullmatch(r"[\w./-]+\.(py|md|ya?ml|toml|lock|j2)|[\w./-]+/", span)
    ]
    wrong = [
        path
        for path in paths
        if not MADE.match(path) and not any((ROOT / folder / path).exists() for folder in FOLDERS)
    ]
    assert wrong == []


@pytest.mark.parametrize("page", PAGES)
def test_modules_and_names_that_a_page_names_exist(page: str) -> None:
    for span in spans(page):
        if re.fullmatch(r"zonal(\.\w+)+", span) and find_spec_of(span) is None:
            resolve_name(span)


def find_spec_of(name: str) -> object:
    """Find a module without importing it; None if it is none."""
    try:
        return find_spec(name)
    except ModuleNotFoundError:
        return None


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/design.md"])
def test_what_a_contributor_is_to_change_is_there(page: str) -> None:
    named = {span for span in spans(page) if re.fullmatch(r"[A-Z_]\w*(\.\w+)?|[a-z]+\.[A-Z_]+", span)}
    environment = {"BENCH_ARGS", "FUZZ_SECONDS", "DaskCluster"}
    wrong = [
        name
        for name in named - environment
        if not all(re.search(rf"\b{part}\b", sources()) for part in name.split("."))
    ]
    assert wrong == []


@pytest.mark.parametrize("page", PAGES)
def test_tests_that_a_page_names_exist(page: str) -> None:
    wrong = []
    for span in spans(page):
        if re.fullmatch(r"(test_|\.\.\._)[\w.]+", span) and not span.endswith(".py"):
            pattern = ".*".join(re.escape(part) for part in span.split("..."))
            if not re.search(f"^{pattern}$", names_of_tests(), re.M):
                wrong.append(span)
    assert wrong == []


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_pages_and_headings(page: str) -> None:
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text()):
        if "://" not in link:
            file, _, heading = link.partition("#")
            target = (ROOT / page).parent / file if file else ROOT / page
            if not target.exists() or (heading and heading not in headings(target)):
                wrong.append(link)
    assert wrong == []


def headings(page: Path) -> set[str]:
    """Anchors as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_citation_is_of_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
