"""The canary over a whole pass of the engine: what came after an origin reaches neither its members, weights nor bands.

The same canary is run over engines that cheat, to show that it would be heard.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forex_core import calibration, ensemble
from forex_core.calendars import business_day_numbers
from forex_core.calibration import Outcomes
from forex_core.config import ChronosConfig, EngineConfig
from forex_core.engine import Engine, Paths, build_members
from forex_core.models.base import Answers, Levels, lognormal, rows_of
from forex_core.testing import USDCLP, bundle_of, synthetic_table
from forex_core.types import ENSEMBLE, HORIZONS, Array, MarketBundle

ROWS = 580
LIGHT = EngineConfig(
    members=("random_walk", "theta", "drivers"), grid_origins=60, warmup_origins=10, min_history_rows=300
)
MEMBERS = [f"quantiles of {name}" for name in LIGHT.members]


class LooksAhead:
    """A member that is right only because it reads the next close."""

    name = "looks_ahead"
    identity = "looks_ahead"
    columns: tuple[str, ...] = ("spot",)
    lookback_rows: int | None = None
    trained_until: date | None = None
    may_have_seen = False
    libraries: tuple[str, ...] = ()

    def forecast(
        self, bundle: MarketBundle, origins: pd.DatetimeIndex, steps: int, levels: Levels
    ) -> Answers:
        rows = rows_of(bundle, origins)
        spread = np.tile(0.006 * np.sqrt(np.arange(1, steps + 1)), (len(rows), 1))
        tomorrow = bundle.spot[np.minimum(rows + 1, len(bundle) - 1)]
        return Answers(lognormal(tomorrow, np.zeros_like(spread), spread, levels))


def engine(*more: LooksAhead) -> Engine:
    return Engine(LIGHT, [*build_members(LIGHT, ChronosConfig()), *more])


def late_bundle() -> MarketBundle:
    """A bundle whose closes become known up to two rows late, as held prints do."""
    bundle = bundle_of(synthetic_table(ROWS, seed=3))
    delay = np.random.default_rng(1).integers(0, 3, len(bundle))
    return replace(bundle, truth_known=bundle.truth_known + delay)


BUNDLE = late_bundle()
NUMBERS = business_day_numbers(USDCLP, BUNDLE.dates)
GRID = np.flatnonzero((NUMBERS % LIGHT.grid_every == 0) & (NUMBERS >= 0) & (np.arange(ROWS) >= 300))
ORIGINS = np.union1d(GRID, np.arange(302, ROWS, 31))


def another_future(
    bundle: MarketBundle, cut: int, seed: int, size: float, holes: float = 0.0, wait: int = 0
) -> MarketBundle:
    """All that was not known at row `cut` replaced: prices, drivers, outcomes and when they become known.

    Args:
        size: of the changes, as standard deviation of their logarithm.
        holes: share of outcomes that are never observed.
        wait: rows by which outcomes become known later still, at most.
    """
    rng = np.random.default_rng(seed)
    count = len(bundle)
    later = np.arange(count) > cut
    unknown = bundle.truth_known > cut
    spot = np.where(later, bundle.spot * np.exp(rng.normal(0, size, count)), bundle.spot)
    changed = np.exp(rng.normal(0, size, bundle.drivers.shape))
    truth = np.where(unknown, bundle.spot * np.exp(rng.normal(0, size, count)), bundle.truth)
    truth[unknown & (rng.random(count) < holes)] = np.nan
    known = bundle.truth_known + np.where(unknown, rng.integers(0, wait + 1, count), 0)
    drivers = np.where(later[:, None], bundle.drivers * changed, bundle.drivers)
    return replace(bundle, spot=spot, truth=truth, truth_known=known, drivers=drivers)


def leaks(speaker: Engine, whole: Paths, changed: MarketBundle, upto: int, alone: bool = False) -> list[str]:
    """What differs by a bit at the first `upto` origins between a pass and one over changed data.

    Args:
        alone: ask these origins alone, and not the later ones beside them.
    """
    again = speaker.paths(changed, whole.rows[:upto] if alone else whole.rows)
    assert again.failures == whole.failures == {}
    pairs: dict[str, tuple[Array, Array]] = {
        **{f"quantiles of {name}": (q, again.quantiles[name]) for name, q in whole.quantiles.items()},
        "weights": (whole.weights, again.weights),
        "band factors": (whole.factors, again.factors),
    }
    return [name for name, (one, two) in pairs.items() if not np.array_equal(one[:upto], two[:upto])]


def canary(speaker: Engine) -> set[str]:
    """What leaks at any of six grid origins in a row, one of which re-estimates the weights, or off the grid."""
    whole = speaker.paths(BUNDLE, ORIGINS)
    np.testing.assert_array_equal(whole.rows, ORIGINS)
    found: set[str] = set()
    between = np.setdiff1d(ORIGINS, GRID)
    for cut in (*GRID[-10:-4], between[-3]):
        upto = int(np.searchsorted(ORIGINS, cut)) + 1
        found |= set(leaks(speaker, whole, another_future(BUNDLE, int(cut), seed=int(cut), size=0.03), upto))
    return found


@pytest.fixture(scope="module")
def whole() -> Paths:
    return engine().paths(BUNDLE, ORIGINS)


def test_there_is_something_to_leak(whole: Paths) -> None:
    """By the origins that the canary tries, weights and bands have been learned, from outcomes known late as well."""
    tried = int(np.searchsorted(ORIGINS, GRID[-10]))
    assert (whole.weights[tried] != whole.weights[0]).any()
    assert (whole.factors[tried] != 1).any()
    assert (np.diff(whole.weights[tried:], axis=0) != 0).any()
    assert (whole.outcomes.known > whole.rows[:, None] + np.arange(1, 65)).any()
    assert len(whole.rows) > len(GRID)


@settings(max_examples=15)
@given(
    position=st.integers(5, len(ORIGINS) - 1),
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([1e-9, 0.003, 0.03]),
    holes=st.sampled_from([0.0, 0.3, 1.0]),
    wait=st.sampled_from([0, 40]),
    alone=st.booleans(),
)
def test_whatever_comes_after_an_origin_it_stays_as_it_was(
    whole: Paths, position: int, seed: int, size: float, holes: float, wait: int, alone: bool
) -> None:
    changed = another_future(BUNDLE, int(ORIGINS[position]), seed, size, holes, wait)
    assert leaks(engine(), whole, changed, position + 1, alone) == []


def test_the_canary_is_silent_over_an_honest_engine() -> None:
    assert canary(engine()) == set()


def test_the_canary_names_a_member_that_is_right_only_by_looking_ahead() -> None:
    """Its scores are splendid and the weights follow it: only the canary can tell."""
    cheat = engine(LooksAhead())
    found = cheat.forecast(BUNDLE, HORIZONS[0])
    assert found.failures == {}
    assert found.evaluation.scores["looks_ahead"].rmse_ratio_rw < 0.9
    assert found.weights["looks_ahead"] > 0.8
    named = canary(cheat)
    assert named >= {"quantiles of looks_ahead", f"quantiles of {ENSEMBLE}"}
    assert not named & set(MEMBERS)


def knowing(
    function: Callable[..., Any], early: Callable[[Outcomes], npt.NDArray[np.int64]]
) -> Callable[..., Any]:
    """`function` as it would be if outcomes were known when `early` says."""

    def cheating(*arguments: Any, **named: Any) -> Any:
        def bent(value: Any) -> Any:
            return replace(value, known=early(value)) if isinstance(value, Outcomes) else value

        return function(*map(bent, arguments), **{name: bent(value) for name, value in named.items()})

    return cheating


EARLY: dict[str, Callable[[Outcomes], npt.NDArray[np.int64]]] = {
    "the whole sample": lambda outcomes: np.zeros_like(outcomes.known),
    "a day too early": lambda outcomes: outcomes.known - 1,
    "held prints when dated": lambda outcomes: (
        outcomes.rows[:, None] + np.arange(1, outcomes.known.shape[1] + 1)
    ),
}


@pytest.mark.parametrize("early", EARLY)
def test_the_canary_names_weights_that_look_ahead(early: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ensemble, "combine", knowing(ensemble.combine, EARLY[early]))
    found = canary(engine())
    assert found >= {"weights", f"quantiles of {ENSEMBLE}"}
    assert not found & set(MEMBERS)


@pytest.mark.parametrize("early", EARLY)
def test_the_canary_names_bands_that_look_ahead(early: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "factors_by_block", knowing(calibration.factors_by_block, EARLY[early]))
    found = canary(engine())
    assert found >= {"band factors", f"quantiles of {ENSEMBLE}", *MEMBERS}
    assert "weights" not in found
