"""Corpus, generated series, what a model is shown, and training runs of a tiny model."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from sklearn.linear_model import Ridge

from forex_core.calendars import business_day_numbers
from forex_core.champion import MIN_ORIGINS
from forex_core.config import EngineConfig
from forex_core.errors import ConfigError, ForexError, InputError, MemberError
from forex_core.models.chronos import ChronosForecaster
from forex_core.models.chronos_library import load_pipeline
from forex_core.models.chronos_series import CHANCE, LAGS, LIMIT, REACH, RIDGE, RULER, SERIES, Shown, shown
from forex_core.models.chronos_weights import (
    CONFIG,
    EMBEDDED,
    EMBEDDED_FOLDER,
    GRAPH,
    STATEMENT,
    WEIGHTS,
    StatedWeights,
)
from forex_core.testing import synthetic_bundle
from forex_core.tracking import NoopTracker
from forex_core.training import generated
from forex_core.training.config import Architecture, FineTuningConfig, TrainingConfig, read
from forex_core.training.corpus import MIN_CONTEXT, Batch, Corpus, Crosses
from forex_core.training.loaders import TEST, TRAIN, VALIDATION, Loaders
from forex_core.training.module import QuantileTraining, untrained
from forex_core.training.run import Curve, pretrain
from forex_core.training.weights import (
    PARITY,
    Statement,
    parity,
    reexport,
    save_weights,
    weights_to_begin_from,
)
from forex_core.types import LEVELS, PATH_STEPS, PERCENT_PER_YEAR, MarketBundle

TINY = Architecture(width=16, layers=1, heads=2, feed_forward=32, context=128)
UNTIL = date(2010, 12, 31)


def tiny_config(**changes: Any) -> TrainingConfig:
    told = {
        "epochs": 3,
        "steps_per_epoch": 4,
        "batch_size": 4,
        "validation_batches": 2,
        "warmup_steps": 2,
        "workers": 0,
        "architecture": TINY.model_dump(),
    }
    return TrainingConfig.model_validate(told | changes)


@pytest.fixture(scope="module")
def crosses() -> Crosses:
    return Crosses.of_ecb()


def same(one: Batch, other: Batch) -> bool:
    return all(
        np.array_equal(a, b, equal_nan=True)
        for a, b in (
            (one.context, other.context),
            (one.target, other.target),
            (one.group, other.group),
        )
    )


class TestCorpus:
    def test_a_batch_is_a_function_of_its_key(self, crosses: Crosses) -> None:
        corpus, again = (Corpus(crosses, TINY, UNTIL) for _ in range(2))
        assert same(corpus.batch(6, 1, 2), again.batch(6, 1, 2))
        assert not same(corpus.batch(6, 1, 2), corpus.batch(6, 1, 3))

    def test_what_comes_after_the_last_day_reaches_no_batch(self, crosses: Crosses) -> None:
        later = crosses.logs.copy()
        later[:, crosses.row_after(UNTIL) :] += np.linspace(
            0, 5, len(crosses.days) - crosses.row_after(UNTIL)
        )
        corpus = Corpus(crosses, TINY, UNTIL, generated_share=0.0)
        other = Corpus(replace(crosses, logs=later), TINY, UNTIL, generated_share=0.0)
        for number in range(20):
            assert same(corpus.batch(8, number), other.batch(8, number))

    def test_outcomes_lie_between_the_two_days(
        self, crosses: Crosses, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The level is the number of its row, so that a task tells which rows its outcomes are of."""
        after = date(2009, 12, 31)
        counted = np.zeros_like(crosses.logs)
        counted[0] = np.arange(len(crosses.days))
        corpus = Corpus(crosses, TINY, UNTIL, after, generated_share=0.0)
        corpus._known = replace(crosses, logs=counted).until(UNTIL)
        corpus.pairs = np.array([(0, 1)])
        asked: list[tuple[float, Shown]] = []

        def noted(level: Any, drivers: Any, context: int) -> Shown:
            asked.append((float(level[-1]), shown(level, drivers, context)))
            return asked[-1][1]

        monkeypatch.setattr("forex_core.training.corpus.shown", noted)
        targets = [corpus.batch(4, number).target[::SERIES] for number in range(60)]
        rows = np.array(
            [
                np.abs(last + what.told(target[:, None])[[0, -1], 0])
                for (last, what), target in zip(asked, np.concatenate(targets), strict=True)
            ]
        )
        # A rate that is struck before the end of its row counts as up to a row earlier.
        first, last = crosses.row_after(after), crosses.row_after(UNTIL) - 1
        assert first - 1 <= rows[:, 0].min() < first + 20
        assert last - 20 < rows[:, 1].max() < last + 0.01

    def test_shapes_groups_and_that_rates_alone_have_outcomes(self, crosses: Crosses) -> None:
        batch = Corpus(crosses, TINY, UNTIL).batch(7, 0)
        assert batch.tasks == 7
        assert batch.context.shape == (7 * SERIES, TINY.context)
        assert batch.target.shape == (7 * SERIES, TINY.steps)
        np.testing.assert_array_equal(batch.group, np.repeat(np.arange(7), SERIES))
        rates = np.arange(7 * SERIES) % SERIES == 0
        assert np.isfinite(batch.target[rates]).all()
        assert np.isnan(batch.target[~rates]).all()
        assert not np.isnan(batch.context[:, -1]).any()

    def test_a_history_is_whole(self, crosses: Crosses) -> None:
        """Of currencies that began in the middle: the model is shown what came since, in the unit of its moves."""
        young = [crosses.currencies.index(name) for name in ("BRL", "CNY", "INR", "MXN")]
        corpus = Corpus(crosses, Architecture(), date(2010, 12, 31), generated_share=0.0)
        corpus.pairs = np.array([(one, other) for one in young for other in young if one < other])
        parts = [corpus.batch(16, number) for number in range(12)]
        shares = [np.isfinite(batch.context[0::SERIES]).mean(axis=1) for batch in parts]
        assert np.mean(np.concatenate(shares) < 0.95) > 0.1
        assert np.isfinite(
            np.concatenate([batch.context[0::SERIES, -MIN_CONTEXT + 1 :] for batch in parts])
        ).all()
        sizes = np.concatenate([batch.target[0::SERIES].std(axis=1) for batch in parts])
        assert sizes.min() > 0.05

    def test_pegged_currencies_are_left_out(self, crosses: Crosses) -> None:
        corpus = Corpus(crosses, TINY, UNTIL)
        names = {frozenset(crosses.currencies[i] for i in pair) for pair in corpus.pairs}
        assert {"DKK", "EUR"} not in names
        assert {"JPY", "USD"} in names

    def test_days_too_close_together_are_refused(self, crosses: Crosses) -> None:
        with pytest.raises(ConfigError, match="no 64 days to forecast"):
            Corpus(crosses, TINY, UNTIL, date(2010, 11, 30))
        with pytest.raises(ConfigError, match="days together"):
            Corpus(crosses, TINY, date(1999, 3, 1))


class TestGenerated:
    def test_some_rates_follow_their_drivers_and_most_moves_are_their_own(self) -> None:
        levels, others = generated.groups(np.random.default_rng(3), 200, 3, 600)
        moves = np.diff(levels, axis=1)
        led = [
            max(abs(np.corrcoef(move[1:], other[1:-1])[0, 1]) for other in driver)
            for move, driver in zip(moves, others, strict=True)
        ]
        assert levels.shape == (200, 600)
        assert others.shape == (200, 3, 600)
        assert np.isfinite(levels).all()
        assert 0.1 < np.mean(np.array(led) > 0.2) < 0.7
        assert max(led) < 0.8

    def test_volatility_clusters_and_tails_are_fat(self) -> None:
        moves = np.diff(generated.groups(np.random.default_rng(4), 200, 1, 600)[0], axis=1)
        size = np.abs(moves - moves.mean(axis=1, keepdims=True))
        persistence = [np.corrcoef(row[1:], row[:-1])[0, 1] for row in size]
        kurtosis = ((moves - moves.mean(axis=1, keepdims=True)) ** 4).mean(axis=1) / moves.var(axis=1) ** 2
        assert np.median(persistence) > 0.03
        assert np.median(kurtosis) > 3.3

    def test_volatility_is_of_four_kinds(self) -> None:
        """Steady; answering the last shock; wandering by itself; of two sizes."""
        shocks = np.random.default_rng(5).normal(size=(400, 1500))
        sizes = generated._volatility(np.random.default_rng(6), shocks)
        values = np.array([len(np.unique(row)) for row in sizes])
        logs, sizes_of_shocks = np.log(sizes), np.abs(shocks)
        with np.errstate(invalid="ignore", divide="ignore"):
            answering = np.array(
                [np.corrcoef(np.diff(a), b[:-1])[0, 1] for a, b in zip(logs, sizes_of_shocks, strict=True)]
            )
        steady, regimes = values == 1, values == 2
        garch = (values > 2) & (answering > 0.5)
        wandering = (values > 2) & (np.abs(answering) < 0.2)
        for kind in (steady, regimes, garch, wandering):
            assert 0.15 < kind.mean() < 0.35
        assert (steady | regimes | garch | wandering).all()
        assert (sizes[steady] == 1).all()
        switches = (np.diff(sizes[regimes], axis=1) != 0).mean()
        assert 0.002 < switches < 0.03
        assert np.median([np.corrcoef(row[1:], row[:-1])[0, 1] for row in logs[wandering]]) > 0.9

    def test_some_rates_revert_and_the_others_are_random_walks(self) -> None:
        moves = np.random.default_rng(7).normal(size=(500, 4000))
        levels = generated._level(np.random.default_rng(8), moves)
        walks = np.isclose(levels, moves.cumsum(axis=1)).all(axis=1)
        assert 0.15 < 1 - walks.mean() < 0.25
        spread = levels[:, 2000:].std(axis=1)
        assert np.median(spread[~walks]) < 0.4 * np.median(spread[walks])

    def test_some_rates_jump(self) -> None:
        """Seen where innovations are normal: of 400 · 2,000 one in two is beyond five deviations."""

        class Normal(np.random.Generator):
            def standard_t(self, df: Any, size: Any = None) -> Any:
                return self.normal(size=np.shape(df)) * np.sqrt(df / (df - 2))

        shocks = generated._shocks(Normal(np.random.PCG64(9)), 400, 1, 2000)
        assert shocks.std() == pytest.approx(1, abs=0.02)
        jumpy = (np.abs(shocks) > 5).any(axis=2).mean()
        assert 0.09 < jumpy < 0.19

    def test_a_rate_struck_earlier_is_between_two_rows(self) -> None:
        level = np.array([[1.0, 3.0, 2.0], [0.0, 1.0, 5.0]])
        np.testing.assert_allclose(
            generated.struck_earlier(level, np.array([0.25, 1.0])), [[1.0, 2.5, 2.25], [0.0, 0.0, 1.0]]
        )


class TestLoaders:
    def test_each_has_the_batches_of_its_days_whoever_makes_them(self, crosses: Crosses) -> None:
        """Validation and test have none that are generated; another seed has others."""
        config = tiny_config(train_until=date(2009, 12, 31), validate_until=date(2012, 12, 31), seed=4)
        loaders = Loaders(config, crosses)
        last = crosses.days[-1].date()
        parts = {
            TRAIN: (loaders.train_dataloader(), Corpus(crosses, TINY, config.train_until)),
            VALIDATION: (
                loaders.val_dataloader(),
                Corpus(crosses, TINY, config.validate_until, config.train_until, generated_share=0.0),
            ),
            TEST: (
                loaders.test_dataloader(),
                Corpus(crosses, TINY, last, config.validate_until, generated_share=0.0),
            ),
        }
        for part, (loader, corpus) in parts.items():
            found = next(iter(loader))
            assert same(found, corpus.batch(config.batch_size, 4, part, 0))
            assert not same(found, corpus.batch(config.batch_size, 5, part, 0))
        assert [len(loader) for loader, _ in parts.values()][:2] == [
            config.steps_per_epoch,
            config.validation_batches,
        ]

    @pytest.mark.slow
    def test_no_batch_hangs_on_the_process_that_makes_it(self, crosses: Crosses) -> None:
        here, there = (
            [*Loaders(tiny_config(workers=workers), crosses).train_dataloader()] for workers in (0, 1)
        )
        assert len(here) == len(there) == 4
        assert all(same(one, other) for one, other in zip(here, there, strict=True))


def rate_and_drivers(rows: int, drivers: int, lead: float, seed: int = 0) -> tuple[Any, Any]:
    draw = np.random.default_rng(seed)
    others = draw.normal(size=(drivers, rows))
    moves = draw.normal(size=rows)
    if drivers:
        moves[1:] = np.sqrt(1 - lead**2) * moves[1:] + lead * others[0, :-1]
    return 0.006 * np.cumsum(moves), 0.01 * others


class TestShown:
    @given(st.floats(-8, 8), st.floats(0.01, 100))
    @settings(max_examples=20, deadline=None)
    def test_the_unit_of_the_price_and_of_the_moves_drops_out(self, shift: float, factor: float) -> None:
        level, drivers = rate_and_drivers(300, 2, 0.4)
        one, other = shown(level, drivers, 128), shown(factor * level + shift, 3 * drivers, 128)
        np.testing.assert_allclose(other.series, one.series, atol=2e-3)
        assert other.unit == pytest.approx(factor * one.unit, rel=1e-6)
        np.testing.assert_allclose(other.expected, factor * one.expected, rtol=1e-6)

    def test_what_is_expected_is_a_ridge_regressions_answer(self) -> None:
        """By scikit-learn, shrunk by 1 - (2/F)²."""
        level, drivers = rate_and_drivers(129, 2, 0.5)
        found = shown(level, drivers, 128)
        moves = np.diff(level) / np.diff(level).std()
        known = np.clip(np.stack([moves, *(row[1:] / row[1:].std() for row in drivers)]), -LIMIT, LIMIT)
        columns = [np.concatenate([np.zeros(lag), row[: 128 - lag]]) for lag in range(LAGS) for row in known]
        x, factor = np.stack(columns, axis=1), None
        for reach in range(1, REACH + 1):
            n = 128 - reach
            y = np.array([known[0, t + 1 : t + 1 + reach].sum() for t in range(n)])
            fitted = Ridge(alpha=RIDGE * n, fit_intercept=False).fit(x[:n], y).predict(x)
            if factor is None:
                explained = fitted[:n] @ y
                statistic = (explained / x.shape[1]) / ((y @ y - explained) / (n - x.shape[1]))
                factor = 1 - (CHANCE / statistic) ** 2
            expected = factor * fitted * np.diff(level).std()
            assert found.expected[reach - 1] == pytest.approx(expected[-1], rel=1e-6)
            if reach != 2:
                row = found.series[3 if reach == 1 else 4, RULER:]
                np.testing.assert_allclose(row, expected[RULER:] / found.unit, rtol=1e-4, atol=1e-6)
        assert factor is not None
        assert 0.5 < factor < 1

    def test_an_answer_is_past_what_is_expected_and_over_the_deviation_of_its_step(self) -> None:
        found = shown(*rate_and_drivers(300, 2, 0.6), 128)
        said = found.told(np.stack([np.zeros(8), np.ones(8)], axis=1))
        np.testing.assert_allclose(said[:3, 0], found.expected)
        np.testing.assert_allclose(said[3:, 0], found.expected[2])
        np.testing.assert_allclose(said[:, 1] - said[:, 0], found.unit * np.sqrt(np.arange(1, 9)))
        assert np.abs(found.expected).min() > 0
        moves = np.linspace(0.1, -0.3, 8)
        np.testing.assert_allclose(found.told(found.asked(moves)[:, None])[:, 0], moves)

    def test_the_model_leaves_the_unit_of_the_answer_as_it_is(self) -> None:
        """It takes away the mean of the first series and divides by its deviation."""
        found = shown(*rate_and_drivers(600, 1, 0.4), 512)
        assert np.nanmean(found.series[0]) == pytest.approx(0, abs=1e-6)
        assert np.nanstd(found.series[0]) == pytest.approx(1, abs=1e-6)
        assert found.unit == pytest.approx(0.006, rel=0.15)

    def test_the_unit_follows_the_size_of_the_moves(self) -> None:
        level, drivers = rate_and_drivers(600, 0, 0.0)
        moves = np.diff(level)
        moves[-60:] *= 3
        rough = shown(np.concatenate([[0.0], np.cumsum(moves)]), drivers[:, :0], 512)
        calm = shown(level, drivers[:, :0], 512)
        assert 1.4 < rough.unit / calm.unit < 3
        # Of late rougher than the unit, which forgets more slowly.
        assert rough.series[2, -1] > 0.2 > calm.series[2, -1]
        assert rough.series[2, -100] < -0.4

    def test_where_nothing_leads_next_to_nothing_is_expected(self) -> None:
        expected = {
            lead: np.array(
                [shown(*rate_and_drivers(520, 4, lead, seed), 512).series[3, -1] for seed in range(60)]
            )
            for lead in (0.0, 0.5)
        }
        assert np.mean(expected[0.0] == 0) > 0.9
        assert np.std(expected[0.0]) < 0.1
        assert np.std(expected[0.5]) > 0.3

    def test_what_drivers_did_while_the_rate_stood_still_is_caught_up_with(self) -> None:
        level, drivers = rate_and_drivers(520, 1, 0.7)
        level[-1] = level[-2]
        drivers[0, -2:] = 0.02
        waited = shown(level, drivers, 512).expected
        drivers[0, -2] = 0.0
        assert waited[0] > 1.5 * shown(level, drivers, 512).expected[0] > 0

    @pytest.mark.parametrize("rows", [20, 128, 129, 400])
    def test_short_histories_are_padded_and_long_ones_cut(self, rows: int) -> None:
        level, drivers = rate_and_drivers(rows, 1, 0.3)
        series = shown(level, drivers, 128).series
        known = min(rows, 128)
        assert series.shape == (SERIES, 128)
        assert np.isfinite(series[1, -known:]).all()
        assert np.isnan(series[1, : 128 - known]).all()
        np.testing.assert_array_equal(series[2:, :RULER], np.tile([1.0, -1.0], (3, RULER // 2)))
        longer, drivers_longer = (
            np.concatenate([np.full(500, level[0]), level]),
            np.concatenate([np.full((1, 500), 9.0), drivers], axis=1),
        )
        if rows >= 129:
            np.testing.assert_array_equal(shown(longer, drivers_longer, 128).series, series)

    def test_a_rate_that_stands_still_and_a_driver_with_holes(self) -> None:
        still = shown(np.zeros(200), np.ones((1, 200)), 128)
        assert still.unit == 1.0
        np.testing.assert_array_equal(still.expected, 0)
        np.testing.assert_array_equal(still.series[:2], 0)
        level, drivers = rate_and_drivers(200, 2, 0.3)
        drivers[0, ::7] = np.nan
        drivers[1] = np.nan
        found = shown(level, drivers, 128)
        assert np.isfinite(found.series).all()
        assert np.isfinite(found.expected).all()


class TestConfiguration:
    def test_the_command_line_beats_the_file_and_the_file_the_defaults(self, tmp_path: Path) -> None:
        file = tmp_path / "told.json"
        file.write_text(json.dumps({"learning_rate": 0.5, "batch_size": 7}))
        found = read(TrainingConfig, file, {"learning_rate": 0.25, "epochs": None})
        assert (found.learning_rate, found.batch_size, found.epochs) == (0.25, 7, 100)

    def test_what_is_trained_where_nothing_is_told(self) -> None:
        config = TrainingConfig()
        assert (config.learning_rate, config.weight_decay) == (1e-3, 1e-5)
        assert (config.batch_size, config.epochs, config.patience, config.workers) == (32, 100, 5, 1)
        assert (config.train_until, config.validate_until) == (date(2014, 12, 31), date(2017, 12, 31))
        shape = config.architecture
        assert (shape.patch, shape.context, shape.steps) == (16, 512, 64)
        assert 1e6 < sum(part.numel() for part in untrained(shape).parameters()) < 4e6

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            ("{", "expected a JSON object"),
            ("[]", "holds a list"),
            ('{"learning": 1}', "learning: Extra inputs"),
            ('{"learning_rate": -1}', "learning_rate: Input should be greater than 0"),
            ('{"architecture": {"width": 30, "heads": 4}}', "cannot be parted among 4 heads"),
            ('{"architecture": {"context": 100}}', "multiple of the patch, 16"),
            ('{"train_until": "2018-01-01"}', "expected a day before validate_until"),
        ],
    )
    def test_what_cannot_be_used_is_told(self, tmp_path: Path, content: str, reason: str) -> None:
        file = tmp_path / "told.json"
        file.write_text(content)
        with pytest.raises(ConfigError, match=reason):
            read(TrainingConfig, file, {})
        with pytest.raises(ConfigError, match="cannot read"):
            read(TrainingConfig, tmp_path / "nowhere.json", {})


def as_tensors(batch: Batch) -> Batch:
    return Batch(*(torch.from_numpy(part) for part in (batch.context, batch.target, batch.group)))  # type: ignore[arg-type]


class TestModule:
    def test_the_loss_is_of_the_quantiles_of_the_rates_per_task(self, crosses: Crosses) -> None:
        """Recomputed from the answers: pinball losses in the model's own scale, arcsinh of the deviations."""
        torch.manual_seed(0)
        module = QuantileTraining(untrained(TINY).eval(), tiny_config())
        batch = Corpus(crosses, TINY, UNTIL, generated_share=0.0).batch(3, 5)
        loss = float(module.loss(module.model, as_tensors(batch)).detach())
        total = 0.0
        with torch.no_grad():
            for task in range(3):
                rows = torch.from_numpy(batch.context[batch.group == task])
                group = torch.zeros(len(rows), dtype=torch.long)
                said = (
                    module.model(context=rows, group_ids=group, num_output_patches=4)
                    .quantile_preds[0]
                    .numpy()
                )
                mean, spread = np.nanmean(rows[0]), np.nanstd(rows[0])
                answer = np.arcsinh((said - mean) / spread)
                truth = np.arcsinh((batch.target[batch.group == task][0] - mean) / spread)
                error = truth - answer
                level = np.array(LEVELS)[:, None]
                total += float(
                    (2 * np.where(error > 0, level * error, (level - 1) * error)).mean(axis=1).sum()
                )
        assert loss == pytest.approx(total / 3, rel=1e-3)

    def test_the_learning_rate_warms_up_and_falls_to_the_end(self) -> None:
        config = tiny_config(epochs=10, steps_per_epoch=10, warmup_steps=10, learning_rate=0.1)
        schedule = QuantileTraining(untrained(TINY), config).configure_optimizers()["lr_scheduler"][
            "scheduler"
        ]
        factors = [schedule.lr_lambdas[0](step) for step in range(101)]
        assert factors[0] == pytest.approx(0.1)
        assert max(factors) == factors[9] == pytest.approx(1)
        assert (np.diff(factors[10:]) <= 0).all()
        assert factors[100] == pytest.approx(0.02)

    def test_a_frozen_backbone_keeps_all_but_the_output_layer(self, crosses: Crosses, tmp_path: Path) -> None:
        torch.manual_seed(1)
        begun = untrained(TINY)
        before = {name: tensor.clone() for name, tensor in begun.state_dict().items()}
        trained = pretrain(
            tiny_config(epochs=1, average=0.0),
            tmp_path,
            NoopTracker(),
            crosses=crosses,
            begun_from=begun,
            freeze_backbone=True,
            progress=False,
        )
        moved = {n for n, tensor in trained.model.state_dict().items() if not torch.equal(tensor, before[n])}
        assert moved
        assert all(name.startswith("output_patch_embedding") for name in moved)


RESUMED = """
import sys
from pathlib import Path
from forex_core.tracking import NoopTracker
from forex_core.training.config import TrainingConfig
from forex_core.training.run import pretrain
from safetensors.torch import save_file

config = TrainingConfig.model_validate_json(sys.argv[1])
done = pretrain(config, Path(sys.argv[2]), NoopTracker(), progress=False)
save_file({n: t.contiguous() for n, t in done.model.state_dict().items()}, Path(sys.argv[2]) / "done.safetensors")
"""


class TestRuns:
    @pytest.mark.slow
    def test_it_learns_and_keeps_the_best_three(self, crosses: Crosses, tmp_path: Path) -> None:
        config = tiny_config(epochs=6, steps_per_epoch=10, learning_rate=3e-3)
        trained = pretrain(config, tmp_path, NoopTracker(), crosses=crosses, progress=False)
        losses = [epoch.val_loss for epoch in trained.curve]
        assert [epoch.step for epoch in trained.curve] == [10, 20, 30, 40, 50, 60]
        assert losses[-1] < 0.9 * losses[0]
        assert trained.best.val_loss == min(losses)
        assert np.isfinite(trained.test_loss)
        kept = {file.name for file in (tmp_path / "checkpoints").iterdir()}
        best = sorted(range(6), key=losses.__getitem__)[:3]
        assert kept == {*(f"{epoch:03d}.ckpt" for epoch in best), "004-last.ckpt", "005-last.ckpt"}
        assert json.loads((tmp_path / "curve.json").read_text())[2]["val_loss"] == losses[2]

    def test_it_stops_when_validation_gets_no_better(self, crosses: Crosses, tmp_path: Path) -> None:
        config = tiny_config(epochs=30, patience=2, learning_rate=1.0, warmup_steps=0, average=0.0)
        trained = pretrain(config, tmp_path, NoopTracker(), crosses=crosses, progress=False)
        assert len(trained.curve) < 30
        assert trained.best.epoch <= trained.curve[-1].epoch - 2

    def test_a_run_that_had_stopped_early_stays_so(self, crosses: Crosses, tmp_path: Path) -> None:
        """It was ended after its training, as while its weights were written."""
        told = tiny_config(epochs=30, patience=2, learning_rate=1.0, warmup_steps=0, average=0.0)
        first = pretrain(told, tmp_path, NoopTracker(), crosses=crosses, progress=False)
        assert len(first.curve) < 30
        again = pretrain(told, tmp_path, NoopTracker(), crosses=crosses, progress=False)
        assert again.curve == first.curve
        assert again.test_loss == first.test_loss
        assert all(
            torch.equal(tensor, again.model.state_dict()[name])
            for name, tensor in first.model.state_dict().items()
        )

    @pytest.mark.slow
    def test_it_goes_on_from_the_last_epoch_and_not_from_the_last_good_one(
        self, crosses: Crosses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # As the rate warms up, its losses get out of hand.
        told = tiny_config(epochs=8, patience=8, learning_rate=1.0, warmup_steps=40, average=0.0)
        whole = pretrain(told, tmp_path / "whole", NoopTracker(), crosses=crosses, progress=False)
        assert max(sorted(range(7), key=lambda epoch: whole.curve[epoch].val_loss)[:3]) < 6, (
            "the last is good"
        )
        ended, begun, starts = tmp_path / "ended", list[int](), Curve.on_train_epoch_start

        def on_train_epoch_start(curve: Curve, trainer: Any, pl_module: Any) -> None:
            begun.append(trainer.current_epoch)
            if begun == [*range(8)]:
                raise OSError("no space left on device")
            starts(curve, trainer, pl_module)

        monkeypatch.setattr(Curve, "on_train_epoch_start", on_train_epoch_start)
        with pytest.raises(OSError, match="no space left"):
            pretrain(told, ended, NoopTracker(), crosses=crosses, progress=False)
        assert pretrain(told, ended, NoopTracker(), crosses=crosses, progress=False).curve == whole.curve
        assert begun == [*range(8), 7]

    @pytest.mark.slow
    def test_the_next_best_is_taken_where_the_best_cannot_be_read(
        self, crosses: Crosses, tmp_path: Path
    ) -> None:
        """After the folder was moved too; with none of them left it says so."""

        def run(folder: Path) -> Any:
            return pretrain(tiny_config(), folder, NoopTracker(), crosses=crosses, progress=False)

        def weights(epoch: int) -> Any:
            kept = torch.load(moved / "checkpoints" / f"{epoch:03d}.ckpt", weights_only=True)["state_dict"]
            return {
                name.removeprefix("averaged."): tensor
                for name, tensor in kept.items()
                if name.startswith("averaged.")
            }

        def same_weights(one: Any, other: Any) -> bool:
            return all(torch.equal(one[name], other[name]) for name in one.keys() | other.keys())

        moved = tmp_path / "moved"
        first = run(tmp_path / "here")
        (tmp_path / "here").rename(moved)
        again = run(moved)
        assert same_weights(again.model.state_dict(), first.model.state_dict())
        last = torch.load(max((moved / "checkpoints").glob("*-last.ckpt")), weights_only=True)
        assert again.seconds > last["callbacks"]["Curve"]["seconds"] > 0, "of both"
        whole = tmp_path / "whole"
        run(whole)
        moved = whole
        ranked = sorted(first.curve, key=lambda epoch: epoch.val_loss)
        spoilt = whole / "checkpoints" / f"{ranked[0].epoch:03d}.ckpt"
        spoilt.write_bytes(spoilt.read_bytes()[:1000])
        second = run(whole)
        assert second.best == ranked[1]
        assert same_weights(second.model.state_dict(), weights(ranked[1].epoch))
        for epoch in ranked:
            (whole / "checkpoints" / f"{epoch.epoch:03d}.ckpt").unlink(missing_ok=True)
        with pytest.raises(ConfigError, match="none of the best checkpoints in"):
            run(whole)

    def test_a_checkpoint_that_was_being_written_is_passed_over(
        self, crosses: Crosses, tmp_path: Path
    ) -> None:
        told = tiny_config()
        first = pretrain(told, tmp_path, NoopTracker(), crosses=crosses, progress=False)
        last = max((tmp_path / "checkpoints").glob("*-last.ckpt"))
        last.write_bytes(last.read_bytes()[:1000])
        again = pretrain(told, tmp_path, NoopTracker(), crosses=crosses, progress=False)
        assert again.curve == first.curve
        for file in last.parent.iterdir():
            file.write_bytes(b"")
        with pytest.raises(ConfigError, match=r"no checkpoint in .* can be read"):
            pretrain(told, tmp_path, NoopTracker(), crosses=crosses, progress=False)

    @pytest.mark.slow
    def test_another_run_is_refused_in_a_folder(self, crosses: Crosses, tmp_path: Path) -> None:
        def run(**told: Any) -> None:
            config = tiny_config(epochs=1, **told.pop("config", {}))
            pretrain(config, tmp_path, NoopTracker(), crosses=crosses, progress=False, **told)

        run()
        run(config={"workers": 1})  # no weight hangs on these
        for other, name in (
            ({"config": {"seed": 5, "learning_rate": 0.5}}, "learning_rate, seed"),
            ({"freeze_backbone": True}, "freeze_backbone"),
            ({"begun_from": untrained(TINY)}, "begun_from"),
        ):
            with pytest.raises(ConfigError, match=rf"holds another run \({name}\)"):
                run(**other)
        (tmp_path / "run.json").write_text('{"configu')
        with pytest.raises(ConfigError, match="does not say what run the checkpoints beside it are of"):
            run()

    def test_days_that_do_not_do_are_refused_before_and_a_test_is_no_must(
        self, crosses: Crosses, tmp_path: Path
    ) -> None:
        last = crosses.days[-30].date()
        told = tiny_config(epochs=1, validate_until=last)
        assert pretrain(told, tmp_path, NoopTracker(), crosses=crosses, progress=False).test_loss is None
        close = tiny_config(train_until=crosses.days[-60].date(), validate_until=last)
        with pytest.raises(ConfigError, match="no 64 days to forecast"):
            pretrain(close, tmp_path / "other", NoopTracker(), crosses=crosses, progress=False)
        assert not (tmp_path / "other").exists()

    def test_mixed_precision_learns_about_the_same(
        self, crosses: Crosses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As on a GPU, of which only the speed is missing here."""
        told = tiny_config(epochs=1)
        single = pretrain(told, tmp_path / "single", NoopTracker(), crosses=crosses, progress=False)
        monkeypatch.setattr("forex_core.training.run.precision", lambda: "bf16-mixed")
        mixed = pretrain(told, tmp_path / "mixed", NoopTracker(), crosses=crosses, progress=False)
        assert {tensor.dtype for tensor in mixed.model.state_dict().values()} == {torch.float32}
        assert mixed.best.val_loss != single.best.val_loss
        assert mixed.best.val_loss == pytest.approx(single.best.val_loss, rel=0.02)

    @pytest.mark.slow
    @pytest.mark.timeout(280)
    def test_a_run_that_was_killed_goes_on_and_ends_as_if_it_had_not_been(self, tmp_path: Path) -> None:
        from safetensors.torch import load_file

        told = tiny_config(
            epochs=8, steps_per_epoch=6, workers=1, architecture=TINY.model_dump() | {"dropout": 0.1}
        ).model_dump_json()

        def start(folder: Path) -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                [sys.executable, "-W", "ignore", "-c", RESUMED, told, str(folder)], start_new_session=True
            )

        whole, ended = tmp_path / "whole", tmp_path / "ended"
        for folder, epochs in ((ended, 3), (whole, None)):
            running = start(folder)
            if epochs is not None:
                while running.poll() is None and len(_curve(folder)) < epochs:
                    time.sleep(0.02)
                os.killpg(running.pid, signal.SIGKILL)
                running.wait()
                assert len(_curve(folder)) < 8, "it was over before it was killed"
                running = start(folder)
            assert running.wait() == 0
        assert _curve(ended) == _curve(whole)
        one, other = load_file(ended / "done.safetensors"), load_file(whole / "done.safetensors")
        assert all(torch.equal(one[name], other[name]) for name in one.keys() | other.keys())


def _curve(folder: Path) -> list[Any]:
    try:
        found: list[Any] = json.loads((folder / "curve.json").read_text())
    except (OSError, ValueError):
        return []
    return found


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that state what they are, of an untrained model; to be read."""
    folder = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = untrained(TINY)
    with torch.no_grad():  # its answers are apart, as those of a trained one
        bias = model.output_patch_embedding.output_layer.bias
        bias.copy_(0.5 * torch.special.ndtri(torch.tensor(LEVELS)).float().repeat_interleave(TINY.patch))
    difference = save_weights(model, folder, statement())
    assert difference is not None
    assert 0 < difference < PARITY
    return folder


def statement(until: date = date(2014, 12, 31)) -> Statement:
    return Statement(until, TINY.context, TINY.steps, {"configuration": {}})


@pytest.fixture(scope="module")
def bundle() -> MarketBundle:
    return synthetic_bundle(700)


def _state(folder: Path, **told: Any) -> None:
    document = json.loads((folder / STATEMENT).read_text())
    (folder / STATEMENT).write_text(json.dumps(document | told))


def answers(folder: Path, bundle: MarketBundle, **told: Any) -> Any:
    found = ChronosForecaster(str(folder), **told).forecast(bundle, bundle.instants[[300, 650]], 64, LEVELS)
    assert not found.reasons
    return found.quantiles


class TestWeights:
    def test_the_graph_answers_as_torch_does_without_importing_it(
        self, weights: Path, bundle: MarketBundle
    ) -> None:
        np.testing.assert_allclose(
            answers(weights, bundle, runtime="onnx"), answers(weights, bundle, runtime="torch"), rtol=PARITY
        )
        code = (
            "import sys; from forex_core.testing import synthetic_bundle; from forex_core.types import LEVELS\n"
            "from forex_core.models.chronos import ChronosForecaster\n"
            "bundle = synthetic_bundle(300)\n"
            f"found = ChronosForecaster({str(weights)!r}).forecast(bundle, bundle.instants[-1:], 5, LEVELS)\n"
            "assert not found.reasons; assert 'torch' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", code], check=True, timeout=120)

    def test_they_are_small_and_state_what_they_are(self, weights: Path) -> None:
        found = StatedWeights.read(weights)
        assert found is not None
        assert (found.trained_until, found.context, found.steps) == (date(2014, 12, 31), 128, 64)
        assert found.levels == LEVELS
        parameters = sum(tensor.numel() for tensor in untrained(TINY).state_dict().values())
        assert (weights / WEIGHTS).stat().st_size < 2 * parameters + 10_000

    @pytest.mark.slow
    def test_the_runtime_makes_no_copies_of_weights(self, tmp_path: Path) -> None:
        """What onnxruntime holds once it has folded what is constant, in the graph that it can write."""
        import onnx
        import onnxruntime

        def held(graph: Path) -> int:
            options = onnxruntime.SessionOptions()
            options.optimized_model_filepath = str(tmp_path / "folded.onnx")
            options.log_severity_level = 3
            onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
            folded = onnx.load(tmp_path / "folded.onnx")
            return sum(int(np.prod(tensor.dims)) for tensor in folded.graph.initializer)

        parameters = sum(tensor.size for tensor in load_file(EMBEDDED_FOLDER / WEIGHTS).values())
        exported = tmp_path / "exported"
        shutil.copytree(EMBEDDED_FOLDER, exported)
        assert reexport(exported) <= PARITY
        for folder in (EMBEDDED_FOLDER, exported):
            assert held(folder / GRAPH) < 1.25 * parameters

    @pytest.mark.slow
    def test_those_of_the_package_are_small_half_precision_and_answer_as_their_graph(self) -> None:
        found = StatedWeights.read(EMBEDDED_FOLDER)
        assert found is not None
        found.checked(CONFIG, WEIGHTS, GRAPH)
        assert {tensor.dtype for tensor in load_file(EMBEDDED_FOLDER / WEIGHTS).values()} == {
            np.dtype(np.float16)
        }
        assert sum(path.stat().st_size for path in EMBEDDED_FOLDER.iterdir()) < 8e6
        model = load_pipeline(EMBEDDED_FOLDER, EMBEDDED, "cpu").inner_model
        assert parity(model, EMBEDDED_FOLDER / GRAPH, found.context, found.steps) <= PARITY

    def test_what_came_apart_is_not_written(
        self, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Weights without numbers, and a graph that does not answer as they do; what was there stays."""
        model = untrained(TINY)
        with torch.no_grad():
            next(model.parameters()).fill_(1e9)  # more than half precision holds
        folder = Path(shutil.copytree(weights, tmp_path / "before"))
        with pytest.raises(ForexError, match="no finite numbers, so the training came apart"):
            save_weights(model, folder, statement())
        StatedWeights.read(folder).checked(CONFIG, WEIGHTS, GRAPH)  # type: ignore[union-attr]

        monkeypatch.setattr("forex_core.training.weights.parity", lambda *_: 2 * PARITY)
        with pytest.raises(ForexError, match="apart from its weights, expected at most 1e-04"):
            reexport(folder)
        StatedWeights.read(folder).checked(CONFIG, WEIGHTS, GRAPH)  # type: ignore[union-attr]
        assert {path.name for path in folder.iterdir()} == {path.name for path in weights.iterdir()}

    def test_what_they_were_begun_from_tells_what_they_may_have_seen(
        self, weights: Path, tmp_path: Path
    ) -> None:
        assert weights_to_begin_from(str(weights), TINY)[1] == date(2014, 12, 31)
        with pytest.raises(
            ConfigError, match=r"of another architecture .*\(chronos_config, d_ff, d_kv, d_model"
        ):
            weights_to_begin_from(str(weights), Architecture())
        with pytest.raises(ConfigError, match=r"\(d_kv, num_heads\)"):  # all shapes are the same
            weights_to_begin_from(str(weights), TINY.model_copy(update={"heads": 4}))
        nobody = Statement(date(2019, 12, 31), TINY.context, TINY.steps, {}, may_have_seen=True)
        save_weights(untrained(TINY), tmp_path, nobody, graph=False)
        assert weights_to_begin_from(str(tmp_path), TINY)[1] is None
        assert ChronosForecaster(str(tmp_path)).may_have_seen
        assert not ChronosForecaster(str(weights)).may_have_seen
        other = Path(shutil.copytree(weights, tmp_path / "other"))
        (other / WEIGHTS).write_bytes((tmp_path / WEIGHTS).read_bytes())
        with pytest.raises(MemberError, match="has the checksum"):
            weights_to_begin_from(str(other), TINY)
        (tmp_path / STATEMENT).unlink()
        assert weights_to_begin_from(str(tmp_path), TINY)[1] is None

    def test_rates_of_interest_are_not_shown(self, weights: Path, bundle: MarketBundle) -> None:
        """Training has none."""
        rate = 5 + np.cumsum(np.diff(np.log(bundle.spot), append=0.0))[:, None]  # which would tell all
        with_one = replace(
            bundle,
            drivers=np.concatenate([bundle.drivers, rate], axis=1),
            driver_names=(*bundle.driver_names, "fed_rate"),
            driver_units=(*bundle.driver_units, PERCENT_PER_YEAR),
        )
        np.testing.assert_array_equal(answers(weights, with_one), answers(weights, bundle))

    def test_what_drivers_did_counts_unless_they_are_not_shown(
        self, weights: Path, bundle: MarketBundle
    ) -> None:
        moved = replace(bundle, drivers=bundle.drivers * np.linspace(1, 2, len(bundle))[:, None] ** 3)
        member = ChronosForecaster(str(weights))
        assert member.computed_by != ChronosForecaster(str(weights), runtime="torch").computed_by
        assert member.columns == ("spot", "drivers")
        assert member.lookback_rows == TINY.context + 1
        assert (answers(weights, moved) != answers(weights, bundle)).any()
        alone = ChronosForecaster(str(weights), drivers=False)
        assert alone.columns == ("spot",)
        np.testing.assert_array_equal(
            answers(weights, moved, drivers=False), answers(weights, bundle, drivers=False)
        )
        assert alone.identity != member.identity

    def test_origins_that_the_weights_have_seen_get_no_answer(
        self, weights: Path, bundle: MarketBundle
    ) -> None:
        until = bundle.dates[400].date()
        folder = weights.parent / "later"
        if not folder.exists():
            save_weights(untrained(TINY), folder, statement(until), graph=False)
        found = ChronosForecaster(str(folder)).forecast(bundle, bundle.instants[[399, 400, 401]], 5, LEVELS)
        assert found.reasons == dict.fromkeys((0, 1), f"its weights have seen data up to {until}")
        assert np.isfinite(found.quantiles[2]).all()

    @pytest.mark.parametrize(
        ("spoil", "told", "reason"),
        [
            (lambda f: (f / GRAPH).unlink(), {"runtime": "onnx"}, f"cannot read {GRAPH}"),
            (lambda f: (f / GRAPH).write_bytes((f / GRAPH).read_bytes()[:-9]), {}, "has the checksum"),
            (
                lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:999]),
                {"runtime": "torch"},
                "has the checksum",
            ),
            (lambda f: (f / WEIGHTS).unlink(), {"runtime": "torch"}, f"cannot read {WEIGHTS}"),
            (lambda f: (f / "config.json").write_text("{}"), {}, "is not as 'forex train' writes it"),
            (lambda f: _state(f, context=float("inf")), {}, "is not as 'forex train' writes it"),
            (lambda f: _state(f, shown=1), {}, "learned on way 1 of showing a rate"),
            (lambda f: (f / STATEMENT).write_text("{"), {}, f"cannot read {STATEMENT}"),
            (lambda f: (f / STATEMENT).write_text('{"sha256": {}}'), {}, "is not as 'forex train' writes it"),
        ],
    )
    def test_damage_is_told_and_leaves_the_member_out(
        self, weights: Path, bundle: MarketBundle, tmp_path: Path, spoil: Any, told: Any, reason: str
    ) -> None:
        folder = Path(shutil.copytree(weights, tmp_path / "spoilt"))
        spoil(folder)
        with pytest.raises(MemberError, match=reason):
            answers(folder, bundle, **told)

    def test_a_graph_that_cannot_be_used_leaves_the_member_out(self, weights: Path, tmp_path: Path) -> None:
        from forex_core.models.chronos_weights import GraphNetwork

        (tmp_path / GRAPH).write_bytes(b"no graph")
        with pytest.raises(MemberError, match="cannot load the graph"):
            GraphNetwork(tmp_path / GRAPH)
        with pytest.raises(MemberError, match="gives no answer: InvalidArgument"):
            GraphNetwork(weights / GRAPH).quantiles(np.zeros((5, 64), dtype=np.float32))

    @pytest.mark.slow
    def test_a_lost_graph_is_written_anew(self, weights: Path, bundle: MarketBundle, tmp_path: Path) -> None:
        folder = Path(shutil.copytree(weights, tmp_path / "lost"))
        (folder / GRAPH).unlink()
        assert reexport(folder) < PARITY
        np.testing.assert_allclose(
            answers(folder, bundle, runtime="onnx"), answers(weights, bundle), rtol=1e-6
        )
        with pytest.raises(ConfigError, match=f"holds no {STATEMENT}"):
            reexport(tmp_path)


class TestFineTuning:
    def test_by_default_the_gate_is_left_what_it_judges_by(self) -> None:
        """On the day that is told from then on, and not a day before."""
        from forex_core.training.finetune import judged_from, latest_cut_off

        bundle, config = synthetic_bundle(1400), EngineConfig()
        until = latest_cut_off(bundle, config)
        row = int(bundle.dates.searchsorted(pd.Timestamp(until)))
        assert judged_from(bundle.pair, until, config) <= bundle.origin
        assert judged_from(bundle.pair, bundle.dates[row + 1].date(), config) > bundle.origin
        numbers = business_day_numbers(bundle.pair, bundle.dates)
        later = numbers[row + 1 : len(bundle) - PATH_STEPS]
        grid = int(((later >= 0) & (later % config.grid_every == 0)).sum())
        assert 0 <= grid - config.warmup_origins - MIN_ORIGINS <= 5
        with pytest.raises(InputError, match="too few to learn from some and be judged on the others"):
            latest_cut_off(synthetic_bundle(800), config)

    def test_what_comes_after_the_last_day_reaches_no_window(self, bundle: MarketBundle) -> None:
        from forex_core.training.finetune import _rows_until, windows

        until = bundle.dates[500].date()
        later = bundle.spot.copy()
        later[501:] *= 3
        other = replace(
            bundle, spot=later, drivers=np.where(np.arange(700)[:, None] > 500, 7.0, bundle.drivers)
        )
        one, two = (windows(_rows_until(b, until), TINY) for b in (bundle, other))
        assert len(one) == len(two) == 501 - 64 - 60
        for a, b in zip(one, two, strict=True):
            np.testing.assert_array_equal(a["target"], b["target"])
            for name in a["past_covariates"]:
                np.testing.assert_array_equal(a["past_covariates"][name], b["past_covariates"][name])

    @pytest.mark.slow
    @pytest.mark.parametrize("method", ["full", "lora"])
    def test_the_librarys_fit_changes_them_and_they_state_what_they_have_seen(
        self, weights: Path, bundle: MarketBundle, method: str, tmp_path: Path
    ) -> None:
        from forex_core.training.finetune import finetune

        until = bundle.dates[520].date()
        told = FineTuningConfig(pretrained=str(weights), method=method, steps=3, batch_size=10, until=until)  # type: ignore[call-arg, arg-type]
        done = finetune(told, bundle, NoopTracker())
        assert (done.trained_until, done.may_have_seen) == (until, False)
        save_weights(done.model, tmp_path / "tuned", statement(until))
        assert StatedWeights.read(tmp_path / "tuned").trained_until == until  # type: ignore[union-attr]
        last = ChronosForecaster(str(tmp_path / "tuned")).forecast(bundle, bundle.instants[[650]], 64, LEVELS)
        before = ChronosForecaster(str(weights)).forecast(bundle, bundle.instants[[650]], 64, LEVELS)
        assert np.isfinite(last.quantiles).all()
        assert (last.quantiles != before.quantiles).any()

    @pytest.mark.slow
    def test_weights_that_state_nothing_may_have_seen_all(
        self, tiny_chronos: Any, bundle: MarketBundle, tmp_path: Path
    ) -> None:
        """As those of the hub; they learn what the member shows, and answer it."""
        from forex_core.training.finetune import finetune

        until = bundle.dates[560].date()
        told = {"method": "full", "steps": 2, "batch_size": 10, "until": until}
        done = finetune(
            FineTuningConfig(pretrained=str(tiny_chronos("2")), **told),  # type: ignore[arg-type]
            bundle,
            NoopTracker(),
        )
        assert (done.trained_until, done.may_have_seen) == (until, True)
        shape = done.architecture
        assert (shape.context, shape.patch) == (128, 8)
        said = Statement(until, shape.context, shape.steps, {}, done.may_have_seen)
        save_weights(done.model, tmp_path / "tuned", said, graph=False)
        member = ChronosForecaster(str(tmp_path / "tuned"))
        assert member.may_have_seen
        found = member.forecast(bundle, bundle.instants[[650]], 64, LEVELS)
        assert np.isfinite(found.quantiles).all()
        with pytest.raises(ConfigError, match="ChronosBoltPipeline, expected a Chronos-2 model"):
            finetune(
                FineTuningConfig(pretrained=str(tiny_chronos("bolt")), **told),  # type: ignore[arg-type]
                bundle,
                NoopTracker(),
            )

    @pytest.mark.slow
    def test_too_few_rows_and_a_cut_off_before_the_weights_are_refused(
        self, weights: Path, bundle: MarketBundle
    ) -> None:
        from forex_core.training.finetune import finetune

        def tune(until: date) -> Any:
            return finetune(FineTuningConfig(pretrained=str(weights), until=until), bundle, NoopTracker())  # type: ignore[call-arg]

        with pytest.raises(ConfigError, match="have seen data up to 2014-12-31, later than 2013"):
            tune(date(2013, 1, 4))
        with pytest.raises(InputError, match="expected at least 250"):
            tune(bundle.dates[100].date())
