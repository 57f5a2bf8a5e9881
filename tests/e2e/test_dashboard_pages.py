"""The dashboard's pages in a real browser: what they show, how they are used, and what they keep out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from forex_core.calendars import origin_instant
from forex_core.config import Settings, load_settings
from forex_core.dashboard import Reader, TrackedRuns, write_site
from forex_core.dashboard.charts import Bands
from forex_core.data.store import ObservationStore
from forex_core.ledger import Alarm, Ledger, Trajectory
from forex_core.report.language import label_of
from forex_core.types import HORIZONS, Horizon
from tests import dashboards
from tests.ledgers import USDCLP, entry

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(280)]
H7 = Horizon(7)
PAGES = (
    "index.html",
    "usdclp-7d.html",
    "usdclp-90d.html",
    "usdclp-30d-2026.html",
    "health.html",
    "runs.html",
)
LARGEST_KB = 1500
HOSTILE = (
    '</script><script>alert(1)</script><img src=x onerror="alert(2)">\u202etxt.exe\u200b" onfocus="alert(3)'
)


@dataclass(frozen=True)
class Site:
    folder: Path
    settings: Settings
    ledger: Ledger

    def address(self, name: str) -> str:
        return (self.folder / name).as_uri()

    def path(self, horizon: Horizon, origin: date | None = None) -> Trajectory:
        found = [one for one in self.ledger.publications(USDCLP, horizon) if origin in (None, one.origin)]
        return self.ledger.path(found[-1].number)


def written(folder: Path, tracked: TrackedRuns | None, settings: Settings) -> Site:
    write_site(folder, Reader(settings, tracked, lambda: dashboards.NOW))
    return Site(folder, settings, Ledger(settings.store_url))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The pages of a deployment with a past of five months."""
    home = tmp_path_factory.mktemp("dashboard")
    settings = load_settings(data_dir=home / "data")
    dashboards.fill(settings, days=100)
    return written(home / "site", dashboards.told(), settings)


class Opened:
    """A page, and what it said and asked for while it was open."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.said: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("dialog", lambda dialog: (self.said.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: self.asked.append(request.url))

    def go(self, address: str) -> Page:
        self.page.goto(address)
        return self.page


@pytest.fixture
def opened(chromium: Browser) -> Iterator[Opened]:
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    yield Opened(page)
    page.close()


def test_there_is_a_page_for_everything(site: Site) -> None:
    names = {file.name for file in site.folder.glob("*.html")}
    series = {f"usdclp-{horizon}.html" for horizon in HORIZONS}
    years = {f"usdclp-{horizon}-2026.html" for horizon in HORIZONS}
    assert names == {"index.html", "health.html", "runs.html", *series, *years}
    assert max(file.stat().st_size for file in site.folder.glob("*.html")) < LARGEST_KB * 1000


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (1280, "light"),
        (390, "dark"),
        pytest.param(1280, "dark", marks=pytest.mark.slow),
        pytest.param(390, "light", marks=pytest.mark.slow),
    ],
)
def test_every_page_is_sound(
    name: str, width: int, scheme: Any, site: Site, chromium: Browser, tmp_path: Path
) -> None:
    """No error, nothing asked of anybody, every chart there, no finding of axe that counts."""
    opened = Opened(chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme))
    page = opened.go(site.address(name))
    page.wait_for_function("document.readyState === 'complete'")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(set(ids)) == len(ids)
    figures = page.locator("figure.drawn").all()
    for figure in figures:
        pictures = [svg for svg in figure.locator("svg.plot").all() if svg.is_visible()]
        assert len(pictures) == 1, "of two widths the one that fits"
        assert pictures[0].locator("path.line").count() > 0
        assert len(str(pictures[0].get_attribute("aria-label"))) > 40
    assert bool(figures) == (name not in ("health.html", "runs.html"))
    assert opened.said == []
    assert opened.asked == [site.address(name)]
    picture = tmp_path / "page.png"
    page.screenshot(path=picture, full_page=True)
    assert picture.stat().st_size > 20_000
    assert dashboards.findings(chromium, site.address(name), width, scheme) == []
    opened.page.close()


def test_the_first_page_has_the_numbers_of_the_ledger(site: Site, opened: Opened) -> None:
    page = opened.go(site.address("index.html"))
    for horizon in HORIZONS:
        path = site.path(horizon)
        bands, card = Bands.of(path), page.locator(f"article:has(#card-usdclp-{horizon})")
        assert (
            card.locator(".said strong").inner_text()
            == f"{bands.low_80[-1]:,.2f} to {bands.high_80[-1]:,.2f}"
        )
        assert card.locator("dd").first.inner_text() == f"{bands.median[-1]:,.2f}"
        labels = card.locator("svg text.label").all_text_contents()
        edges = (bands.high_95, bands.high_80, bands.median, bands.low_80, bands.low_95)
        assert labels == [f"{edge[-1]:,.2f}" for edge in edges]
    assert page.locator(".attention li").all_inner_texts() == [
        "USD/CLP, 7 days narrow bands: 61 % of the last 31 outcomes lay in the 80 % band (as of 28 Nov 2026)",
        "Data too old: copper",
    ]


def drawn_points(page: Page, path: str) -> list[tuple[float, float]]:
    """The points of the drawn path that is seen: how far along the plot, and the value by two ticks of its axis."""
    found: list[tuple[float, float]] = page.evaluate(
        """(selector) => {
            const path = [...document.querySelectorAll(selector)].find((p) => p.getClientRects().length);
            const svg = path.ownerSVGElement, [left, across] = svg.dataset.plot.split(' ').map(Number);
            const ticks = [...svg.querySelectorAll('text.tick[text-anchor=end]')].map(
                (t) => [parseFloat(t.textContent.replace(/[^0-9.]/g, '')), +t.getAttribute('y') - 4]);
            const [[a, ya], [b, yb]] = [ticks[0], ticks[ticks.length - 1]];
            const points = [];
            let x = 0;
            for (const [, command, words] of path.getAttribute('d').matchAll(/([MLHV])([\\d. ]+)/g)) {
                const numbers = words.split(' ').map(Number);
                if (command !== 'V') x = numbers[0];
                const value = a + (numbers.at(-1) - ya) / (yb - ya) * (b - a);
                if (command !== 'H') points.push([(x - left) / across, value]);
            }
            return points;
        }""",
        path,
    )
    return found


def drawn_values(page: Page, path: str) -> list[float]:
    return [value for _, value in drawn_points(page, path)]


def assert_drawn(
    page: Page, path: str, days: Sequence[date], values: Sequence[float], *, atol: float
) -> None:
    """The values where their days stand along a plot that spans them."""
    shown, found = zip(*drawn_points(page, path), strict=True)
    along = [(day - days[0]) / (days[-1] - days[0]) for day in days]
    np.testing.assert_allclose(shown, along, atol=0.002)
    np.testing.assert_allclose(found, values, atol=atol)


def test_what_is_drawn_is_what_was_forecast(site: Site, opened: Opened) -> None:
    page, path = opened.go(site.address("index.html")), site.path(Horizon(30))
    shown = drawn_values(page, "#fan-usdclp-30d path.forecast.strong")
    expected = [path.of.close, *Bands.of(path).median]
    np.testing.assert_allclose(shown, expected, atol=0.3)  # a tenth of a pixel
    band = drawn_values(page, "#fan-usdclp-30d path.band80")
    high, low = Bands.of(path).high_80, Bands.of(path).low_80
    np.testing.assert_allclose(band, [path.of.close, *high, *low[::-1], path.of.close], atol=0.3)


def test_the_pointer_is_told_the_numbers(site: Site, opened: Opened) -> None:
    page, path = opened.go(site.address("index.html")), site.path(H7)
    box = page.locator("#fan-usdclp-7d svg").bounding_box()
    assert box
    left, across, *_ = map(float, str(page.locator("#fan-usdclp-7d svg").get_attribute("data-plot")).split())
    page.mouse.move(box["x"] + (left + across - 1) * box["width"] / 400, box["y"] + box["height"] / 2)
    bands = Bands.of(path)
    assert page.locator("#tip").inner_text().split("\n") == [
        "4 Dec 2026",
        f"Median {bands.median[-1]:,.2f}",
        f"80\u00a0% {bands.low_80[-1]:,.2f} to {bands.high_80[-1]:,.2f}",
        f"95\u00a0% {bands.low_95[-1]:,.2f} to {bands.high_95[-1]:,.2f}",
    ]


VERDICTS = {
    "usable": ("Usable skill", "The median beats the random walk even from the next close."),
    "close_only": (
        "Skill against the close only",
        "The median beats the origin's close, not the next one: that skill is in how the close is struck and cannot be "
        "traded. Expect no directional edge; use the band.",
    ),
    "none": (
        "No directional edge",
        "No skill of the median over the random walk is shown: expect no directional edge; use the band.",
    ),
}


def test_the_verdict_is_that_of_the_forecast(tmp_path: Path, opened: Opened) -> None:
    settings = load_settings(data_dir=tmp_path / "data")
    told = dict(zip(HORIZONS, VERDICTS, strict=False))
    for horizon, verdict in told.items():
        Ledger(settings.store_url).append(replace(entry(dashboards.LAST, horizon), verdict=verdict))
    site = written(tmp_path / "site", None, settings)
    page = opened.go(site.address("index.html"))
    for horizon, verdict in told.items():
        said = page.locator(f"article:has(#card-usdclp-{horizon}) dt:text-is('Verdict') + dd")
        assert said.inner_text() == VERDICTS[verdict][0]
        assert said.get_attribute("class") == f"verdict-{verdict}"
    for horizon, verdict in told.items():
        page = opened.go(site.address(f"usdclp-{horizon}.html"))
        assert page.locator(f"section.verdict.{verdict} .sentence").inner_text() == ". ".join(
            VERDICTS[verdict]
        )


def came_of(page: Page) -> list[list[str]]:
    return [row.locator("th, td").all_inner_texts() for row in page.locator("#came tbody tr").all()]


def expected_rows(path: Trajectory) -> list[list[str]]:
    bands, rows = Bands.of(path), []
    for h, day in enumerate(path.target_dates):
        outcome = path.outcomes[h]
        fell = (
            "–"
            if np.isnan(outcome)
            else "inside 80 %"
            if bands.low_80[h] <= outcome <= bands.high_80[h]
            else "inside 95 %"
            if bands.low_95[h] <= outcome <= bands.high_95[h]
            else "above"
            if outcome > bands.high_95[h]
            else "below"
        )
        rows.append(
            [
                f"{day.day} {day:%b %Y}",
                f"{bands.median[h]:,.2f}",
                f"{bands.low_80[h]:,.2f} to {bands.high_80[h]:,.2f}",
                f"{bands.low_95[h]:,.2f} to {bands.high_95[h]:,.2f}",
                "–" if np.isnan(outcome) else f"{outcome:,.2f}",
                fell,
            ]
        )
    return rows


def test_any_forecast_of_the_past_can_be_looked_at(site: Site, opened: Opened) -> None:
    page = opened.go(site.address("usdclp-7d.html"))
    origins = [one.origin for one in site.ledger.publications(USDCLP, H7)]
    for origin in (origins[40], origins[60]):
        page.fill("#origin", origin.isoformat())
        path = site.path(H7, origin)
        assert came_of(page) == expected_rows(path)
        said = page.locator("#told").inner_text()
        assert said.startswith(f"Said on {origin.day} {origin:%b %Y} (close {path.of.close:,.2f}) for ")
        assert f"It came at {path.outcomes[-1]:,.2f}, " in said
        assert page.locator("#path svg").get_attribute("aria-label") == said
        np.testing.assert_allclose(
            drawn_values(page, "#path path.ink.strong"), [path.of.close, *path.outcomes], atol=0.3
        )
    # By keyboard: from one forecast to the next and back, and no further than there are any.
    page.focus("#after")
    page.keyboard.press("Enter")
    assert page.input_value("#origin") == origins[61].isoformat()
    assert page.url.endswith(f"#{origins[61]}")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")
    assert page.input_value("#origin") == origins[60].isoformat()
    page.fill("#origin", origins[-1].isoformat())
    assert page.locator("#after").is_disabled()
    assert page.locator("#told").inner_text().endswith("Nothing has come yet.")
    # A day without a forecast stands for the last before it.
    sunday = origins[60] + timedelta(days=(6 - origins[60].weekday()))
    page.fill("#origin", sunday.isoformat())
    assert date.fromisoformat(page.input_value("#origin")) == max(day for day in origins if day <= sunday)


def test_a_link_to_one_forecast_opens_it_and_years_lead_to_each_other(tmp_path: Path, opened: Opened) -> None:
    settings = load_settings(data_dir=tmp_path / "data")
    ledger = Ledger(settings.store_url)
    old, new = date(2024, 3, 4), date(2026, 3, 2)
    for origin in (old, new):
        ledger.append(entry(origin))
    came = [day for origin in (old, new) for day in ledger.path(1 if origin == old else 2).target_dates]
    known = [pd.Timestamp(day, tz="UTC") + pd.Timedelta(days=1) for day in came]
    ledger.record(USDCLP, "close", came, np.full(len(came), 955.0), known)
    site = written(tmp_path / "site", None, settings)
    page = opened.go(site.address("usdclp-7d.html") + f"#{new}")
    assert page.locator("#told").inner_text().startswith("Said on 2 Mar 2026")
    page.fill("#origin", "2024-03-06")
    page.locator("#told").get_by_text("Said on 4 Mar 2024").wait_for()
    page.get_by_role("navigation", name="Forecasts by year").get_by_role("link", name="2026").click()
    page.locator("#told").get_by_text("Said on 2 Mar 2026").wait_for()
    assert opened.said == []


def test_where_the_next_forecast_began_is_no_outcome(tmp_path: Path, opened: Opened) -> None:
    """The print of the first target date was held back, and the next forecast made from the close before."""
    settings = load_settings(data_dir=tmp_path / "data")
    ledger, origin = Ledger(settings.store_url), date(2026, 3, 2)
    ledger.append(entry(origin))
    held, *came = ledger.path(1).target_dates
    ledger.append(entry(held))
    known = [pd.Timestamp(day, tz="UTC") + pd.Timedelta(days=1) for day in came]
    ledger.record(USDCLP, "close", came, np.full(len(came), 955.0), known)
    page = opened.go(written(tmp_path / "site", None, settings).address("usdclp-7d.html") + f"#{origin}")
    page.locator("#told").get_by_text("Said on 2 Mar 2026").wait_for()
    assert came_of(page) == expected_rows(ledger.path(1))
    assert came_of(page)[0][-2:] == ["–", "–"]
    assert len(drawn_values(page, "#path path.ink.strong")) == 1 + len(came)


def test_a_gap_in_the_rate_is_drawn_and_told_as_one(tmp_path: Path, opened: Opened) -> None:
    """In the pictures of the page and in those that its script draws; a week and a holiday is none."""
    settings = load_settings(data_dir=tmp_path / "data")
    ledger = Ledger(settings.store_url)
    days = [day.date() for day in pd.bdate_range("2026-01-05", "2026-03-13")]
    missing = {day for day in days if date(2026, 2, 2) <= day <= date(2026, 2, 9)}
    missing |= {day for day in days if date(2026, 2, 16) <= day <= date(2026, 2, 19)}
    missing |= {date(2026, 1, 19), date(2026, 3, 3), date(2026, 3, 11), date(2026, 3, 12)}
    came = [day for day in days if day not in missing]
    ledger.append(entry(days[0], Horizon(90)))  # which speaks of every day
    ledger.append(entry(date(2026, 3, 2)))
    values = 950 + np.arange(len(came), dtype=float)
    ledger.record(USDCLP, "close", came, values, [origin_instant(USDCLP, day) for day in came])
    page = opened.go(written(tmp_path / "site", None, settings).address("usdclp-7d.html") + "#2026-03-02")
    page.locator("#told").get_by_text("Said on 2 Mar 2026").wait_for()
    told = "No close on record between\n30 Jan 2026 and 10 Feb 2026"
    for figure in ("#ahead", "#path"):
        line = page.locator(f"{figure} svg:visible path.ink:not(.strong)")
        assert str(line.get_attribute("d")).count("M") == 2
        assert str(page.locator(f"{figure} svg:visible path.ink.strong").get_attribute("d")).count("M") == 1
        tips = json.loads(str(page.locator(f"{figure} .tips").text_content()))
        assert [words for _, words in tips if words.startswith("No close on record")] == [told]
        assert [at for at, _ in tips] == sorted(at for at, _ in tips), "the arrow keys come to them in order"
    before = sum(day <= date(2026, 3, 2) for day in came)
    np.testing.assert_allclose(drawn_values(page, "#path path.ink:not(.strong)"), values[:before], atol=0.3)
    page.locator("#path .canvas").focus()
    page.keyboard.press("Home")
    for _ in range([words for _, words in tips].index(told)):
        page.keyboard.press("ArrowRight")
    assert page.locator("#tip").inner_text() == told
    assert opened.said == []


def test_the_record_of_a_horizon_is_that_of_the_ledger(site: Site, opened: Opened) -> None:
    page = opened.go(site.address("usdclp-7d.html"))
    track = site.ledger.track(USDCLP, "close", H7, ends=True)
    facts = dict(
        zip(
            page.locator("[aria-labelledby=record] dt").all_inner_texts(),
            page.locator("[aria-labelledby=record] dd").all_inner_texts(),
            strict=True,
        )
    )
    assert facts["RMSE, CLP"] == f"{np.sqrt((track.errors**2).mean()):,.2f}"
    assert facts["Inside the 80\u00a0% band"] == f"{100 * track.inside_80.mean():.1f}\u00a0%"
    ratio = np.sqrt((track.errors**2).sum() / (track.walk_errors**2).sum())
    assert facts["RMSE over the random walk's"] == f"{ratio:.3f}"
    last = 60
    labels = page.locator("#coverage svg text.label").all_text_contents()
    assert f"80\u00a0%: {100 * track.inside_80[-last:].mean():.0f}\u00a0%" in labels
    over = np.sqrt((track.errors[-last:] ** 2).sum() / (track.walk_errors[-last:] ** 2).sum())
    assert f"RMSE {over:.2f}" in page.locator("#skill svg text.label").all_text_contents()
    windows = [slice(max(0, k - last), k) for k in range(20, len(track) + 1)]
    shares = [track.inside_80[one].mean() for one in windows]
    np.testing.assert_allclose(drawn_values(page, "#coverage path.strong"), 100 * np.array(shares), atol=0.1)
    ratios = [
        np.sqrt((track.errors[one] ** 2).sum() / (track.walk_errors[one] ** 2).sum()) for one in windows
    ]
    np.testing.assert_allclose(drawn_values(page, "#skill path.strong"), ratios, atol=5e-4)
    crps = [track.crps[one].sum() / track.walk_crps[one].sum() for one in windows]
    np.testing.assert_allclose(drawn_values(page, "#skill path.faint"), crps, atol=5e-4)
    assert f"CRPS {crps[-1]:.2f}" in page.locator("#skill svg text.label").all_text_contents()
    outer = [100 * track.inside_95[one].mean() for one in windows]
    np.testing.assert_allclose(drawn_values(page, "#coverage path.faint"), outer, atol=0.1)
    assert f"95\u00a0%: {outer[-1]:.0f}\u00a0%" in labels


def test_what_was_said_of_each_date_is_drawn_with_what_came(site: Site, opened: Opened) -> None:
    page = opened.go(site.address("usdclp-7d.html"))
    paths = [site.path(H7, one.origin) for one in site.ledger.publications(USDCLP, H7)]
    ended = [path for path in paths if np.isfinite(path.outcomes[-1])]
    ends, bands = [path.target_dates[-1] for path in ended], [Bands.of(path) for path in ended]
    assert len(ended) > 90
    assert_drawn(page, "#said path.forecast", ends, [one.median[-1] for one in bands], atol=0.3)
    high, low = [one.high_80[-1] for one in bands], [one.low_80[-1] for one in bands]
    np.testing.assert_allclose(drawn_values(page, "#said path.band80"), [*high, *low[::-1]], atol=0.3)
    days, rates, came = site.ledger.rates(USDCLP, "close", ends[0])
    assert_drawn(page, "#said path.ink", days[came].tolist(), rates[came], atol=0.3)
    inside = sum(
        one.low_80[-1] <= path.outcomes[-1] <= one.high_80[-1] for one, path in zip(bands, ended, strict=True)
    )
    caption = page.locator("#said figcaption").inner_text()
    assert caption.endswith(f"and the rate that came. Inside the band: {inside} of {len(ended)}.")


def test_the_scores_of_every_lead_are_those_of_the_ledger(site: Site, opened: Opened) -> None:
    page = opened.go(site.address("usdclp-7d.html"))
    page.get_by_text("By lead").click()
    shown = page.locator("details:has(summary:text('By lead')) tbody tr").all()
    track = site.ledger.track(USDCLP, "close", H7, members=True)
    expected = []
    for step in range(1, 6):
        of = track.at(track.steps == step)
        apart = [of.origins[0]]
        for day in of.origins:
            if np.busday_count(apart[-1], day) >= step:
                apart.append(day)
        rmse, walk = (np.sqrt((errors**2).mean()) for errors in (of.errors, of.walk_errors))
        by_member = {name: np.sqrt((errors**2).mean()) for name, errors in of.members.items()}
        best = min(sorted(by_member), key=lambda name: by_member[name])
        expected.append(
            [
                str(step),
                str(len(of)),
                str(len(apart)),
                f"{rmse:,.2f}",
                f"{abs(of.errors).mean():,.2f}",
                f"{100 * abs(of.errors / of.outcomes).mean():.2f}",
                f"{rmse / walk:.3f}",
                f"{of.crps.mean() / of.walk_crps.mean():.3f}",
                f"{100 * of.inside_80.mean():.1f}",
                f"{100 * of.inside_95.mean():.1f}",
                f"{label_of(best)} {by_member[best]:,.2f}, n = {len(of)}",
            ]
        )
    assert [row.locator("th, td").all_inner_texts() for row in shown] == expected


def test_weights_and_champions_of_every_day_are_drawn(site: Site, opened: Opened) -> None:
    page = opened.go(site.address("usdclp-7d.html"))
    published = site.ledger.publications(USDCLP, H7)
    now = sorted(published[-1].weights, key=lambda name: -published[-1].weights[name])
    shown = page.locator("#weights svg text.label").all_text_contents()
    assert shown == [f"{100 * published[-1].weights[name]:.1f} %" for name in now]
    names = page.locator("#weights svg text.tick[text-anchor=end]").all_text_contents()
    assert names == [label_of(name) for name in now]
    areas = [str(one.get_attribute("d")) for one in page.locator("#weights path.area").all()]
    heights = []
    for area in areas:
        base, *above, last = [float(y) for _, y in re.findall(r"([\d.]+) ([\d.]+)", area)]
        assert last == base
        heights.append([base - y for y in above])
    weights = np.array([[one.weights[name] for one in published] for name in now])
    np.testing.assert_allclose(heights / np.max(heights), weights / weights.max(), atol=0.01)
    days, versions = [one.origin for one in published], [float(one.version or 0) for one in published]
    assert_drawn(page, "#champions path.forecast.strong", days, versions, atol=0.2)
    assert page.locator("#champions svg text.label").text_content() == f"v{published[-1].version}"


def test_rollbacks_are_marked(site: Site, opened: Opened) -> None:
    page = opened.go(site.address("usdclp-7d.html"))
    assert page.locator("#champions .mark title").text_content() == "rollback to version 100, 20 Aug 2026"
    assert page.locator("[aria-labelledby=changes] tbody tr").all_inner_texts() == [
        "20 Aug 2026, 15:30\trollback\tv200\tv100\tana@treasury\tbands too narrow after the election\tdone"
    ]
    opened.go(site.address("usdclp-15d.html"))
    assert page.locator("#champions .mark").count() == 0


def test_two_runs_can_be_compared(site: Site, opened: Opened) -> None:
    page = opened.go(site.address("runs.html"))
    page.select_option("#left", label="00000001 USDCLP 7d, 26 Nov 2026, 12:00")
    page.select_option("#right", label="00000003 USDCLP 15d, 24 Nov 2026, 12:00")
    remark = page.locator("#remark").inner_text()
    assert "different markets or horizons (USDCLP 7d, USDCLP 15d)" in remark
    assert "scores of different weeks do not compare" in remark
    rows = [
        row.inner_text().split("\t")
        for row in page.locator("#compared table").nth(1).locator("tbody tr").all()
    ]
    assert rows[0] == ["Ensemble", "9.100", "9.300", "0.80", "0.80", "–", "–"]
    assert page.locator("#compared td.less").count() == 0, "no score is better than one of another week"
    params = [row.inner_text() for row in page.locator("#compared table").nth(2).locator("tbody tr").all()]
    assert params == ["num_news\t1\t3"]


@pytest.mark.parametrize("width", [1280, 390])
def test_why_a_run_failed_is_read_in_full(width: int, tmp_path: Path, chromium: Browser) -> None:
    """And so is a digest, by keyboard, whose beginning is enough to tell it from another."""
    reason = "SourceUnavailable: " + ", ".join(f"series {k} of yahoo could not be fetched" for k in range(30))
    digests = ["0" * 12 + "a" * 52, "1" * 12 + "b" * 52]
    runs = [
        dashboards.run(0, single_params={"snapshot": digests[0]}),
        dashboards.run(1, single_params={"snapshot": digests[1]}, error=reason, status="FAILED"),
    ]
    settings = load_settings(data_dir=tmp_path / "data")
    site = written(tmp_path / "site", dashboards.Told(runs), settings)
    opened = Opened(chromium.new_page(viewport={"width": width, "height": 900}))
    page = opened.go(site.address("runs.html"))
    told = page.locator(".runs-table tr.note div")
    assert told.inner_text() == reason
    assert page.locator(".runs-table tr.noted + tr.note").count() == 1
    box = told.bounding_box()
    assert box
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width, "without scrolling sideways"
    assert page.locator("#compared td", has_text=reason).count() == 1
    summaries = page.locator("#compared .digest summary")
    assert summaries.all_inner_texts() == [f"{digest[:12]}…" for digest in digests]
    assert [one.get_attribute("title") for one in summaries.all()] == digests
    summaries.first.focus()
    page.keyboard.press("Enter")
    assert page.locator("#compared .digest code:visible").all_inner_texts() == digests[:1]
    assert opened.said == []
    opened.page.close()
    assert dashboards.findings(chromium, site.address("runs.html"), width) == []


@pytest.mark.slow
def test_all_links_lead_somewhere(site: Site, opened: Opened) -> None:
    left, seen = ["index.html"], set[str]()
    while left:
        name = left.pop()
        seen.add(name)
        page = opened.go(site.address(name))
        for target in page.evaluate("[...document.querySelectorAll('a')].map((a) => a.getAttribute('href'))"):
            if target.startswith("#"):
                assert page.locator(target).count() == 1
            elif "://" not in target and target not in seen:
                assert (site.folder / target).is_file(), f"{name}: {target}"
                left.append(target)
    assert seen == {file.name for file in site.folder.glob("*.html")}
    assert opened.said == []


def test_by_keyboard_one_comes_to_the_content_first(site: Site, opened: Opened) -> None:
    page = opened.go(site.address("index.html"))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the content"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left >= 0")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('main') !== null")


def focused(page: Page) -> Iterator[tuple[str, str]]:
    """Name and id of every element that Tab comes to, until it has come to all."""
    for _ in range(200):
        page.keyboard.press("Tab")
        name, own = page.evaluate("[document.activeElement.tagName, document.activeElement.id]")
        if name == "BODY":
            return
        yield name, own


def test_by_keyboard_runs_are_chosen_and_compared(site: Site, opened: Opened) -> None:
    page = opened.go(site.address("runs.html"))
    for _, own in focused(page):
        if own == "left":
            page.keyboard.press("ArrowDown")
            said = page.locator("#remark").inner_text()
            assert said.startswith("They are of different markets or horizons (USDCLP 15d, USDCLP 7d)")
        if own == "right":
            page.keyboard.press("End")
    heads = page.locator("#compared table").first.locator("thead th").all_inner_texts()
    assert heads == ["Fact", "00000000", "00000003"]
    assert page.locator("#right option:checked").inner_text().startswith("00000003 USDCLP 90d")


def test_by_keyboard_what_is_folded_opens_and_a_chart_tells_its_days(site: Site, opened: Opened) -> None:
    page, told = opened.go(site.address("usdclp-7d.html")), dict[str, list[str]]()
    unfolded = 0
    for name, _ in focused(page):
        if name == "SUMMARY":
            page.keyboard.press("Enter")
            unfolded += page.evaluate("document.activeElement.parentElement.open")
        figure = page.evaluate("document.activeElement.closest('figure[id], #path')?.id")
        if name == "DIV" and figure:
            said = told.setdefault(figure, [])
            for key in ("ArrowLeft", "ArrowLeft", "ArrowRight", "Home", "End"):
                page.keyboard.press(key)
                assert page.locator("#tip").is_visible()
                assert page.locator(f"#{figure} svg:visible .cursor").count() == 1
                said.append(page.locator("#tip").inner_text())
            page.keyboard.press("Escape")
            assert not page.locator("#tip").is_visible()
    assert unfolded == 2
    path = site.path(H7)
    assert [said.split("\n")[0] for said in told["ahead"]] == [
        "4 Dec 2026",
        "3 Dec 2026",
        "4 Dec 2026",
        "28 Sep 2026",
        "4 Dec 2026",
    ]
    assert told["ahead"][0].split("\n")[1] == f"Median {Bands.of(path).median[-1]:,.2f}"
    assert set(told) == {"ahead", "path", "said", "coverage", "skill", "weights", "champions"}
    assert page.locator("figure.drawn").count() == len(told)
    assert opened.said == []


def test_dark_or_light_is_chosen_and_remembered(site: Site, opened: Opened) -> None:
    page = opened.go(site.address("index.html"))
    paper = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(paper) == "rgb(255, 255, 255)"
    page.get_by_role("button", name="Dark").click()
    assert page.evaluate(paper) == "rgb(20, 24, 29)"
    opened.go(site.address("runs.html"))
    assert page.evaluate(paper) == "rgb(20, 24, 29)"
    page.get_by_role("button", name="Light").click()
    assert page.evaluate(paper) == "rgb(255, 255, 255)"


def test_without_scripts_every_page_stands(site: Site, chromium: Browser) -> None:
    context = chromium.new_context(java_script_enabled=False, viewport={"width": 390, "height": 900})
    page = context.new_page()
    page.goto(site.address("usdclp-7d.html"))
    assert page.locator("#path svg.plot").first.is_visible()
    assert not page.locator("#chooser").is_visible()
    assert not page.locator("#theme").is_visible()
    page.goto(site.address("runs.html"))
    assert page.get_by_text("forex runs compare RUN_ID RUN_ID").is_visible()
    context.close()


def test_hostile_words_stay_words(tmp_path: Path, opened: Opened) -> None:
    settings = load_settings(data_dir=tmp_path / "data")
    ledger = Ledger(settings.store_url)
    ledger.append(entry(dashboards.LAST))
    alarm = Alarm("narrow bands", 1, dashboards.LAST, 1.0, 0.5, HOSTILE)
    ledger.raise_alarm(USDCLP, "close", H7, alarm, now=dashboards.NOW)
    store = ObservationStore(settings.store_url)
    links = ("https://example.org/a", "javascript:alert(4)", "https://example.org/\u202egpj.exe")
    told = [dashboards.headline(HOSTILE + str(k), link, HOSTILE) for k, link in enumerate(links)]
    store.record_news(told, source="news", now=dashboards.NOW)
    runs = [
        dashboards.run(
            n,
            name=HOSTILE,
            environment=HOSTILE,
            error=HOSTILE,
            status="FAILED",
            pair=HOSTILE,
            window=HOSTILE,
            models={HOSTILE: dashboards.run(0).models["ets"], "__proto__": dashboards.run(0).models["ets"]},
            single_params={HOSTILE: HOSTILE + str(n)},
        )
        for n in (1, 2)
    ]
    change = dashboards.change(reason=HOSTILE, by=HOSTILE, action=HOSTILE)
    site = written(tmp_path / "site", dashboards.Told(runs, [change]), settings)
    for name in ("index.html", "usdclp-7d.html", "health.html", "runs.html"):
        page = opened.go(site.address(name))
        page.wait_for_function("document.readyState === 'complete'")
        assert "<script>alert(1)" in page.locator("body").inner_text(), f"{name} shows the words"
        assert page.locator("img, iframe, object, embed").count() == 0
        own = page.evaluate("[...document.querySelectorAll('script:not([type])')].length")
        assert own == 1
        assert page.evaluate(
            "[...document.querySelectorAll('*')].every((e) => ![...e.attributes].some((a) => /^on/i.test(a.name)))"
        )
        assert not re.search("[\u202e\u200b]", page.locator("body").inner_text())
        links = page.evaluate("[...document.querySelectorAll('a')].map((a) => a.protocol)")
        assert set(links) <= {"file:", "https:"}
    assert opened.said == []
    assert opened.asked == [
        site.address(name) for name in ("index.html", "usdclp-7d.html", "health.html", "runs.html")
    ]


def test_what_got_into_a_page_all_the_same_is_refused_by_its_policy(tmp_path: Path, opened: Opened) -> None:
    settings = load_settings(data_dir=tmp_path / "data")
    Ledger(settings.store_url).append(entry(dashboards.LAST))
    site = written(tmp_path / "site", dashboards.told(), settings)
    file = site.folder / "usdclp-7d.html"
    with dashboards.outside() as elsewhere:
        before = file.read_text(encoding="utf-8")
        file.write_text(before.replace('<main id="main">', f'<main id="main">{elsewhere.markup}', 1), "utf-8")
        elsewhere.assert_refused(opened.page, site.address(file.name))


def test_an_empty_deployment_says_what_makes_its_pages(
    tmp_path: Path, opened: Opened, chromium: Browser
) -> None:
    settings = load_settings(data_dir=tmp_path / "data")
    site = written(tmp_path / "site", dashboards.Told(), settings)
    assert not (tmp_path / "data").exists(), "who looks makes nothing"
    assert {file.name for file in site.folder.glob("*.html")} == {"index.html", "health.html", "runs.html"}
    for name, command in (
        ("index.html", "forex forecast 7d"),
        ("health.html", "forex data fetch"),
        ("runs.html", "forex forecast 7d"),
    ):
        page = opened.go(site.address(name))
        assert command in page.locator("main").inner_text()
        assert page.locator("figure").count() == 0
        assert dashboards.findings(chromium, site.address(name), 390, "dark") == []
    assert opened.said == []


def test_one_forecast_alone_has_a_page(tmp_path: Path, opened: Opened, chromium: Browser) -> None:
    """What the first day looks like: a fan, and in every other place what will be there."""
    settings = load_settings(data_dir=tmp_path / "data")
    Ledger(settings.store_url).append(replace(entry(dashboards.LAST), version=None))
    site = written(tmp_path / "site", dashboards.Told(), settings)
    page = opened.go(site.address("usdclp-7d.html"))
    assert page.locator("#ahead svg:visible").count() == 1
    assert page.locator("#weights path.area").count() == 2
    assert page.locator("#champions").count() == 0
    words = page.locator("main").inner_text()
    for told in ("forex monitor", "from 20 live forecasts on", "forex rollback", "None was raised"):
        assert told in words
    assert opened.said == []
    for name, width, scheme in (("index.html", 390, "light"), ("usdclp-7d.html", 1280, "dark")):
        assert dashboards.findings(chromium, site.address(name), width, scheme) == []
