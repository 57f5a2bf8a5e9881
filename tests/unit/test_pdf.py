"""The report as PDF: the page's words on A4, nothing fetched, and a clear error where it cannot be made."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from forex_core.config import ChronosConfig, EngineConfig
from forex_core.engine import Engine, build_members
from forex_core.errors import ConfigError
from forex_core.report.charts import draw_charts
from forex_core.report.folder import copy_report, write_report
from forex_core.report.language import language_of
from forex_core.report.page import render_report
from forex_core.report.pdf import render_pdf, require_pdf
from forex_core.testing import synthetic_bundle
from forex_core.types import Array, ForecastRun, Horizon, LanguageCode, MarketBundle

if TYPE_CHECKING:
    from playwright.sync_api import Browser

MADE = pd.Timestamp("2024-07-01T12:30:00Z")


@pytest.fixture(scope="module")
def bundle() -> MarketBundle:
    return synthetic_bundle(800)


@pytest.fixture(scope="module")
def run(bundle: MarketBundle) -> ForecastRun:
    config = EngineConfig(members=("random_walk", "drivers", "momentum"), grid_origins=60, warmup_origins=8)
    return Engine(config, build_members(config, ChronosConfig())).forecast(bundle, Horizon(30))


def printed(page: str, folder: Path) -> str:
    """The words of its PDF, page by page."""
    file = folder / "report.pdf"
    file.write_bytes(render_pdf(page))
    done = subprocess.run(["pdftotext", "-layout", file, "-"], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.slow
@pytest.mark.usefixtures("pdf")
@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            "en",
            ("USD/CLP, 30 days ahead", "Verdict:", "Target dates", "Out-of-sample scores", "How it was made"),
        ),
        ("es", ("USD/CLP, a 30 días", "Veredicto:", "Fechas objetivo", "fuera de muestra", "Cómo se hizo")),
    ],
)
def test_the_words_and_figures_of_the_page_are_in_it(
    run: ForecastRun, bundle: MarketBundle, tmp_path: Path, code: LanguageCode, words: tuple[str, ...]
) -> None:
    language = language_of(code)
    page = render_report(run, bundle, run_id="0123456789abcdef", generated_at=MADE, language=language)
    text = printed(page, tmp_path)
    for expected in (*words, "0123456789abcdef", run.fingerprint[:40]):
        assert expected in text
    for h, day in enumerate(run.forecast.target_dates):
        row = next(line for line in text.splitlines() if line.strip().startswith(f"{language.day(day)} "))
        assert language.number(float(run.forecast.median[h]), 2) in row
    assert language.number(float(run.forecast.median[-1]), 2) in text.split(words[2])[0], "the chart's label"
    pages = text.rstrip("\f").split("\f")
    assert 3 <= len(pages) <= 9
    assert re.search(rf"1 ?/ ?{len(pages)}", pages[0])
    info = subprocess.run(
        ["pdfinfo", tmp_path / "report.pdf"], capture_output=True, text=True, check=True
    ).stdout
    assert "A4" in info
    assert re.search(r"Title:\s+USD/CLP 30d", info)
    assert re.search(r"JavaScript:\s+no", info)
    assert re.search(r"Tagged:\s+yes", info)


def bands(picture: Image.Image, margin: float = 0.0) -> Array:
    """[2, 4] Left, right, top and bottom of the fan's two bands: across as shares of the width of the text, and of the
    outer band's height."""
    pixels, blue = np.asarray(picture.convert("RGB")).astype(float), np.array([0x1B, 0x5E, 0x9E])
    outer = 255 - 0.16 * (255 - blue)
    found = []
    for colour in (outer, outer - 0.26 * (outer - blue)):
        y, x = np.nonzero((abs(pixels - colour) <= 3).all(axis=2))
        assert len(x) > 1000, "a band is not there in its colour"
        found.append([x.min() - margin, x.max() - margin, y.min(), y.max()])
    across, down = picture.width - 2 * margin, found[0][3] - found[0][2]
    return (np.array(found) - [0, 0, found[0][2], found[0][2]]) / [across, across, down, down]


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.usefixtures("pdf")
def test_it_looks_like_the_page(
    run: ForecastRun, bundle: MarketBundle, tmp_path: Path, chromium: Browser
) -> None:
    page = render_report(run, bundle, run_id="r", generated_at=MADE)
    printed(page, tmp_path)
    first = ["pdftoppm", "-r", "120", "-f", "1", "-l", "1", "-png", "-singlefile"]
    subprocess.run([*first, tmp_path / "report.pdf", tmp_path / "paper"], check=True)
    paper = Image.open(tmp_path / "paper.png")
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    shown = chromium.new_page(viewport={"width": 1000, "height": 900})
    shown.goto((tmp_path / "report.html").as_uri())
    screen = Image.open(BytesIO(shown.locator("figure").first.screenshot()))
    shown.close()
    found = bands(paper, margin=paper.width * 13 / 210)
    assert found == pytest.approx(bands(screen), abs=0.03)
    assert (found[:, 0] > 0.7).all(), "the bands come after the closes"


@pytest.mark.usefixtures("pdf")
def test_no_row_of_a_table_stands_alone_on_a_page(tmp_path: Path) -> None:
    style = files("forex_core.report").joinpath("templates", "report.css").read_text(encoding="utf-8")

    def table(rows: int, above: int) -> str:
        """A table of so many rows with so many pixels of its page above it."""
        return (
            f"<div style='break-before: page; height: {above}px'></div>"
            "<div class=scroll><table><thead><tr><th>Head</th></tr></thead>"
            f"<tbody>{'<tr><th>row</th></tr>' * rows}</tbody></table></div>"
        )

    tables = [table(rows, 0) for rows in range(38, 48)] + [table(6, above) for above in range(720, 1000, 10)]
    text = printed(f"<html lang=en><style>{style}</style><main>{''.join(tables)}</main></html>", tmp_path)
    rows = [page.count("row") for page in text.split("\f")]
    assert len([n for n in rows if n]) > len(tables), "some went on"
    assert 1 not in rows


@pytest.mark.slow
@pytest.mark.usefixtures("pdf")
def test_it_fetches_nothing_and_stays_small(run: ForecastRun, bundle: MarketBundle, tmp_path: Path) -> None:
    hostile = '<img src="http://127.0.0.1:9/x"><img src="file:///etc/passwd"><link rel=stylesheet href="http://127.0.0.1:9/y">'
    page = render_report(run, bundle, run_id="r", generated_at=MADE).replace("</h1>", f"</h1>{hostile}", 1)
    text = printed(page, tmp_path)
    assert "root:" not in text
    assert len((tmp_path / "report.pdf").read_bytes()) < 300_000


@pytest.mark.slow
@pytest.mark.usefixtures("pdf")
def test_it_lies_beside_the_page_and_moves_with_it(
    run: ForecastRun, bundle: MarketBundle, tmp_path: Path
) -> None:
    drawings = draw_charts(run, bundle)
    document = write_report(tmp_path / "run", run, bundle, "r", drawings, pdf=True)
    assert document["pdf"] == str(tmp_path / "run" / "report.pdf")
    moved = copy_report(document, tmp_path / "out")
    assert moved["pdf"] == str(tmp_path / "out" / "report.pdf")
    assert Path(moved["pdf"]).read_bytes() == Path(document["pdf"]).read_bytes()
    without = write_report(tmp_path / "other", run, bundle, "r", drawings)
    assert without["pdf"] is None
    assert not (tmp_path / "other" / "report.pdf").exists()
    assert copy_report(without, tmp_path / "there")["pdf"] is None


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "weasyprint", None)  # as where it is not installed
    with pytest.raises(ConfigError, match=r"pip install \"forex-forecast\[pdf\]\".*libpango"):
        require_pdf()


def test_without_its_libraries_it_says_which(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # What it does on import on a machine without Pango; there is none here to take it from.
    (tmp_path / "weasyprint.py").write_text("raise OSError('cannot load library \\'libpango-1.0-0\\'')\n")
    monkeypatch.delitem(sys.modules, "weasyprint", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=r"libpango-1\.0-0.*install the system packages"):
        require_pdf()
