"""Figures of a position against closed forms and an independent simulation, and what a position is refused for."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from forex_core.briefing.position import MAX_AMOUNT, CashFlow, Position, read_cash_flows
from forex_core.briefing.sample_paths import SamplePaths, sample_paths
from forex_core.briefing.treasury import LEVEL, tail_mean, treasury
from forex_core.config import TreasuryConfig
from forex_core.errors import InputError
from forex_core.types import LEVELS, Array, Horizon, MarketBundle
from tests.unit.random_walks import lognormal, walk

SIGMA = 0.006
NO_HOLIDAYS = "2024-04-05"
"""The ten weekdays after it are business days in Santiago and New York."""
TWO_WEEKS = Horizon(15)
STEPS = 10
SEEDS = range(6)


@cache
def market(seed: int) -> tuple[MarketBundle, SamplePaths]:
    bundle = walk(4020, seed=seed, end=NO_HOLIDAYS)
    paths = sample_paths(lognormal(bundle, TWO_WEEKS), bundle)
    assert paths.forecast.steps == tuple(range(1, STEPS + 1))
    return bundle, paths


def averaged(figure: Callable[[MarketBundle, SamplePaths], float]) -> float:
    """Of several pasts: what one past of fifteen years lets a probability of touch err by is not at issue here."""
    return float(np.mean([figure(*market(seed)) for seed in SEEDS]))


def simulated(seed: int = 99, count: int = 200_000) -> Array:
    """[N, H] prices over the close of a lognormal walk, by random draws."""
    return np.exp(np.cumsum(np.random.default_rng(seed).normal(0, SIGMA, (count, STEPS)), axis=1))


@pytest.mark.parametrize("ratio", [0.97, 0.99, 1.0, 1.004, 1.03])
def test_probabilities_on_a_date_have_their_closed_form(ratio: float) -> None:
    bundle, paths = market(0)
    found = treasury(Position(budget_rate=ratio * bundle.spot[-1]), paths, bundle.spot[-1])
    assert found.above is not None
    exact = 1 - ndtr(np.log(ratio) / (SIGMA * np.sqrt(np.arange(1, STEPS + 1))))
    assert found.above == pytest.approx(exact, abs=1 / len(paths))


@pytest.mark.parametrize("ratio", [1.004, 1.01, 1.02, 1.035])
def test_touch_by_the_reflection_principle_corrected_for_daily_closes(ratio: float) -> None:
    """Broadie, Glasserman and Kou (1997): watched daily, a barrier is as good as one β σ further off, β = .5826."""
    barrier = (np.log(ratio) / SIGMA + 0.5826) / np.sqrt(STEPS)
    exact = float(2 * (1 - ndtr(barrier)))

    def above(bundle: MarketBundle, paths: SamplePaths) -> float:
        found = treasury(Position(budget_rate=ratio * bundle.spot[-1]), paths, bundle.spot[-1])
        assert found.ever_above is not None
        return float(found.ever_above[-1])

    def below(bundle: MarketBundle, paths: SamplePaths) -> float:
        found = treasury(Position(budget_rate=bundle.spot[-1] / ratio), paths, bundle.spot[-1])
        assert found.ever_below is not None
        return float(found.ever_below[-1])

    assert averaged(above) == pytest.approx(exact, abs=0.012)
    assert averaged(below) == pytest.approx(exact, abs=0.012)
    assert float((simulated().max(axis=1) > ratio).mean()) == pytest.approx(exact, abs=0.005)


def test_what_happens_ever_is_no_less_probable_than_on_the_day() -> None:
    bundle, paths = market(1)
    found = treasury(Position(budget_rate=1.002 * bundle.spot[-1]), paths, bundle.spot[-1])
    assert found.above is not None
    assert found.ever_above is not None
    assert found.ever_below is not None
    assert found.ever_above[0] == found.above[0]
    assert (found.ever_above >= found.above).all()
    assert (np.diff(found.ever_above) >= 0).all()
    assert (np.diff(found.ever_below) >= 0).all()
    assert found.ever_below[0] == pytest.approx(1 - found.above[0])


FLOWS = ((2, 1.0), (5, 3.0), (10, 2.0))


def flows_of(paths: SamplePaths, sign: float = 1.0) -> tuple[CashFlow, ...]:
    days = paths.forecast.target_dates
    return tuple(CashFlow(days[step - 1], sign * 1e6 * amount, days[step - 1]) for step, amount in FLOWS)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_mean_rate_over_cash_flows_against_a_simulation(sign: float) -> None:
    prices = simulated()[:, [step - 1 for step, _ in FLOWS]]
    amounts = np.array([amount for _, amount in FLOWS])
    mean = prices @ amounts / amounts.sum()
    level = LEVEL if sign > 0 else 1 - LEVEL

    def figures(pick: Callable[[object], float]) -> float:
        def of(bundle: MarketBundle, paths: SamplePaths) -> float:
            close = float(bundle.spot[-1])
            position = Position(1.005 * close, None, flows_of(paths, sign))
            found = treasury(position, paths, close).cash_flows
            assert found is not None
            assert found.average is not None
            scale = {"above": 1.0, "shortfall": 1e6 * close}.get(pick.__name__, close)
            return pick(found) / scale

        return averaged(of)

    def above(found: object) -> float:
        return found.average.above

    def worst(found: object) -> float:
        return found.average.worst_rate

    def median(found: object) -> float:
        return found.average.median

    def shortfall(found: object) -> float:
        return found.expected_shortfall

    assert figures(above) == pytest.approx((mean > 1.005).mean(), abs=0.01)
    assert figures(worst) == pytest.approx(np.quantile(mean, level), abs=0.0008)
    assert figures(median) == pytest.approx(1.0, abs=0.0005)
    losses = np.sort(sign * (1.005 * amounts.sum() - prices @ amounts))[::-1]
    assert figures(shortfall) == pytest.approx(losses[: len(losses) // 20].mean(), rel=0.03)


@pytest.mark.parametrize("amount", [2e6, -2e6])
@pytest.mark.parametrize("budget", [None, 1.01])
def test_shortfall_of_an_exposure_has_its_closed_form(amount: float, budget: float | None) -> None:
    """Mean of a lognormal beyond its quantile (McNeil, Frey and Embrechts 2005, example 2.18)."""
    bundle, paths = market(2)
    close = float(bundle.spot[-1])
    found = treasury(Position(budget and budget * close, amount), paths, close).exposure
    assert found is not None
    spread = SIGMA * np.sqrt(STEPS)
    reference = close * (budget or 1.0)
    z = ndtri(LEVEL)
    growth = np.exp(spread**2 / 2) / LEVEL
    tail = growth * (ndtr(z - spread) if amount > 0 else 1 - ndtr(-z - spread))
    assert found.side == ("long" if amount > 0 else "short")
    assert found.worst_rate == pytest.approx(close * np.exp(np.sign(amount) * spread * z), rel=1e-9)
    assert found.expected_shortfall == pytest.approx(amount * (reference - close * tail), rel=2e-3)
    assert found.loss_at_worst_rate == pytest.approx(amount * (reference - found.worst_rate))
    assert found.expected_shortfall > found.loss_at_worst_rate > 0
    assert (found.reference, found.reference_rate) == (
        ("budget_rate", reference) if budget else ("close", close)
    )


def test_a_budget_that_cannot_be_missed_leaves_a_gain() -> None:
    bundle, paths = market(0)
    found = treasury(Position(0.5 * bundle.spot[-1], 1.0), paths, bundle.spot[-1])
    assert found.exposure is not None
    assert found.exposure.expected_shortfall < 0
    assert found.above == pytest.approx(1.0)


def test_without_a_budget_rate_there_are_no_probabilities() -> None:
    bundle, paths = market(0)
    found = treasury(Position(None, 1e6, flows_of(paths)), paths, bundle.spot[-1])
    assert found.above is None
    assert found.ever_above is None
    assert found.cash_flows is not None
    assert found.cash_flows.average is not None
    assert found.cash_flows.average.above is None
    assert found.cash_flows.reference == "close"


def test_flows_of_both_signs_have_a_shortfall_and_no_mean_rate() -> None:
    bundle, paths = market(0)
    close = float(bundle.spot[-1])
    days = paths.forecast.target_dates
    flows = (
        CashFlow(days[0], 1e6, days[0]),
        CashFlow(days[0], -1e6, days[0]),
        CashFlow(days[3], 5e5, days[3]),
    )
    found = treasury(Position(None, None, flows), paths, close).cash_flows
    assert found is not None
    assert found.side == "mixed"
    assert found.average is None
    alone = treasury(Position(None, None, flows[2:]), paths, close).cash_flows
    assert alone is not None
    assert found.expected_shortfall == pytest.approx(alone.expected_shortfall), "the others cancel out"


def test_a_tail_counts_the_value_on_its_edge_by_part() -> None:
    values = np.arange(1.0, 31.0)
    assert tail_mean(values, 0.05) == pytest.approx((30 + 0.5 * 29) / 1.5)
    assert tail_mean(values, 1.0) == values.mean()


class TestPosition:
    def test_is_of_the_settings_and_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "flows.csv"
        path.write_text("Amount,Date,Note\n-5,2024-04-10,b\n1.5,2024-04-09,a\n")
        found = Position.of(TreasuryConfig(budget_rate=900, exposure=0), path)
        assert found == Position(
            900.0, None, (CashFlow(date(2024, 4, 9), 1.5), CashFlow(date(2024, 4, 10), -5.0))
        )
        assert found.side == "mixed"

    @pytest.mark.parametrize("amount", [1e308, -1.1e18])
    def test_an_amount_beyond_measure_is_refused(self, amount: float, tmp_path: Path) -> None:
        with pytest.raises(
            InputError, match=r"the exposure is .*, more than there is of any currency; expected"
        ):
            Position.of(TreasuryConfig(exposure=amount))
        path = tmp_path / "flows.csv"
        path.write_text(f"date,amount\n2024-04-09,1.5\n2024-04-10,{amount}\n")
        with pytest.raises(InputError, match=r"the cash flow of 2024-04-10 is .*1e\+18 at most"):
            Position.of(TreasuryConfig(), path)

    def test_figures_of_the_largest_amount_are_finite(self) -> None:
        bundle, paths = market(0)
        position = Position.of(TreasuryConfig(exposure=MAX_AMOUNT))
        found = treasury(position, paths, float(bundle.spot[-1])).exposure
        assert found is not None
        assert np.isfinite([found.loss_at_worst_rate, found.expected_shortfall]).all()

    def test_nothing_is_no_position(self) -> None:
        assert not Position()
        assert not Position.of(TreasuryConfig(exposure=0))
        assert Position().digest == "none"
        assert Position().side is None
        assert Position(900.0)

    def test_its_hash_tells_positions_apart_and_no_amount(self) -> None:
        day = date(2024, 4, 9)
        several = [
            Position(900.0),
            Position(901.0),
            Position(None, 900.0),
            Position(None, None, (CashFlow(day, 900.0),)),
            Position(None, None, (CashFlow(date(2024, 4, 10), 900.0),)),
        ]
        assert len({one.digest for one in several}) == 5
        assert "900" not in Position(None, 900.0).digest

    def test_a_day_without_a_close_is_settled_at_the_next(self) -> None:
        bundle = walk(700)  # up to 28 June 2024: 4 and 16 July are holidays
        days = [date(2024, 7, d) for d in (1, 4, 6, 16)]
        settled = Position(None, None, tuple(CashFlow(day, 1.0) for day in days)).settled(bundle, Horizon(30))
        assert [flow.settles for flow in settled.flows] == [date(2024, 7, d) for d in (1, 5, 8, 17)]
        assert [flow.day for flow in settled.flows] == days

    @pytest.mark.parametrize("day", [date(2024, 6, 28), date(2024, 7, 6), date(2023, 1, 2), date(2025, 1, 2)])
    def test_a_flow_outside_the_horizon_is_refused(self, day: date) -> None:
        position = Position(None, None, (CashFlow(day, 1.0),))
        with pytest.raises(
            InputError, match=rf"cash flow of {day} lies outside.*from 2024-07-01 to 2024-07-05"
        ):
            position.settled(walk(700), Horizon(7))

    @pytest.mark.parametrize(
        ("ratio", "said"), [(0.2, "0.2 times the last close"), (5.0, "5 times"), (100.0, "100 times")]
    )
    def test_a_budget_rate_of_another_unit_is_refused(self, ratio: float, said: str) -> None:
        bundle = walk(700)
        with pytest.raises(InputError, match=rf"{said}.*Expected CLP per USD"):
            Position(ratio * bundle.spot[-1]).settled(bundle, Horizon(7))

    def test_an_inverted_budget_rate_is_recognised(self) -> None:
        bundle = walk(700)
        with pytest.raises(InputError, match="it looks like USD per CLP"):
            Position(1 / bundle.spot[-1]).settled(bundle, Horizon(7))


BAD_FILES = {
    "no amount column": ("date,betrag\n2024-07-01,5\n", "no column 'amount'; found 'date', 'betrag'"),
    "no date column": ("day,amount\n2024-07-01,5\n", "no column 'date'"),
    "not a number": ("date,amount\n2024-07-01,five\n", "line 2, column 'amount': found 'five'"),
    "thousands": ('date,amount\n2024-07-01,"1,000"\n', "without thousands separators"),
    "not finite": ("date,amount\n2024-07-01,5\n2024-07-02,inf\n", "line 3, column 'amount': found 'inf'"),
    "not a date": ("date,amount\n2024-07-01,5\n31/12/2024,6\n", "line 3: '31/12/2024' is not a date"),
    "no date at all": ("date,amount\nsoon,5\n", "has no date column"),
    "an empty amount": (
        "date,amount\n2024-07-01,5\n\n2024-07-02,\n",
        "line 4: the flow of 2024-07-02 has no",
    ),
    "an amount of nothing": ("date,amount\n2024-07-01,0\n", "line 2: the flow of 2024-07-01 has no amount"),
    "only empty amounts": ("date,amount\n2024-07-01,\n", "found no value in 1 rows"),
    "semicolons": ("date;amount\n2024-07-01;5\n", "separated by semicolons"),
    "a cell too many": ("date,amount\n2024-07-01,5,000\n", "line 2: found 3 cells"),
    "header alone": ("date,amount\n", "a header and no rows"),
    "empty": ("", "is empty"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_one_clear_error(kind: str, tmp_path: Path) -> None:
    content, said = BAD_FILES[kind]
    path = tmp_path / "flows.csv"
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        read_cash_flows(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there_or_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_cash_flows(tmp_path / "absent.csv")
    with pytest.raises(InputError, match="is a directory"):
        read_cash_flows(tmp_path)


def test_levels_hold_the_worst_five_percent() -> None:
    assert {LEVEL, 1 - LEVEL} <= set(LEVELS)
