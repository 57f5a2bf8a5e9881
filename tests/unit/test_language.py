"""Languages: catalogues that miss nothing, what rooms below say recognised, and pages without a word of another."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from string import Formatter
from types import ModuleType
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pandas as pd
import pytest
from babel.messages.catalog import Message

from forex_core.champion import Decision
from forex_core.config import ChronosConfig, EngineConfig
from forex_core.data.catalogue import LICENCES
from forex_core.data.series import ECB_FIXING, SPOT_CLOSE
from forex_core.engine import Engine, build_members
from forex_core.evaluation import judge_skill
from forex_core.report.charts import charts
from forex_core.report.document import data_notices, forecast_document
from forex_core.report.drawing import draw
from forex_core.report.language import ENGLISH, TOLD, Language, language_of
from forex_core.report.page import render_report
from forex_core.testing import bundle_of, synthetic_table
from forex_core.types import (
    HORIZONS,
    Event,
    ForecastRun,
    Headline,
    Horizon,
    LanguageCode,
    MarketBundle,
    Publication,
    Repair,
    Source,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PROGRAM = Path(__file__).parents[2] / ".ci" / "messages.py"
MADE = pd.Timestamp("2017-09-01T12:30:00Z")
OTHERS: list[LanguageCode] = [code for code in get_args(LanguageCode) if code != "en"]
SPANISH = language_of("es")

# Words that no Spanish sentence has, and hardly an English one lacks.
ENGLISH_WORDS = re.compile(
    r"\b(the|of|and|is|are|was|were|with|from|to|in|on|by|not|for|at|which|that|this|it|its|be|has|have|close|last|"
    r"row|rows|day|days|step|band|walk|value|model|run|made|known)\b",
    re.IGNORECASE,
)


@pytest.fixture(scope="module")
def messages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("messages", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["messages"] = module
    spec.loader.exec_module(module)
    return module


def catalogue(messages: ModuleType, code: LanguageCode) -> list[Message]:
    found = messages.updated(messages.catalogue(code))
    return [message for message in found if message.id]


def pairs(message: Message) -> list[tuple[str, str]]:
    """Every text of a message with its translation."""
    if not message.pluralizable:
        return [(message.id, message.string)]
    one, many = message.id
    return [(one, message.string[0]), *((many, string) for string in message.string[1:])]


def fields(text: str) -> list[tuple[str, str]]:
    return sorted((name, form or "") for _, name, form, _ in Formatter().parse(text) if name is not None)


# --- the catalogues


def test_every_language_but_that_of_the_code_has_a_catalogue(messages: ModuleType) -> None:
    assert all(messages.catalogue(code).is_file() for code in OTHERS)
    assert not messages.catalogue("en").exists()


@pytest.mark.parametrize("code", OTHERS)
def test_every_message_of_the_code_has_its_translation_and_none_is_left_over(
    messages: ModuleType, code: LanguageCode
) -> None:
    """'make messages' mends what is not in line, but for the words."""
    path = messages.catalogue(code)
    found = messages.updated(path)
    assert messages.untranslated(found) == []
    assert messages.text_of(found, path) == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("code", OTHERS)
def test_a_translation_has_the_fields_of_its_message(messages: ModuleType, code: LanguageCode) -> None:
    wrong = [
        text
        for message in catalogue(messages, code)
        for text, translation in pairs(message)
        if fields(text) != fields(translation)
    ]
    assert wrong == []


@pytest.mark.parametrize("code", OTHERS)
def test_a_translation_has_no_english_and_the_blanks_of_its_message(
    messages: ModuleType, code: LanguageCode
) -> None:
    for message in catalogue(messages, code):
        for text, translation in pairs(message):
            own = re.sub(r"\{[^}]*\}|«[^»]*»|--\w[\w-]*|'[^']*'|\w+\.\w+", "", translation)
            assert not re.search(r"\b(the|of|and|is|with|from|was)\b", own), translation
            assert text[:1].isspace() == translation[:1].isspace()
            assert text[-1:] == translation[-1:] or not {text[-1:], translation[-1:]} & set(".:?!"), text


def test_the_program_says_what_lacks_a_translation(
    messages: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = messages.catalogue("es").read_text(encoding="utf-8")
    poorer = tmp_path / "es.po"
    poorer.write_text(whole.replace('msgstr "Mediana"', 'msgstr ""', 1) + '\nmsgid "gone"\nmsgstr "ido"\n')
    monkeypatch.setattr(messages, "catalogue", lambda code: tmp_path / f"{code}.po")
    monkeypatch.setattr(sys, "argv", ["messages.py", "--check"])
    assert messages.main() == 1
    said = capsys.readouterr().out
    assert "es.po has no translation of: Median\n" in said
    assert "not in line with the code" in said
    monkeypatch.setattr(sys, "argv", ["messages.py"])
    assert messages.main() == 1
    assert poorer.read_text(encoding="utf-8") == whole.replace('msgstr "Mediana"', 'msgstr ""', 1)


# --- what rooms below say


@pytest.mark.parametrize("code", OTHERS)
def test_whatever_a_room_below_says_is_recognised(messages: ModuleType, code: LanguageCode) -> None:
    """Each pattern with something in its fields, as the code would have formatted it."""

    def filled(text: str, number: str, word: str) -> str:
        values = {name: number if form[-1:] in ("g", "f", "d") else word for name, form in fields(text)}
        return "".join(part + (values[name] if name else "") for part, name, *_ in Formatter().parse(text))

    language = language_of(code)
    told = [m for m in catalogue(messages, code) if m.context == TOLD]
    assert len(told) > 200
    for message in told:
        text = filled(message.id, "-12.5", "Zyx")
        assert language.told(text) == filled(message.string, "−12,5", "Zyx"), text


@pytest.mark.parametrize(
    ("english", "spanish"),
    [
        (
            "the last value is of 2024-06-01, 30 days before the as-of date",
            "el último valor es del 1 jun 2024, 30 días antes de la fecha de información",
        ),
        (  # a text in a text, twice
            "12.3 times the last accepted print 950.13; back at 951.2 on 2024-06-03; taken out",
            "12,3 veces el último dato aceptado, 950,13; de vuelta en 951,2 el 3 jun 2024; se quitó",
        ),
        (  # several in one field
            "The new state is not sound: ets newly failed: its answer is not finite; theta newly failed: needs 40 rows "
            "of history.",
            "El nuevo estado no es sólido: ets falló por primera vez: su respuesta no es finita; theta falló por "
            "primera vez: necesita 40 filas de historia.",
        ),
        (  # a command keeps its words
            "'forex rollback 30d --pair USDCLP' goes back to another version",
            "«forex rollback 30d --pair USDCLP» vuelve a otra versión",
        ),
        (
            "somebody's own words, with a {brace} and 1,234.5",
            "somebody's own words, with a {brace} and 1,234.5",
        ),
        ("", ""),
    ],
)
def test_a_text_of_below_with_what_stands_in_it(english: str, spanish: str) -> None:
    assert SPANISH.told(english) == spanish
    assert ENGLISH.told(english) == english.replace("2024-06-01", "1 Jun 2024").replace(
        "2024-06-03", "3 Jun 2024"
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("as of 2024-06-03, at 2024-06-03 12:30 UTC.", "as of 3 Jun 2024, at 3 Jun 2024, 12:30 UTC."),
        ("run 'forex forecast 7d --as-of 2024-06-03'", "run 'forex forecast 7d --as-of 2024-06-03'"),
        (
            "in 2024-06-03.csv and a/2024-06-03, of 2024-02-30",
            "in 2024-06-03.csv and a/2024-06-03, of 2024-02-30",
        ),
    ],
)
def test_a_day_is_written_as_a_page_writes_it_but_for_commands_and_names(text: str, told: str) -> None:
    assert ENGLISH.told(text) == told


def test_every_verdict_is_told() -> None:
    for close, following, words in (
        (0.001, 0.001, "aprovechable a 30 días"),
        (0.001, 0.9, "no es transable"),
        (0.9, 0.9, "no muestra capacidad predictiva"),
    ):
        pvalues = dict.fromkeys(HORIZONS, (close, following))
        verdict = judge_skill(pvalues, Horizon(30), date(2024, 6, 3), 212)
        told = SPANISH.told(verdict.sentence)
        assert words in told
        assert "212 orígenes hasta el 3 jun 2024" in told
        assert not ENGLISH_WORDS.search(told), told
        assert ENGLISH.told(verdict.sentence) == verdict.sentence.replace("2024-06-03", "3 Jun 2024")


def test_every_repair_that_the_gate_makes_is_told() -> None:
    """Of a market with all that can be wrong with one."""
    table = synthetic_table(500)
    table.loc[100, "USDCLP"] = table.loc[99, "USDCLP"]
    table.loc[200, "USDCLP"] *= 30
    table.loc[250:, "Copper"] *= 5
    table.loc[300, "USDCLP"] = -1
    table.loc[310, "USDCLP"] = np.nan
    table.loc[499, "USDCLP"] *= 40
    twice = table.iloc[[350]].assign(USDCLP=table["USDCLP"][350] * 1.001)
    saturday = table.iloc[[360]].assign(Date="2015-08-29")
    bundle = bundle_of(pd.concat([table, twice, saturday]))
    kinds = {r.kind for r in bundle.repairs}
    assert kinds >= {
        "repeated",
        "refuted",
        "confirmed",
        "not_positive",
        "hole",
        "held",
        "duplicate",
        "weekend",
        "stale",
    }
    for repair in bundle.repairs:
        for text in (repair.note, repair.kind.replace("_", " ")):
            told = SPANISH.told(text)
            assert told != text, text
            assert not ENGLISH_WORDS.search(told), told


# --- numbers and dates


def test_numbers_and_dates_are_written_as_in_chile() -> None:
    assert SPANISH.number(1234.56, 2) == "1.234,56"
    assert SPANISH.number(-0.0001, 2) == "0,00"
    assert SPANISH.number(2.5, 1, "+") == "+2,5"
    assert SPANISH.count(1234567) == "1.234.567"
    assert SPANISH.instant(pd.Timestamp("2026-12-01T11:05", tz="America/Santiago")) == "1 dic 2026, 14:05 UTC"
    assert ENGLISH.instant(pd.Timestamp("2026-12-01T14:05")) == "1 Dec 2026, 14:05 UTC"
    assert [SPANISH.say_n("{n} day", "{n} days", n) for n in (1, 2, 0)] == ["1 día", "2 días", "0 días"]
    assert [ENGLISH.say_n("{n} day", "{n} days", n) for n in (1, 2, 0)] == ["1 day", "2 days", "0 days"]


# --- the page


@pytest.fixture(scope="module")
def bundle() -> MarketBundle:
    table = synthetic_table(696, seed=3)
    bare = bundle_of(table, as_of=date.fromisoformat(table["Date"].iloc[-1]))
    day = date(2017, 8, 31)
    events = tuple(
        Event(pd.Timestamp(f"2017-09-{n:02}T13:30Z"), "Nonfarm payrolls", "USD", impact)
        for n, impact in ((5, "high"), (12, "medium"), (19, "low"), (20, ""))
    )
    sources = tuple(
        Source(name, ("usdclp_close", "copper"), MADE, date(2015, 1, 1), day, 12345, LICENCES[name], rule)
        for name, rule in (("yahoo", SPOT_CLOSE.rule), ("ecb", ECB_FIXING.rule))
    )
    held = "14.1 times the last accepted print 660.25; held back until the next prints confirm or refute it"
    offline = (
        "fred: https://fred.example.org/x: silent for 20 s; check the network and the address of the source"
    )
    stale = "the last value is of 2017-06-01, 92 days before the as-of date"
    repairs = (
        Repair("usdclp", "held", date(2017, 9, 1), 9321.5, held),
        Repair("copper", "missing", None, None, "the store holds none of it; models go without"),
        Repair("vix", "offline", None, None, offline),
        Repair("fed_rate", "stale", date(2017, 6, 1), None, stale),
    )
    news = (Headline(MADE, "Peso slips as the dollar gains", "El Diario", "https://example.org/a"),)
    return replace(bare, events=events, sources=sources, repairs=repairs, news=news)


@pytest.fixture(scope="module")
def run(bundle: MarketBundle) -> ForecastRun:
    members = ("random_walk", "drivers", "momentum", "chronos")
    config = EngineConfig(members=members, grid_origins=60, warmup_origins=8)
    return Engine(config, build_members(config, ChronosConfig(model=None))).forecast(bundle, Horizon(30))


KEPT = Decision(
    "kept",
    "The challenger has not shown to be no worse: Δ = +1.20 % of the random walk's CRPS, standard error 0.52 %, "
    "120 origins (27 effective).",
)


@pytest.fixture(scope="module")
def page_in(run: ForecastRun, bundle: MarketBundle) -> Callable[[Language], str]:
    publication = Publication(
        "usdclp-30d",
        3,
        KEPT.outcome,
        KEPT.reason,
        4,
        ("The model of this run could not be logged, so the champion stays as it is.",),
    )

    def page(language: Language) -> str:
        return render_report(
            run, bundle, run_id="r", generated_at=MADE, publication=publication, language=language
        )

    return page


def words_of(page: str) -> str:
    """What a reader sees of a page, and what a screen reader says, but for the words of others and settings."""
    body = page[page.index("<body>") :]
    for out in (
        r"<script.*?</script>",
        r'<ul class="news">.*?</ul>',
        r"<caption><span>(?:Settings|Parámetros).*?</table>",
        r"Nonfarm payrolls",
        r'<div class="still">.*?</div>',  # of the charts, looked at below
    ):
        body = re.sub(out, " ", body, flags=re.DOTALL)
    spoken = re.findall(r'(?:aria-label|title)="([^"]*)"', body)
    return " ".join([*spoken, re.sub(r"<[^>]+>", " ", body)])


def test_a_spanish_page_has_no_english_sentence(page_in: Callable[[Language], str]) -> None:
    page = page_in(SPANISH)
    assert '<html lang="es">' in page
    words = words_of(page)
    # Addresses, identifiers and names of files stay what they are.
    own = re.sub(r"https?://\S+|[a-z]\w*\.\w+|usdclp-30d|usdclp_close", "", words)
    assert re.findall(rf".{{0,40}}{ENGLISH_WORDS.pattern}.{{0,40}}", own, re.IGNORECASE) == []
    for expected in (
        "USD/CLP, a 30 días",
        "no espere ventaja direccional",
        "del 1 sep 2017 hay 9.321,50, 14,1 veces el último dato aceptado, 660,25",
        "Sin conexión: no se pudo obtener vix",
        "en silencio por 20 s",
        "Se publica la versión 3 de usdclp-30d, no la versión 4. El retador no ha mostrado que no es peor",
        "así que el modelo vigente queda como está",
        "no hay pesos configurados",
        "a medianoche",
        "Banco Central Europeo",
        "Paseo aleatorio",
        "mar 5 sep",
        "alto",
    ):
        assert expected in words, expected


def test_an_english_page_has_no_spanish_sentence(page_in: Callable[[Language], str]) -> None:
    page = page_in(ENGLISH)
    assert '<html lang="en">' in page
    assert re.findall(r"\b(el|los|las|del|con|para|según)\b", words_of(page)) == []


def test_the_charts_speak_the_language(run: ForecastRun, bundle: MarketBundle) -> None:
    for name, picture in charts(run, bundle, SPANISH).items():
        spec = picture.spec()
        assert spec["config"]["locale"]["number"]["decimal"] == ","
        assert spec["config"]["locale"]["time"]["shortMonths"][0] == "ene"
        assert spec["config"]["locale"]["time"]["days"][0] == "domingo"
        said = [picture.title, picture.caption, picture.description, *_texts(spec)]
        english = [t for t in said if ENGLISH_WORDS.search(t.replace("Nonfarm payrolls", ""))]
        assert english == [], name


def test_a_percentage_is_written_in_an_axis_as_in_words(run: ForecastRun, bundle: MarketBundle) -> None:
    picture = charts(run, bundle, SPANISH)["coverage_by_step"]
    drawn = draw({"coverage_by_step": picture.spec(still=True)}).svg["coverage_by_step"]
    told = [text.replace("\u00a0", " ") for text in re.findall(r">([^<>]*%[^<>]*)</text>", drawn)]
    assert len(told) > 4
    assert [text for text in told if not re.search(r"\d %", text)] == []


def _texts(spec: Any) -> list[str]:
    """Every text in a definition that is shown: titles, and the texts of its rows."""
    found = []
    if isinstance(spec, dict):
        for key, value in spec.items():
            if key == "datasets":
                rows = [row for rows in value.values() for row in rows]
                found += [text for row in rows for text in row.values() if isinstance(text, str)]
            elif key in ("title", "text") and isinstance(value, str):
                found.append(value)
            elif key != "config":
                found += _texts(value)
    elif isinstance(spec, list):
        for value in spec:
            found += _texts(value)
    return found


def test_the_document_is_in_english_whatever_the_report(run: ForecastRun, bundle: MarketBundle) -> None:
    document = forecast_document(run, bundle, "r", Path("/r.html"))
    assert document["notices"] == data_notices(bundle, ENGLISH)
    assert data_notices(bundle, SPANISH) != document["notices"]
    assert "está" not in json.dumps(document, ensure_ascii=False)


@pytest.mark.browser
def test_a_spanish_page_in_a_browser(
    chromium: Browser, page_in: Callable[[Language], str], tmp_path: Path
) -> None:
    file = tmp_path / "report.html"
    file.write_text(page_in(SPANISH), encoding="utf-8")
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(file.as_uri())
    page.locator(".chart.is-live .live svg").nth(4).wait_for()
    drawn = page.locator(".chart .live svg").all_text_contents()
    assert re.search("1 (abr|ago)", drawn[0])
    assert re.search(r"0,\d\d", drawn[2]), "an axis with a decimal comma"
    assert not re.search(r"\d\.\d", "".join(drawn[1:4]))
    fan = page.locator("[data-chart=fan] .live svg")
    fan.scroll_into_view_if_needed()
    box = fan.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.4 * box["height"])
    page.wait_for_selector("#vg-tooltip-element.visible")
    tip = page.locator("#vg-tooltip-element").inner_text()
    assert re.search(r"Cierre\s+\d{3},\d\d", tip), tip
    assert said == []
    page.close()
