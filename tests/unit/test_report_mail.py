"""The mail that brings a report: all that counts, in both forms and languages, and nothing that is fetched."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from forex_core.config import ChronosConfig, EngineConfig
from forex_core.engine import Engine, build_members
from forex_core.report.charts import draw_charts
from forex_core.report.document import forecast_document
from forex_core.report.folder import write_report
from forex_core.report.language import language_of
from forex_core.report.mail import Mail, report_mail
from forex_core.testing import synthetic_bundle
from forex_core.types import ForecastRun, Horizon, LanguageCode, MarketBundle, Publication

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HOSTILE = "<img src=https://evil.example/x onerror=alert(1)>"
PINNED = Publication("usdclp-90d", 2, "pinned", f"Version 2 is pinned: {HOSTILE}.", 3)


@pytest.fixture(scope="module")
def bundle() -> MarketBundle:
    return synthetic_bundle(800)


@pytest.fixture(scope="module")
def run(bundle: MarketBundle) -> ForecastRun:
    config = EngineConfig(members=("random_walk", "drivers", "momentum"), grid_origins=60, warmup_origins=8)
    return Engine(config, build_members(config, ChronosConfig())).forecast(bundle, Horizon(90))


def mail(run: ForecastRun, bundle: MarketBundle, code: LanguageCode = "en", **files: str) -> Mail:
    document = forecast_document(run, bundle, "0123456789abcdef", Path("/reports/report.html"), PINNED)
    return report_mail(run, bundle, document | {"pdf": None, **files}, PINNED, language_of(code))


def seen(markup: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", re.sub(r"<title>.*?</title>", "", markup))).split())


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (
            "en",
            ("USD/CLP, 90 days ahead", "use the band", "Published is version 2 of usdclp-90d, not version 3"),
        ),
        (
            "es",
            ("USD/CLP, a 90 días", "use la banda", "Se publica la versión 2 de usdclp-90d, no la versión 3"),
        ),
    ],
)
def test_both_forms_say_the_same(
    run: ForecastRun, bundle: MarketBundle, code: LanguageCode, expected: tuple[str, ...]
) -> None:
    made = mail(run, bundle, code)
    language = language_of(code)
    median, (low, high) = run.forecast.median[-1], run.forecast.interval(0.8)
    figures = [language.number(float(v), 2) for v in (median, low[-1], high[-1])]
    for said in (seen(made.html), made.text):
        for words in (*expected, *figures, "0123456789abcdef"):
            assert words in said
    assert made.title.startswith(expected[0])
    assert all(figure in made.title for figure in figures)
    assert "\n" not in made.title
    assert f'<html lang="{code}">' in made.html


def test_a_long_path_is_told_by_few_dates_the_last_among_them(run: ForecastRun, bundle: MarketBundle) -> None:
    made = mail(run, bundle)
    days = [language_of("en").day(day) for day in run.forecast.target_dates]
    told = [day for day in days if f"\n{day}: " in made.text]
    assert len(days) > 50
    assert len(told) == 8
    assert (told[0], told[-1]) == (days[0], days[-1])
    assert np.ptp(np.diff([days.index(day) for day in told])) <= 1
    assert made.html.count("<tr>") == 6 + 1 + 8, "facts, head, dates"


def test_what_is_attached_and_shown(run: ForecastRun, bundle: MarketBundle) -> None:
    made = mail(run, bundle)
    assert made.files == (Path("/reports/report.html"),)
    assert made.pictures == (Path("/reports/charts/fan.png"),)
    assert mail(run, bundle, pdf="/reports/report.pdf").files == (Path("/reports/report.pdf"),)
    assert re.findall(r'src="([^"]*)"', made.html) == ["cid:fan.png"]


def test_words_of_others_are_escaped_and_nothing_is_fetched(run: ForecastRun, bundle: MarketBundle) -> None:
    made = mail(replace(run, failures={HOSTILE: HOSTILE}), bundle)
    assert HOSTILE in made.text
    assert html.escape(HOSTILE, quote=False) in made.html.replace("&#34;", '"').replace("&#39;", "'")
    assert "<img src=https" not in made.html
    assert re.findall(r'<[^>]*(?:src|href)="(?!cid:)', made.html) == []
    assert "<script" not in made.html


@pytest.mark.browser
def test_on_a_phone(chromium: Browser, run: ForecastRun, bundle: MarketBundle, tmp_path: Path) -> None:
    drawings = draw_charts(run, bundle, language=language_of("es"))
    document = write_report(tmp_path / "run", run, bundle, "r", drawings, lang="es")
    made = report_mail(run, bundle, document, None, language_of("es"))
    assert all(path.is_file() for path in (*made.pictures, *made.files))
    file = tmp_path / "mail.html"
    file.write_text(made.html.replace("cid:fan.png", made.pictures[0].as_uri()), encoding="utf-8")
    page = chromium.new_page(viewport={"width": 390, "height": 900})
    page.goto(file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("document.images[0].naturalWidth > 1000")
    page.close()
