"""What is shown of values that hold credentials, wherever Dask or a traceback may show them."""

from __future__ import annotations

from typing import Any

import pytest

from zonal.config.catalog import Catalog
from zonal.config.settings import Settings
from zonal.config.workflows import load
from zonal.credentials import hide, scrub_urls
from zonal.engine.work import Job, run_unit
from zonal.errors import InputError, UsageError
from zonal.io.raster.reader import Reader
from zonal.io.store.folder import Folder
from zonal.io.store.ranges import Blob
from zonal.io.table.table import TableColumns
from zonal.planning.inputs import ZoneFile
from zonal.planning.stage import Stage
from zonal.text import shown

URL = "https://reader:pa55word@host/path?sig=s1gnature"
OPTIONS = {"key": "the-key-of-options", "client_kwargs": {"headers": {"X-Api": "the-header"}}}
SECRETS = ("pa55word", "s1gnature", "the-key-of-options", "the-header")


def job() -> Job:
    folder = Folder(URL, OPTIONS)
    stage = Stage(folder, "", "", "EPSG:4326", "id", (), {}, {})
    reader = Reader("cog", "aef", options=OPTIONS)
    return Job(
        stage,
        folder,
        reader,
        (),
        (URL,),
        TableColumns("id", (), ("mean",), True),
        "center",
        "native",
        None,
        {},
    )


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(job, id="Job"),
        pytest.param(lambda: Folder(URL, OPTIONS), id="Folder"),
        pytest.param(lambda: Reader("cog", "aef", options=OPTIONS), id="Reader"),
        pytest.param(lambda: Blob(URL, {"client_kwargs": OPTIONS["client_kwargs"]}), id="Blob"),
        pytest.param(lambda: ZoneFile("zones", "name", URL, OPTIONS), id="ZoneFile"),
        pytest.param(lambda: Catalog.load(None, URL, {"https": OPTIONS}), id="Catalog"),
        pytest.param(
            lambda: Settings(zones=URL, mirror=URL, raster=URL, storage_options={"https": OPTIONS}),
            id="Settings",
        ),
    ],
)
def test_neither_repr_nor_str_of_a_value_shows_its_secrets(value: Any) -> None:
    made = value()
    for text in (repr(made), str(made), f"{[made]}"):
        assert type(made).__name__ in text or "=" in text
        assert not [secret for secret in SECRETS if secret in text]


@pytest.mark.parametrize("password", ["pa55word", "p@55word", "p'55word", 'p"55:word', "pa55%40word"])
def test_a_password_goes_whatever_it_is_made_of(password: str) -> None:
    text = scrub_urls(f"GET 'https://me:{password}@host:80/a?b=1' failed, as did s3://bucket/b@c")
    assert text == "GET 'https://host:80/a' failed, as did s3://bucket/b@c"


def test_a_text_loses_the_secrets_of_storage_options_too() -> None:
    text = f"{OPTIONS} for {URL}, not {OPTIONS}"
    assert not [secret for secret in SECRETS if secret in hide(text, {}, OPTIONS)]
    assert "https://host/path" in hide(text, OPTIONS)


def test_a_value_that_is_cut_for_a_message_loses_its_password_before() -> None:
    assert "pass" not in shown("https://a-user-name:a-password-that-is-very-long@host/and/a/path")
    with pytest.raises(UsageError) as caught:
        load(None, {"mirror": {"base": URL}})
    assert "mirror" in str(caught.value) and not [s for s in SECRETS if s in str(caught.value)]


def test_a_path_that_leaves_the_mirror_is_named_without_its_password() -> None:
    mirrored = Catalog.load(None, "https://reader:pa55word@host/mirror")
    with pytest.raises(InputError, match=r"lead out of the mirror https://host/mirror$"):
        mirrored.resolve("https://data.source.coop/tge-labs/../x")


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (KeyError(URL), "KeyError: 'https://host/path'"),
        (ValueError(f"wrong: {OPTIONS['key']}"), r"ValueError: wrong: \*\*\*"),
        (RecursionError("too deep"), "RecursionError: too deep"),
    ],
)
def test_an_unforeseen_error_of_a_task_loses_its_secrets(
    raised: Exception, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise raised

    monkeypatch.setattr(Reader, "open", fail)
    given = job()
    unit: Any = type("Unit", (), {"tile": 0})
    object.__setattr__(given, "tiles", (None,))
    with pytest.raises(RuntimeError, match=f"^{told}$") as caught:
        run_unit(given, unit, [])
    assert caught.value.__cause__ is None and caught.value.__context__ is None


def test_an_unforeseen_error_without_secrets_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError("of 64 MB")

    monkeypatch.setattr(Reader, "open", fail)
    given = job()
    object.__setattr__(given, "tiles", (None,))
    with pytest.raises(MemoryError, match="of 64 MB"):
        run_unit(given, type("Unit", (), {"tile": 0}), [])  # type: ignore[arg-type]
