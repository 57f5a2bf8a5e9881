"""The report: right numbers, self-contained, safe against names from outside, the same twice."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import date
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from forex_core.calendars import origin_instants, target_dates
from forex_core.errors import ForexError
from forex_core.report import drawing
from forex_core.report.charts import charts, draw_charts, error_by_step
from forex_core.report.page import forecast_table, render_report
from forex_core.types import (
    LEVELS,
    Evaluation,
    Forecast,
    ForecastRun,
    Horizon,
    MarketBundle,
    MemberForecast,
    Pair,
    Repair,
    Scores,
    Source,
    State,
    Verdict,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HOSTILE = "</script><img src=x onerror=alert(1)>"
SEPARATOR = "line\u2028separator"
MADE = pd.Timestamp("2024-07-01T12:30:00Z")
RUN_ID = "0123456789abcdef"
Z = np.array([-2.33, -1.96, *np.linspace(-1.645, 1.645, 19), 1.96, 2.33])


def _bundle(rows: int = 320, driver: str = "copper", price: float = 900.0) -> MarketBundle:
    rng = np.random.default_rng(5)
    days = pd.bdate_range(end="2024-06-28", periods=rows).as_unit("s")
    pair = Pair("USD", "CLP")
    spot = price * np.exp(np.cumsum(rng.normal(0, 0.006, rows)))
    drivers = np.column_stack(
        [4 * np.exp(np.cumsum(rng.normal(0, 0.01, rows))), np.full(rows, 5.33), np.full(rows, np.nan)]
    )
    fetched = pd.Timestamp("2024-07-01T12:00:00Z")
    first, last = days[0].date(), days[-1].date()
    return MarketBundle(
        pair=pair,
        dates=days,
        instants=origin_instants(pair, days),
        spot=spot,
        truth=spot.copy(),
        truth_known=np.arange(rows, dtype=np.int64),
        drivers=drivers,
        driver_names=(driver, "fed_rate", "silent"),
        driver_units=("USD per lb", "percent per year", "not stated"),
        as_of=pd.Timestamp("2024-07-01T12:00:00Z"),
        sources=(
            Source("exchange", (str(pair), driver), fetched, first, last, 12345, "CC BY 4.0", "at 17:00"),
        ),
        repairs=(
            Repair(str(pair), "not_positive", date(2023, 9, 14), -1.0, "a price cannot be negative", 3),
        ),
    )


def _scores(steps: int, scale: float, ratio: float, *, walk: bool = False) -> Scores:
    base = scale * np.sqrt(np.arange(1, steps + 1))
    tested = None if walk else 0.0321
    return Scores(
        rmse=ratio * 33.456,
        mae=ratio * 25.5,
        mape_pct=ratio * 2.8,
        crps=ratio * 18.25,
        coverage_80=0.8123,
        coverage_95=0.9456,
        coverage_80_last=0.7891,
        coverage_95_last=0.9412,
        directional_accuracy=None if walk else 0.5432,
        rmse_ratio_rw=ratio,
        crps_ratio_rw=ratio,
        dm_stat=None if walk else 1.9,
        dm_pvalue=tested,
        hln_stat=None,
        hln_pvalue=None,
        rmse_ratio_next_close=None if walk else 0.997,
        p_next_close=tested,
        weight_mean=None,
        failed_origins=0,
        rmse_by_step=tuple(base * ratio),
        coverage_80_by_step=tuple(0.8 + 0.01 * np.sin(np.arange(steps))),
        coverage_95_by_step=tuple(0.95 + 0.01 * np.cos(np.arange(steps))),
    )


def _run(bundle: MarketBundle, horizon: Horizon | None = None) -> ForecastRun:
    horizon = horizon or Horizon(30)
    targets = target_dates(bundle.pair, bundle.origin, horizon)
    h = np.array([step for step, _ in targets])[:, None]
    close = float(bundle.spot[-1])
    quantiles = close * np.exp(0.0004 * h + Z * 0.006 * np.sqrt(h))
    steps = horizon.evaluation_steps
    origins = tuple(d.date() for d in bundle.dates[40 : -steps - 1 : 5])
    scores = {
        "drivers": _scores(steps, 5.0, 0.961),
        "random_walk": _scores(steps, 5.0, 1.0, walk=True),
        "ensemble": _scores(steps, 5.0, 0.952),
    }
    return ForecastRun(
        horizon=horizon,
        forecast=Forecast(
            bundle.pair,
            bundle.origin,
            tuple(d for _, d in targets),
            tuple(int(s) for s, _ in targets),
            LEVELS,
            quantiles,
        ),
        members=(
            MemberForecast("random_walk", 0.375, quantiles, quantiles),
            MemberForecast("drivers", 0.625, quantiles, quantiles),
        ),
        state=State(bundle.origin, {"random_walk": 0.375, "drivers": 0.625}, np.ones((64, len(LEVELS)))),
        band_factors=np.ones_like(quantiles),
        evaluation=Evaluation(bundle.pair, horizon, origins, 5, scores),
        verdict=Verdict(
            "none",
            "No skill is shown: expect no directional edge; use the band.",
            0.2,
            0.4,
            date(2024, 6, 3),
            len(origins),
        ),
        failures={"chronos": "MemberError: weights are missing"},
        fingerprint=bundle.fingerprint,
        recipe="f00dcafe",
        as_of=bundle.as_of,
        settings={"seed": 7, "calibration": {"gamma": [0.05, 0.03]}, "versions": {"numpy": "2.4.6"}},
        timings={"load": 1.234},
    )


@pytest.fixture(scope="module", autouse=True)
def renderer() -> Iterator[Callable[..., dict[str, Any]]]:
    """The renderer, a process that takes a second, which is asked the same only once."""
    asked, kept = drawing._ask, dict[str, dict[str, Any]]()

    def once(request: Mapping[str, Any]) -> dict[str, Any]:
        text = json.dumps(request)
        if text not in kept:
            kept[text] = asked(request)
        return kept[text]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "_ask", once)
        yield asked


@pytest.fixture(scope="module")
def bundle() -> MarketBundle:
    return _bundle()


@pytest.fixture(scope="module")
def run(bundle: MarketBundle) -> ForecastRun:
    return _run(bundle)


@pytest.fixture(scope="module")
def page(run: ForecastRun, bundle: MarketBundle) -> str:
    return render_report(run, bundle, run_id=RUN_ID, generated_at=MADE)


class _Read(HTMLParser):
    """Tables by caption, headings in order, attributes, and the text that is neither script nor style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.headings: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self._rows: list[list[str]] = []
        self._caption = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "br"):
            self._open.append(tag)
        if tag == "table":
            self._rows, self._caption = [], ""
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")
        elif re.fullmatch("h[1-6]", tag):
            self.headings.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass
        if tag == "table":
            self.tables[self._caption.strip()] = self._rows

    def handle_data(self, data: str) -> None:
        if "script" in self._open or "style" in self._open:
            return
        self.words.append(data)
        if "caption" in self._open:
            self._caption += data
        elif "td" in self._open or "th" in self._open:
            self._rows[-1][-1] += data

    def table(self, start: str) -> list[list[str]]:
        (found,) = [rows for caption, rows in self.tables.items() if caption.startswith(start)]
        return found


def test_the_table_of_target_dates_holds_the_numbers_of_the_run(page: str, run: ForecastRun) -> None:
    rows = _Read(page).table("Forecast by target date")[1:]
    low80, high80 = run.forecast.interval(0.8)
    low95, high95 = run.forecast.interval(0.95)
    expected = np.column_stack([run.forecast.median, low80, high80, low95, high95])
    assert [int(r[1]) for r in rows] == list(run.forecast.steps)
    shown = np.array([[float(cell.replace(",", "")) for cell in r[2:]] for r in rows])
    np.testing.assert_allclose(shown, expected, atol=0.00501)
    assert rows[0][0] == "1 Jul 2024"


def test_models_stand_ensemble_first_random_walk_second_and_none_is_a_dash(page: str) -> None:
    rows = _Read(page).table("Out-of-sample scores")
    assert [r[0] for r in rows[1:]] == ["Ensemble", "Random walk", "Drivers"]
    ensemble, walk = rows[1], rows[2]
    assert ensemble[1:] == [
        "31.85", "24.28", "2.67", "17.37", "0.952", "0.952", "81.2", "94.6", "54.3", "0.032", "–",
    ]  # fmt: skip
    assert walk[9:] == ["–", "–", "37.5"]


@pytest.mark.parametrize(
    "expected",
    [
        "USD/CLP, 30 days ahead",
        "expect no directional edge; use the band",
        "1 Jul 2024, 12:00 UTC",
        "MemberError: weights are missing",
        "CC BY 4.0",
        "12,345",
        "14 Sep 2023",
        "not positive",
        "calibration.gamma",
        "0.05, 0.03",
        "versions.numpy",
        "f00dcafe",
        RUN_ID,
        "effective n = 12.4",
    ],
)
def test_the_page_says(page: str, expected: str) -> None:
    assert expected in " ".join(_Read(page).words)


def test_the_fingerprint_is_in_the_page(page: str, run: ForecastRun) -> None:
    assert run.fingerprint in page


def test_an_old_origin_carries_a_warning_and_a_fresh_one_does_not(
    run: ForecastRun, bundle: MarketBundle
) -> None:
    def words(as_of: str) -> str:
        later = replace(run, as_of=pd.Timestamp(as_of))
        return " ".join(_Read(render_report(later, bundle, run_id="r", generated_at=MADE)).words)

    assert "Old data" not in words("2024-07-03T12:00Z")  # Wednesday after a close of Friday: 3 weekdays
    assert "Old data: the last close is 4 weekdays older" in words("2024-07-04T12:00Z")


def test_the_page_is_self_contained_and_well_formed(page: str) -> None:
    read = _Read(page)
    for tag, attributes in read.elements:
        for name in ("src", "href", "xlink:href", "srcset", "data", "action"):
            value = attributes.get(name) or "data:"
            assert value.startswith(("data:", "#")), (tag, name, value)
    assert not [
        tag for tag, _ in read.elements if tag in ("link", "iframe", "img", "object", "embed", "base")
    ]
    markup = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert re.findall(r"url\((?!#)", markup) == []
    assert "@import" not in markup
    assert len(page.encode()) < 2_000_000
    assert page.count("window.vegaEmbed") == 1
    assert read.headings[0] == "h1"
    assert read.headings.count("h1") == 1
    levels = [int(h[1]) for h in read.headings]
    assert max(np.diff(levels)) <= 1
    identifiers = [a["id"] for _, a in read.elements if a.get("id")]
    assert len(identifiers) == len(set(identifiers))


def test_scripts_are_allowed_by_their_hash_and_nothing_may_be_fetched(page: str) -> None:
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', page)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["connect-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert "unsafe" not in rules["script-src"]
    assert rules["script-src"].count("sha256-") == 2


def test_names_from_outside_are_escaped_everywhere(run: ForecastRun) -> None:
    bundle = _bundle(driver=HOSTILE)
    poisoned = replace(
        bundle,
        driver_names=(HOSTILE, SEPARATOR, "silent"),
        sources=(replace(bundle.sources[0], name=HOSTILE, licence=HOSTILE),),
        repairs=(replace(bundle.repairs[0], note=HOSTILE),),
    )
    told = replace(
        run,
        failures={HOSTILE: HOSTILE},
        verdict=replace(run.verdict, sentence=HOSTILE),
        settings={HOSTILE: HOSTILE},
        members=(*run.members, replace(run.members[0], name=HOSTILE, weight=0.0)),
    )
    page = render_report(told, poisoned, run_id=HOSTILE, generated_at=MADE)
    assert "<img" not in re.sub(
        r"<script>.*?</script>", "", page, flags=re.DOTALL
    )  # the library itself has one
    assert "\u2028" not in re.search(r'id="chart-specs">(.*?)</script>', page, re.DOTALL)[1]  # type: ignore[index]
    assert len(re.findall(r"</script", page)) == 3
    specs = _specs(page)
    panels = [panel["title"]["text"] for panel in specs["drivers"]["concat"]]
    assert panels[0] == f"{HOSTILE}, index"
    assert panels[1].startswith("Line\u2028separator")
    assert HOSTILE in " ".join(_Read(page).words)


def _specs(page: str) -> dict[str, Any]:
    (text,) = re.findall(r'id="chart-specs">(.*?)</script>', page, re.DOTALL)
    return dict(json.loads(text))


def test_equal_inputs_give_equal_files(
    run: ForecastRun,
    bundle: MarketBundle,
    page: str,
    renderer: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = draw_charts(run, bundle).images
    drawing._draw.cache_clear()
    asked: list[Mapping[str, Any]] = []

    def again(request: Mapping[str, Any]) -> dict[str, Any]:
        asked.append(request)
        return renderer(request)

    monkeypatch.setattr(drawing, "_ask", again)
    assert render_report(run, bundle, run_id=RUN_ID, generated_at=MADE) == page
    assert len(asked) == 1
    assert draw_charts(run, bundle).images == images


def test_images_are_large_png_files(run: ForecastRun, bundle: MarketBundle) -> None:
    images = draw_charts(run, bundle).images
    assert set(images) == {
        f"{n}.png" for n in ("fan", "weights", "error_by_step", "coverage_by_step", "drivers")
    }
    for name, image in images.items():
        assert image.startswith(b"\x89PNG"), name
    width = int.from_bytes(images["fan.png"][16:20])
    assert width > 1700


def test_the_static_pictures_leave_out_what_only_answers_the_pointer(
    run: ForecastRun, bundle: MarketBundle
) -> None:
    for picture in charts(run, bundle).values():
        assert "hover_" not in json.dumps(picture.spec(still=True))
    assert "hover_" in json.dumps(charts(run, bundle)["fan"].spec())


def test_the_fan_holds_the_quantiles_and_starts_at_the_close(run: ForecastRun, bundle: MarketBundle) -> None:
    rows = charts(run, bundle)["fan"].data["fan"]
    close = round(float(bundle.spot[-1]), 2)
    assert {rows[0][k] for k in ("median", "walk", "low80", "high80", "low95", "high95")} == {close}
    assert [r["median"] for r in rows[1:]] == [round(float(m), 2) for m in run.forecast.median]
    assert [r["date"][:10] for r in rows[1:]] == [d.isoformat() for d in run.forecast.target_dates]


def test_a_gap_in_the_closes_is_one_in_the_fan(run: ForecastRun, bundle: MarketBundle) -> None:
    """The bundle carries the close before; neither the line nor the pointer makes one of it."""
    truth = bundle.truth.copy()
    truth[-30:-24] = np.nan  # the next close is seven weekdays away
    truth[-20:-16] = np.nan  # five
    drawn = charts(run, replace(bundle, truth=truth))["fan"]
    rows = {row["date"][:10]: row["stretch"] for row in drawn.data["history"]}
    days = [day.date().isoformat() for day in bundle.dates[-120:]]
    assert [day for day in days if day not in rows] == days[-30:-24]
    assert [rows[day] for day in days if day in rows] == [0] * 90 + [1] * 24
    whole = charts(run, bundle)["fan"].data["history"]
    assert {row["stretch"] for row in whole} == {0}
    assert len(whole) == 120


@pytest.mark.parametrize("days", [7, 15, 30, 90])
def test_direct_labels_keep_apart_and_inside(bundle: MarketBundle, days: int) -> None:
    drawn = charts(_run(bundle, Horizon(days)), bundle)
    for name in ("fan", "error_by_step", "coverage_by_step"):
        picture = drawn[name]
        at = sorted(r["at"] for key, rows in picture.data.items() if key.startswith("labels_") for r in rows)
        spec = json.dumps(picture.spec())
        low, high = map(
            float, re.findall(r'"domain": \[([-\d.e]+), ([-\d.e]+)\], "nice": false, "zero"', spec)[0]
        )
        assert picture.height is not None
        assert min(np.diff(at)) * picture.height / (high - low) > 14.9
        assert low <= at[0] < at[-1] <= high


def test_a_step_without_a_score_is_left_out_of_the_chart(run: ForecastRun) -> None:
    ours, walk = (run.evaluation.scores[n].rmse_by_step for n in ("ensemble", "random_walk"))
    scores = {
        "ensemble": replace(run.evaluation.scores["ensemble"], rmse_by_step=(float("nan"), *ours[1:])),
        "random_walk": replace(run.evaluation.scores["random_walk"], rmse_by_step=(*walk[:-1], 0.0)),
    }
    picture = error_by_step(replace(run.evaluation, scores=scores))
    assert [r["step"] for r in picture.data["steps"]] == list(range(2, run.evaluation.steps))


def test_a_bundle_without_drivers_sources_or_repairs_has_a_report(
    run: ForecastRun, bundle: MarketBundle
) -> None:
    bare = replace(
        bundle,
        drivers=np.empty((len(bundle), 0)),
        driver_names=(),
        driver_units=(),
        sources=(),
        repairs=(),
    )
    lean = replace(run, failures={}, settings={}, timings={})
    read = _Read(render_report(lean, bare, run_id="r", generated_at=MADE))
    words = " ".join(read.words)
    assert "None: every member answered." in words
    assert "The bundle names no source." in words
    assert "drivers.png" not in draw_charts(lean, bare).images


def test_the_forecast_table_comes_back_from_csv(run: ForecastRun) -> None:
    table = forecast_table(run)
    text = table.to_csv(index=False)
    back = pd.read_csv(io.StringIO(text), parse_dates=["target_date"])
    levels = [float(c[1:]) for c in back.columns[2:]]
    assert tuple(levels) == run.forecast.levels
    np.testing.assert_array_equal(back[list(back.columns[2:])].to_numpy(), run.forecast.quantiles)
    assert tuple(d.date() for d in back["target_date"]) == run.forecast.target_dates
    assert tuple(back["step"]) == run.forecast.steps
    assert next(csv.reader(io.StringIO(text)))[:3] == ["target_date", "step", "q0.01"]


def test_a_renderer_that_fails_is_said_in_one_line() -> None:
    with pytest.raises(ForexError, match="the charts could not be drawn"):
        drawing.draw({"broken": {"mark": "no such mark", "encoding": 3}})


@pytest.fixture
def saved(tmp_path: Path, run: ForecastRun) -> Callable[[str], str]:
    def save(driver: str) -> str:
        text = render_report(run, _bundle(driver=driver), run_id=RUN_ID, generated_at=MADE)
        path = tmp_path / "report.html"
        path.write_text(text, encoding="utf-8")
        return path.as_uri()

    return save


@pytest.mark.browser
@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (1280, "light"),
        (390, "dark"),
        pytest.param(1280, "dark", marks=pytest.mark.slow),
        pytest.param(390, "light", marks=pytest.mark.slow),
    ],
)
def test_in_a_browser(chromium: Browser, saved: Callable[[str], str], width: int, scheme: Any) -> None:
    address = saved(HOSTILE)
    page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.locator(".chart.is-live .live svg").nth(4).wait_for()
    fan = page.locator("[data-chart=fan] .live svg")
    fan.scroll_into_view_if_needed()
    box = fan.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.4 * box["height"])
    page.wait_for_selector("#vg-tooltip-element.visible")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert not page.evaluate("[...document.querySelectorAll('.chart .still')].some(e => e.checkVisibility())")
    assert page.locator("img").count() == 0
    page.emulate_media(media="print")
    assert page.evaluate(
        "[...document.querySelectorAll('.chart .still svg')].every(e => e.checkVisibility())"
    )
    assert said == []
    assert asked == [address]
    page.close()


@pytest.mark.browser
def test_without_scripts_the_static_pictures_stand(chromium: Browser, saved: Callable[[str], str]) -> None:
    context = chromium.new_context(java_script_enabled=False, viewport={"width": 390, "height": 900})
    page = context.new_page()
    page.goto(saved("copper"))
    assert [p.is_visible() for p in page.locator(".chart .still svg").all()] == [True] * 5
    context.close()


def test_every_chart_is_valid_vega_lite(run: ForecastRun, bundle: MarketBundle) -> None:
    """Held against the schema here, so that no run spends its time on it."""
    for picture in charts(run, bundle).values():
        assert picture.chart.to_dict(validate=True) == picture.chart.to_dict(validate=False)


def test_the_script_is_kept_and_a_damaged_copy_is_made_again(tmp_path: Path) -> None:
    script = drawing.browser_script()
    cache = tmp_path / "not yet there"
    assert drawing.browser_script(cache) == script
    (file,) = cache.iterdir()
    sound = file.read_bytes()
    drawing._script.cache_clear()
    assert drawing.browser_script(cache) == script
    assert drawing._script.cache_info().misses == 0, "read, not made"
    for damaged in (sound[:-1], b"", b"\xff" + sound, sound.replace(b"vegaEmbed", b"vegaembed", 1)):
        file.write_bytes(damaged)
        assert drawing.browser_script(cache) == script
        assert file.read_bytes() == sound


def test_a_cache_that_cannot_be_written_costs_time_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert drawing.browser_script(tmp_path / "file" / "below") == drawing.browser_script()
