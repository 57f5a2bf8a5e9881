"""The panel: which pairs it holds, which origins it scores, what it comes to over all pairs, and how it is shown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from rich.console import Console

from forex_core.calendars import business_day_numbers
from forex_core.config import ChronosConfig, EngineConfig, Settings, load_settings
from forex_core.data.bundle import load_bundle
from forex_core.data.providers.ecb import PANEL, PANEL_FROM, EcbProvider, currencies
from forex_core.engine import Engine, Paths, build_members
from forex_core.errors import DataQualityError
from forex_core.panel import Panel, PanelScores, Scored, default_jobs
from forex_core.report.document import Document, panel_document
from forex_core.report.text import MAY_HAVE_SEEN, panel_tables
from forex_core.testing import synthetic_bundle
from forex_core.types import ENSEMBLE, HORIZONS, RANDOM_WALK, Evaluation, Horizon, MarketBundle, Pair, Scores

WEEK, FORTNIGHT, MONTH, QUARTER = HORIZONS
LIGHT = EngineConfig(
    members=("random_walk", "theta", "ets"), grid_origins=60, warmup_origins=10, min_history_rows=300
)
EURUSD, USDJPY, USDTRY = (Pair.parse(text) for text in ("EURUSD", "USDJPY", "USDTRY"))


# ---- which pairs -------------------------------------------------------------------------------------------


def test_the_list_is_what_its_rule_gives() -> None:
    pegged = {"HKD", "DKK"}
    unbroken = {"EUR", "USD"}
    for currency in set(currencies()) - {"EUR"}:
        spot = EcbProvider().load(Pair("EUR", currency)).spot
        since = spot.values[spot.dates >= pd.Timestamp(PANEL_FROM)]
        if len(since) and not np.isnan(since).any():
            unbroken.add(currency)
    assert pegged < unbroken
    quoted = [pair.base if pair.quote == "USD" else pair.quote for pair in PANEL]
    assert sorted(quoted) == sorted(unbroken - pegged - {"USD"})
    assert len(PANEL) == 26


def test_pairs_are_written_as_the_market_does() -> None:
    assert [str(p) for p in PANEL if p.base != "USD"] == ["EURUSD", "GBPUSD", "AUDUSD", "NZDUSD"]
    assert all("USD" in (p.base, p.quote) for p in PANEL)


def test_the_document_lists_the_same_pairs() -> None:
    page = Path(__file__).parents[2] / "docs" / "data-sources.md"
    assert ", ".join(map(str, PANEL)) in " ".join(page.read_text(encoding="utf-8").split())


# ---- which origins -----------------------------------------------------------------------------------------


class Counting(Engine):
    """An engine that counts its passes."""

    passes = 0

    def paths(self, bundle: MarketBundle, rows: npt.NDArray[np.int64]) -> Paths:
        self.passes += 1
        return super().paths(bundle, rows)


def engine() -> Counting:
    return Counting(LIGHT, build_members(LIGHT, ChronosConfig()))


@pytest.fixture(scope="module")
def bundle() -> MarketBundle:
    return synthetic_bundle(1100, seed=3)


def numbers(bundle: MarketBundle, evaluation: Evaluation) -> npt.NDArray[np.int64]:
    rows = bundle.dates.get_indexer(pd.DatetimeIndex(evaluation.origins))
    return business_day_numbers(bundle.pair, bundle.dates)[rows]


@pytest.mark.parametrize("every", [5, 7, 10])
def test_origins_are_those_of_the_calendar_in_the_window(bundle: MarketBundle, every: int) -> None:
    start, end = date(2017, 3, 1), date(2018, 6, 1)
    (found,) = engine().evaluations(bundle, [WEEK], start, end, every)
    assert start <= found.origins[0] <= found.origins[-1] <= end
    at = numbers(bundle, found)
    assert (at % every == 0).all()
    assert (np.diff(at) == every).all(), "an origin inside the window was left out"
    inside = (bundle.dates >= pd.Timestamp(start)) & (bundle.dates <= pd.Timestamp(end))
    every_number = business_day_numbers(bundle.pair, bundle.dates)[inside]
    assert len(at) == int(((every_number >= 0) & (every_number % every == 0)).sum())
    assert found.every == every


def test_another_first_day_moves_no_origin(bundle: MarketBundle) -> None:
    early, late = (
        engine().evaluations(bundle, [WEEK], date(2017, month, day), None, 10)[0].origins
        for month, day in ((3, 1), (6, 14))
    )
    assert late == early[-len(late) :]
    assert len(late) < len(early)


def test_one_pass_serves_all_horizons(bundle: MarketBundle) -> None:
    both = engine()
    together = both.evaluations(bundle, [WEEK, MONTH], date(2017, 3, 1), None, 10)
    assert both.passes == 1
    assert [found.horizon for found in together] == [WEEK, MONTH]
    for horizon, found in zip((WEEK, MONTH), together, strict=True):
        assert found == engine().evaluations(bundle, [horizon], date(2017, 3, 1), None, 10)[0]


def test_the_default_distance_is_that_of_the_grid(bundle: MarketBundle) -> None:
    (found,) = engine().evaluations(bundle, [WEEK], date(2017, 3, 1))
    assert found.every == LIGHT.grid_every
    assert (np.diff(numbers(bundle, found)) == LIGHT.grid_every).all()


def test_too_few_origins_at_any_horizon_are_refused(bundle: MarketBundle) -> None:
    window = (date(2018, 12, 10), None, 2)
    assert len(engine().evaluations(bundle, [WEEK], *window)[0].origins) >= LIGHT.min_scored_origins
    with pytest.raises(
        DataQualityError, match="90d outcome between 2018-12-10 and 2019-03-20; expected at least 26"
    ):
        engine().evaluations(bundle, [WEEK, QUARTER], *window)


# ---- what it comes to over all pairs -----------------------------------------------------------------------


def scores(rmse: float, crps: float = 1.0, inside: tuple[float, float] = (0.8, 0.95)) -> Scores:
    return Scores(
        rmse=0.01,
        mae=0.01,
        mape_pct=1.0,
        crps=0.01,
        coverage_80=inside[0],
        coverage_95=inside[1],
        coverage_80_last=0.8,
        coverage_95_last=0.95,
        directional_accuracy=0.5,
        rmse_ratio_rw=rmse,
        crps_ratio_rw=crps,
        dm_stat=0.1,
        dm_pvalue=0.4567,
        hln_stat=None,
        hln_pvalue=None,
        rmse_ratio_next_close=1.0,
        p_next_close=0.5,
        weight_mean=None,
        failed_origins=0,
        rmse_by_step=(0.01,),
        coverage_80_by_step=(0.8,),
        coverage_95_by_step=(0.95,),
    )


def scored(
    pair: Pair, horizon: Horizon, ensemble: Scores, outcomes: int, failures: Mapping[str, str] | None = None
) -> Scored:
    origins = (date(2020, 1, 6), date(2020, 1, 20), date(2020, 2, 3))
    models = {ENSEMBLE: ensemble, RANDOM_WALK: replace(ensemble, rmse_ratio_rw=1.0, crps_ratio_rw=1.0)}
    return Scored(Evaluation(pair, horizon, origins, 10, models, failures or {}), outcomes)


@pytest.fixture
def result() -> PanelScores:
    """Three pairs at two horizons, and one that failed."""
    absent = {"chronos": "no weights"}
    return PanelScores(
        {
            EURUSD: (
                scored(EURUSD, WEEK, scores(0.98, 1.01, (0.9, 0.96)), 10, absent),
                scored(EURUSD, MONTH, scores(1.0), 60, absent),
            ),
            USDJPY: (
                scored(USDJPY, WEEK, scores(0.99, 1.03, (0.7, 0.90)), 30, absent),
                scored(USDJPY, MONTH, scores(1.1), 60, absent),
            ),
            USDTRY: (
                scored(USDTRY, WEEK, scores(1.04, 0.95, (0.5, 1.0)), 0, absent | {"var": "it blew up"}),
                scored(USDTRY, MONTH, scores(1.2), 60, absent | {"var": "it blew up"}),
            ),
        },
        {Pair("EUR", "EEK"): "EUREEK has not moved"},
    )


def test_median_worst_and_coverage_by_outcomes(result: PanelScores) -> None:
    found = result.summary(WEEK)
    assert found is not None
    assert (found.origins, found.outcomes) == (9, 40)
    assert (found.rmse.median, found.rmse.worst, found.rmse.worst_pair) == (0.99, 1.04, USDTRY)
    assert (found.crps.median, found.crps.worst, found.crps.worst_pair) == (1.01, 1.03, USDJPY)
    assert found.coverage_80 == pytest.approx((0.9 * 10 + 0.7 * 30) / 40)
    assert found.coverage_95 == pytest.approx((0.96 * 10 + 0.90 * 30) / 40)
    month = result.summary(MONTH)
    assert month is not None
    assert month.rmse.median == 1.1


def test_without_a_scored_pair_there_is_nothing_to_sum_up() -> None:
    assert PanelScores({}, {EURUSD: "why"}).summary(WEEK) is None


def test_outcomes_are_the_closes_behind_the_coverage() -> None:
    panel = Panel(light_settings(), (WEEK, MONTH), date(2024, 1, 1), date(2025, 6, 30))
    found = panel.score(USDJPY)
    bundle = load_bundle(EcbProvider(), USDJPY)
    for one in found:
        rows = [bundle.dates.get_loc(pd.Timestamp(day)) for day in one.evaluation.origins]
        closes = [bundle.truth[row + h + 1] for row in rows for h in range(one.evaluation.steps)]
        assert one.outcomes == sum(not np.isnan(close) for close in closes)
        assert one.outcomes < len(closes), "a window without a holiday proves nothing"
        # A share of the outcomes counted in whole numbers, for every model.
        for model in one.evaluation.scores.values():
            assert model.coverage_80 * one.outcomes == pytest.approx(round(model.coverage_80 * one.outcomes))


# ---- in processes ------------------------------------------------------------------------------------------


def light_settings() -> Settings:
    return load_settings(engine=LIGHT.model_dump())


@pytest.mark.slow
def test_what_nobody_foresaw_costs_one_pair_alone() -> None:
    panel = Panel(light_settings(), (WEEK,), date(2024, 1, 1), date(2025, 6, 30))
    wrong: Any = "no pair"
    told: list[tuple[int, int]] = []
    found = panel.score_all(
        [wrong, EURUSD], jobs=2, progress=lambda stage, done, total: told.append((done, total))
    )
    assert list(found.scored) == [EURUSD]
    assert found.scored[EURUSD] == panel.score(EURUSD)
    assert list(found.failed) == [wrong]
    assert found.failed[wrong].startswith("AttributeError: ")
    assert told == [(0, 2), (1, 2), (2, 2)]


@pytest.mark.parametrize(("cores", "jobs"), [(1, 1), (2, 2), (64, 4)])
def test_as_many_processes_as_cores_and_memory_allow(
    cores: int, jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A machine of another size.
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(cores)), raising=False)
    assert default_jobs() == jobs


# ---- how it is shown ---------------------------------------------------------------------------------------


@pytest.fixture
def document(result: PanelScores) -> Document:
    panel = Panel(load_settings(), (WEEK, MONTH), date(2020, 1, 1), None)
    return panel_document(panel, result, 12.3456)


def text_of(document: Document, width: int = 80) -> str:
    console = Console(file=StringIO(), width=width)
    for part in panel_tables(document):
        console.print(part, soft_wrap=True)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def rows_of(text: str) -> dict[tuple[str, str], list[str]]:
    """Cells behind each row's name and horizon."""
    cells = [line.split() for line in text.splitlines()]
    return {(c[0], c[1]): c[2:] for c in cells if len(c) > 2 and c[1] in ("7d", "30d")}


def test_a_member_that_may_know_the_outcomes_of_one_pair_is_marked(document: Document) -> None:
    said = f"chronos: {MAY_HAVE_SEEN}."
    assert said not in text_of(document, 200)
    document["evaluations"][0]["may_have_seen"] = ["chronos"]
    assert text_of(document, 200).count(said) == 1


def test_document_is_plain_json(document: Document) -> None:
    read = json.loads(json.dumps(document, allow_nan=False))
    assert read == document
    assert read["source"] == "ecb"
    assert (read["from"], read["to"], read["every"]) == ("2020-01-01", None, 10)
    assert read["horizons"] == ["7d", "30d"]
    assert read["seconds"] == 12.346
    assert read["failed"] == {"EUREEK": "EUREEK has not moved"}
    assert read["summary"]["7d"]["rmse_ratio_rw"] == {"median": 0.99, "worst": 1.04, "worst_pair": "USDTRY"}
    assert read["summary"]["7d"]["outcomes"] == 40
    asked = [(one["pair"], one["horizon"], one["outcomes"]) for one in read["evaluations"]]
    assert asked[:3] == [("EURUSD", "7d", 10), ("EURUSD", "30d", 60), ("USDJPY", "7d", 30)]
    assert read["evaluations"][2]["models"][ENSEMBLE]["crps_ratio_rw"] == 1.03
    assert read["evaluations"][5]["failures"] == {"chronos": "no weights", "var": "it blew up"}


def test_table_has_every_pair_and_what_it_comes_to(document: Document) -> None:
    rows = rows_of(text_of(document))
    assert rows["EURUSD", "7d"] == ["3", "0.980", "1.010", "0.457", "0.900", "0.960"]
    assert rows["USDTRY", "30d"] == ["3", "1.200", "1.000", "0.457", "0.800", "0.950"]
    assert rows["median", "7d"] == ["0.990", "1.010"]
    assert rows["worst", "7d"] == ["1.040", "1.030"]
    assert rows["pooled", "7d"] == ["9", "0.750", "0.915"]
    assert rows["median", "30d"] == ["1.100", "1.000"]
    assert len(rows) == 12


def test_table_fits_a_narrow_terminal(document: Document) -> None:
    lines = text_of(document).splitlines()
    assert all(len(line) <= 80 for line in lines[: next(n for n, x in enumerate(lines) if "Ratios" in x)])
    assert "…" not in "".join(lines)


def test_who_was_left_out_is_said_once(document: Document) -> None:
    lines = text_of(document).splitlines()
    assert "Left out: chronos (no weights)" in lines
    assert "Left out for USDTRY: var (it blew up)" in lines
    assert "Not scored: EUREEK (EUREEK has not moved)" in lines
    assert sum("Left out" in line for line in lines) == 2


def test_a_panel_of_failures_is_shown_as_such() -> None:
    panel = Panel(load_settings(), (WEEK,), date(2020, 1, 1), None)
    document = panel_document(panel, PanelScores({}, {EURUSD: "why"}), 1.0)
    assert document["summary"] == {}
    assert document["evaluations"] == []
    assert "Not scored: EURUSD (why)" in text_of(document)
