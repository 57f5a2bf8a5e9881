"""The forward by covered parity, the advice against it, and the forecast from a market quote."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import pandas as pd
import pytest

from forex_core.briefing.absent import Absent
from forex_core.briefing.forward import Forward, PolicyRate, forward
from forex_core.briefing.quote import QuotedForecast, given, is_plausible, quoted
from forex_core.briefing.sample_paths import sample_paths
from forex_core.data.observations import Quote
from forex_core.errors import InputError
from forex_core.types import LEVELS, Horizon, MarketBundle, Pair, Verdict
from tests.unit.random_walks import bundle_of, lognormal, walk

CHILE, FED = 5.75, 5.33
SPOT = walk(2000).spot


def verdict(kind: str) -> Verdict:
    return Verdict(kind, "a sentence", 0.01, 0.01, date(2024, 5, 31), 200)


def of(
    bundle: MarketBundle, kind: str = "none", days: int = 90, drift: float = 0.0, side: str | None = None
) -> Forward | Absent:
    """The forward beside a forecast whose median drifts by so much a step."""
    forecast = lognormal(bundle, Horizon(days))
    growth = np.exp(drift * np.array(forecast.steps))[:, None]
    return forward(
        sample_paths(replace(forecast, quantiles=forecast.quantiles * growth), bundle),
        bundle,
        verdict(kind),
        side,  # type: ignore[arg-type]
    )


def found(*args: object, **kwargs: object) -> Forward:
    answer = of(*args, **kwargs)  # type: ignore[arg-type]
    assert isinstance(answer, Forward)
    return answer


class TestForward:
    BUNDLE = bundle_of(SPOT, rates={"fed_rate": FED, "chile_tpm": CHILE, "copper": 4.0})

    def test_is_covered_parity_with_simple_interest_on_actual_days_over_360(self) -> None:
        forwards = found(self.BUNDLE)
        last = (date(2024, 9, 26) - date(2024, 6, 28)).days
        assert forwards.days[-1] == last == 90
        close = SPOT[-1]
        assert forwards.rates[-1] == pytest.approx(close * (1 + 0.0575 * 90 / 360) / (1 + 0.0533 * 90 / 360))
        assert forwards.days[0] == 3, "over a weekend"
        assert forwards.base == PolicyRate("USD", "fed_rate", FED)
        assert forwards.quote == PolicyRate("CLP", "chile_tpm", CHILE)
        assert forwards.difference == pytest.approx(close - forwards.rates)

    def test_with_a_higher_rate_the_quote_currency_is_cheaper_forward(self) -> None:
        assert (np.diff(found(self.BUNDLE).rates) > 0).all()
        cheap_peso = bundle_of(SPOT, rates={"fed_rate": CHILE, "chile_tpm": FED})
        assert (np.diff(found(cheap_peso).rates) < 0).all()

    def test_the_rate_in_force_counts_before_the_monthly_average(self) -> None:
        both = bundle_of(SPOT, rates={"chile_rate": 6.4, "fed_rate": FED, "chile_tpm": CHILE})
        assert found(both).quote.series == "chile_tpm"
        stale = replace(both, drivers=np.where(np.arange(3) == 2, np.nan, both.drivers))
        assert found(stale).quote == PolicyRate("CLP", "chile_rate", 6.4)

    @pytest.mark.parametrize(
        ("rates", "pair", "lacking"),
        [
            ({}, "USDCLP", ["USD", "CLP"]),
            ({"fed_rate": FED}, "USDCLP", ["CLP"]),
            ({"chile_tpm": CHILE, "rate_differential": 0.4}, "USDCLP", ["USD"]),
            ({"fed_rate": FED, "chile_tpm": CHILE}, "USDMXN", ["MXN"]),
            ({"fed_rate": FED, "chile_tpm": CHILE}, "EURGBP", ["EUR", "GBP"]),
            ({"fed_rate": np.nan, "chile_tpm": CHILE}, "USDCLP", ["USD"]),
        ],
    )
    def test_is_absent_without_both_rates(
        self, rates: dict[str, float], pair: str, lacking: list[str]
    ) -> None:
        answer = of(bundle_of(SPOT, rates=rates, pair=Pair.parse(pair)))
        assert isinstance(answer, Absent)
        assert answer.kind == "no_policy_rate"
        told = answer.facts["currencies"]
        assert [one["currency"] for one in told] == lacking  # type: ignore[attr-defined]

    def test_works_for_the_dollar_as_quote(self) -> None:
        bundle = bundle_of(1 / SPOT, rates={"fed_rate": FED, "chile_tpm": CHILE}, pair=Pair.parse("CLPUSD"))
        assert (found(bundle).base.currency, found(bundle).quote.currency) == ("CLP", "USD")
        assert (np.diff(found(bundle).rates) < 0).all()

    def test_probability_of_a_close_above_it(self) -> None:
        forwards = found(self.BUNDLE)
        assert forwards.above[-1] == pytest.approx(0.49, abs=0.02)
        assert found(self.BUNDLE, drift=0.002).above[-1] > 0.95

    @pytest.mark.parametrize("kind", ["none", "close_only"])
    @pytest.mark.parametrize("drift", [-0.003, 0.0, 0.003])
    def test_without_usable_skill_there_is_no_edge_whatever_the_median(self, kind: str, drift: float) -> None:
        assert found(self.BUNDLE, kind, drift=drift).advice.kind == "no_edge"

    @pytest.mark.parametrize(
        ("drift", "advice"), [(-0.003, "median_below"), (0.0, "alike"), (0.003, "median_above")]
    )
    def test_with_usable_skill_the_median_counts(self, drift: float, advice: str) -> None:
        forwards = found(self.BUNDLE, "usable", drift=drift, side="long")
        assert (forwards.advice.kind, forwards.advice.side) == (advice, "long")

    def test_what_the_next_close_catches_up_with_is_no_advice(self) -> None:
        """A jump at the first step, and nothing from there: nobody can deal at the close before it."""
        forecast = lognormal(self.BUNDLE, Horizon(30))
        jumped = replace(forecast, quantiles=forecast.quantiles * 1.05)
        forwards = forward(sample_paths(jumped, self.BUNDLE), self.BUNDLE, verdict("usable"))
        assert isinstance(forwards, Forward)
        assert forwards.above[-1] > 0.9
        assert forwards.advice.kind == "alike"

    def test_advice_is_about_the_forward_from_the_next_close_on(self) -> None:
        """Rates so far apart that it matters: a median that follows the forward leaves nothing to choose."""
        bundle = bundle_of(SPOT, rates={"fed_rate": 0.0, "chile_tpm": 300.0})
        forecast = lognormal(bundle, Horizon(7))
        days = np.array([(day - forecast.origin).days for day in forecast.target_dates])
        growth = (1 + 3.0 * days / 360)[:, None]
        followed = replace(forecast, quantiles=forecast.quantiles * growth / growth[0])
        forwards = forward(sample_paths(followed, bundle), bundle, verdict("usable"))
        assert isinstance(forwards, Forward)
        assert forwards.above[-1] < 0.1, "the close is left behind at once"
        assert forwards.advice.above == pytest.approx(0.5, abs=0.03)

    def test_beside_a_quote_it_is_struck_there(self) -> None:
        """What somebody can deal at, beside the forecast from there, on the days that are left."""
        bundle = replace(self.BUNDLE, outcome_at=CLOSES)
        paths = sample_paths(lognormal(bundle, Horizon(30)), bundle)
        at = quoted(Quote(1.02 * SPOT[-1], MORNING, "yahoo"), paths, bundle)
        assert isinstance(at, QuotedForecast)
        forwards = forward(paths, bundle, verdict("usable"), "long", at)
        assert isinstance(forwards, Forward)
        assert forwards.from_quote
        assert forwards.struck_at == 1.02 * SPOT[-1]
        assert forwards.target_dates == at.target_dates
        days = np.array([(day - date(2024, 7, 1)).days for day in at.target_dates])
        assert forwards.days == tuple(days)
        growth = (1 + CHILE / 100 * days / 360) / (1 + FED / 100 * days / 360)
        assert forwards.rates == pytest.approx(1.02 * SPOT[-1] * growth)
        median = at.quantiles[:, LEVELS.index(0.5)]
        assert forwards.difference == pytest.approx(median - forwards.rates)
        assert forwards.above == pytest.approx((at.prices > forwards.rates).mean(axis=0))
        assert forwards.advice.above == forwards.above[-1], "one forward, one probability"
        from_close = forward(paths, bundle, verdict("usable"), "long")
        assert isinstance(from_close, Forward)
        assert not from_close.from_quote
        assert from_close.struck_at == SPOT[-1]


MORNING = pd.Timestamp("2024-07-01T13:05:00Z")


CLOSES = pd.Timestamp("2024-07-01T21:05:00Z")
"""A third of a day after MORNING."""


def from_quote(
    value: float, at: pd.Timestamp = MORNING, days: int = 30, outcome_at: pd.Timestamp | None = CLOSES
) -> QuotedForecast | Absent:
    bundle = replace(walk(2000), outcome_at=outcome_at)
    return quoted(Quote(value, at, "yahoo"), sample_paths(lognormal(bundle, Horizon(days)), bundle), bundle)


class TestQuote:
    CLOSE = float(SPOT[-1])

    @pytest.mark.parametrize(
        ("outcome_at", "left"),
        [(CLOSES, 1 / 3), (MORNING, 0.0), (CLOSES + pd.Timedelta(days=3), 1), (None, 1)],
    )
    def test_the_forecast_from_it_is_the_way_through_its_day_and_on(
        self, outcome_at: pd.Timestamp | None, left: float
    ) -> None:
        """Of a random walk: lognormal around the quote, with the variance of the time that is left."""
        value = 1.01 * self.CLOSE
        answer = from_quote(value, outcome_at=outcome_at)
        assert isinstance(answer, QuotedForecast)
        assert answer.stands_for == date(2024, 7, 1)
        forecast = lognormal(walk(2000), Horizon(30))
        assert answer.target_dates == forecast.target_dates[1:]
        assert answer.quantiles.shape == (len(answer.target_dates), len(LEVELS))
        assert (np.diff(answer.quantiles, axis=1) >= 0).all()
        for level, z in ((0.1, -1.2816), (0.5, 0.0), (0.9, 1.2816)):
            ahead = np.sqrt(np.array(forecast.steps[1:]) - 1 + left)
            moved = np.log(answer.quantiles[:, LEVELS.index(level)] / value) / 0.006
            assert moved == pytest.approx(z * ahead, abs=0.06 * ahead.max())
            assert moved[0] == pytest.approx(z * ahead[0], abs=0.06 * ahead[0])

    def test_scales_with_the_quote(self) -> None:
        one, other = from_quote(self.CLOSE), from_quote(1.1 * self.CLOSE)
        assert isinstance(one, QuotedForecast)
        assert isinstance(other, QuotedForecast)
        assert other.quantiles == pytest.approx(1.1 * one.quantiles, rel=1e-12)

    @pytest.mark.parametrize(
        ("at", "stands_for"),
        [
            ("2024-07-01T11:00Z", date(2024, 7, 1)),
            ("2024-07-02T03:59Z", date(2024, 7, 1)),  # by Santiago's clock
            ("2024-07-02T04:01Z", date(2024, 7, 2)),
            ("2024-07-04T15:00Z", date(2024, 7, 5)),  # a holiday in New York
            ("2024-07-06T15:00Z", date(2024, 7, 8)),  # a Saturday
        ],
    )
    def test_stands_for_the_close_of_its_day_at_the_desk_or_the_next(self, at: str, stands_for: date) -> None:
        answer = from_quote(self.CLOSE, pd.Timestamp(at))
        assert isinstance(answer, QuotedForecast)
        assert answer.stands_for == stands_for
        assert answer.target_dates[0] > stands_for

    def test_the_days_up_to_it_are_known(self) -> None:
        """A quote of the third target date: what is left to spread is the way from there."""
        answer = from_quote(self.CLOSE, pd.Timestamp("2024-07-03T15:00Z"))
        assert isinstance(answer, QuotedForecast)
        assert answer.stands_for == date(2024, 7, 3)
        steps = np.array(lognormal(walk(2000), Horizon(30)).steps)
        left = (21 + 5 / 60 - 15) / 24
        moved = np.log(answer.quantiles[:, LEVELS.index(0.9)] / self.CLOSE) / 0.006
        ahead = np.sqrt(steps[3:] - steps[2] + left)
        assert moved == pytest.approx(1.2816 * ahead, rel=0.06)

    @pytest.mark.parametrize("at", ["2024-07-05T13:00Z", "2024-07-08T13:00Z", "2026-01-01T00:00Z"])
    def test_says_nothing_where_no_date_is_left(self, at: str) -> None:
        answer = from_quote(self.CLOSE, pd.Timestamp(at), days=7)
        assert isinstance(answer, Absent)
        assert (answer.kind, answer.facts["last"]) == ("too_late", "2024-07-05")

    def test_one_of_the_day_of_the_close_is_no_news(self) -> None:
        answer = from_quote(self.CLOSE, pd.Timestamp("2024-06-28T22:55Z"))
        assert isinstance(answer, Absent)
        assert answer.kind == "not_newer"

    @pytest.mark.parametrize("ratio", [0.79, 1.21, 0.01, 100.0])
    def test_an_impossible_one_is_not_used(self, ratio: float) -> None:
        answer = from_quote(ratio * self.CLOSE)
        assert answer == Absent("implausible", {"value": ratio * self.CLOSE, "close": self.CLOSE})

    def test_up_to_a_fifth_from_the_close_it_is_believed(self) -> None:
        assert isinstance(from_quote(1.19 * self.CLOSE), QuotedForecast)
        assert not is_plausible(float("nan"), 900.0)
        assert not is_plausible(-900.0, 900.0)

    @pytest.mark.parametrize(
        ("value", "said"),
        [
            (9.0, r"the quote 9 is not within 20% of the close of 2024-06-28, .*Expected CLP per USD"),
            (1 / float(SPOT[-1]), "it looks like USD per CLP"),
            (-5.0, "not within"),
            (0.0, "not within"),
        ],
    )
    def test_one_that_is_given_wrong_is_refused_with_what_was_found(self, value: float, said: str) -> None:
        with pytest.raises(InputError, match=said):
            given(value, walk(2000))

    def test_one_that_is_given_is_of_the_as_of(self) -> None:
        bundle = walk(2000)
        assert given(self.CLOSE, bundle) == Quote(self.CLOSE, bundle.as_of, "given")
