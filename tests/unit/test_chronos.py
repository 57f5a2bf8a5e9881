"""The Chronos member on tiny models that are built, saved and loaded for real, without a network."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from forex_core.calendars import origin_instants
from forex_core.errors import MemberError
from forex_core.models.chronos import MIN_ROWS, ChronosForecaster
from forex_core.types import LEVELS, PATH_STEPS, MarketBundle, Pair

CONTEXT = 128
ORIGINS = (65, 200, 455, 698)  # rows; the first has less history than the context


def random_walk_bundle(rows: int = 700, seed: int = 5) -> MarketBundle:
    """Weekdays of a random walk near 900, without drivers."""
    pair = Pair("USD", "CLP")
    dates = pd.bdate_range("2020-01-01", periods=rows)
    returns = np.random.default_rng(seed).normal(0.0, 0.006, rows)
    spot = 900.0 * np.exp(np.cumsum(returns))
    instants = origin_instants(pair, dates)
    return MarketBundle(
        pair=pair,
        dates=dates,
        instants=instants,
        spot=spot,
        truth=spot.copy(),
        truth_known=np.arange(rows, dtype=np.int64),
        drivers=np.empty((rows, 0)),
        driver_names=(),
        driver_units=(),
        as_of=instants[-1],
    )


@pytest.fixture(scope="module")
def folders(tiny_chronos: Callable[..., Path]) -> dict[str, Path]:
    """Saved models; the 'short' ones predict fewer steps at once than a path has."""
    return {
        "chronos_2": tiny_chronos("2"),
        "chronos_2_short": tiny_chronos("2", steps=24),
        "bolt": tiny_chronos("bolt"),
        "bolt_short": tiny_chronos("bolt", steps=24),
    }


@pytest.fixture(scope="module")
def members(folders: dict[str, Path]) -> dict[str, ChronosForecaster]:
    return {kind: ChronosForecaster(str(folder), context=CONTEXT) for kind, folder in folders.items()}


@pytest.fixture(params=["chronos_2", "chronos_2_short", "bolt", "bolt_short"])
def member(request: pytest.FixtureRequest, members: dict[str, ChronosForecaster]) -> ChronosForecaster:
    return members[request.param]


@pytest.fixture(scope="module")
def bundle() -> MarketBundle:
    return random_walk_bundle()


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Refuse connections and fail the test that tried one, even where the attempt's error was translated."""
    attempts: list[Any] = []

    def refuse(*args: Any, **kwargs: Any) -> Any:
        attempts.append(args)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield
    assert attempts == []


def answer(
    member: ChronosForecaster, bundle: MarketBundle, rows: tuple[int, ...] = ORIGINS, steps: int = PATH_STEPS
) -> np.ndarray[Any, np.dtype[np.float64]]:
    answers = member.forecast(bundle, bundle.instants[list(rows)], steps, LEVELS)
    assert answers.reasons == {}
    return answers.quantiles


def test_answers_have_the_asked_shape_and_do_not_cross(
    member: ChronosForecaster, bundle: MarketBundle
) -> None:
    quantiles = answer(member, bundle)
    assert quantiles.shape == (len(ORIGINS), PATH_STEPS, len(LEVELS))
    assert np.isfinite(quantiles).all()
    assert (quantiles > 0).all()
    assert (np.diff(quantiles, axis=2) >= 0).all()
    assert (quantiles[..., -1] > quantiles[..., 0]).all()


def test_the_same_question_gets_the_same_bits(
    member: ChronosForecaster, folders: dict[str, Path], bundle: MarketBundle
) -> None:
    first = answer(member, bundle)
    np.testing.assert_array_equal(answer(member, bundle), first)
    loaded_again = ChronosForecaster(member.model, context=CONTEXT)
    np.testing.assert_array_equal(answer(loaded_again, bundle), first)


def test_an_origin_alone_gets_the_bits_it_gets_among_others(
    member: ChronosForecaster, bundle: MarketBundle
) -> None:
    among = answer(member, bundle)
    for position, row in enumerate(ORIGINS):
        np.testing.assert_array_equal(answer(member, bundle, (row,))[0], among[position])
    np.testing.assert_array_equal(answer(member, bundle, ORIGINS[::-1])[::-1], among)


def test_bits_do_not_depend_on_the_number_of_threads(member: ChronosForecaster, bundle: MarketBundle) -> None:
    import torch

    before = torch.get_num_threads()
    got = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            got.append(answer(member, bundle))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(got[0], got[1])


def test_a_horizon_is_a_slice_of_the_path(member: ChronosForecaster, bundle: MarketBundle) -> None:
    np.testing.assert_array_equal(answer(member, bundle, steps=5), answer(member, bundle)[:, :5])


@pytest.mark.parametrize("factor", [100.0, 0.01])
def test_quantiles_scale_with_prices(member: ChronosForecaster, bundle: MarketBundle, factor: float) -> None:
    scaled = answer(member, replace(bundle, spot=factor * bundle.spot))
    np.testing.assert_allclose(scaled, factor * answer(member, bundle), rtol=1e-3)


def test_rows_after_an_origin_do_not_reach_it(member: ChronosForecaster, bundle: MarketBundle) -> None:
    before = answer(member, bundle)
    for position, row in enumerate(ORIGINS):
        later = bundle.spot.copy()
        later[row + 1 :] *= 10
        np.testing.assert_array_equal(
            answer(member, replace(bundle, spot=later), (row,))[0], before[position]
        )
        known = bundle.until(bundle.instants[row])
        np.testing.assert_array_equal(answer(member, known, (row,))[0], before[position])


def test_the_declared_lookback_is_all_that_is_read(member: ChronosForecaster, bundle: MarketBundle) -> None:
    row = 400
    assert member.lookback_rows == CONTEXT
    first_read = row + 1 - CONTEXT
    outside, inside = bundle.spot.copy(), bundle.spot.copy()
    outside[:first_read] *= 10
    inside[first_read] *= 1.05
    before = answer(member, bundle, (row,))
    np.testing.assert_array_equal(answer(member, replace(bundle, spot=outside), (row,)), before)
    assert (answer(member, replace(bundle, spot=inside), (row,)) != before).any()


def test_padding_on_the_left_stands_for_no_history(folders: dict[str, Path], bundle: MarketBundle) -> None:
    row = 79
    for kind in ("chronos_2", "bolt"):
        padded = ChronosForecaster(str(folders[kind]), context=CONTEXT)
        exact = ChronosForecaster(str(folders[kind]), context=row + 1)
        np.testing.assert_allclose(
            answer(padded, bundle, (row,)), answer(exact, bundle, (row,)), rtol=1e-4, err_msg=kind
        )


def test_too_little_history_is_no_answer_with_its_reason(
    member: ChronosForecaster, bundle: MarketBundle
) -> None:
    rows = [MIN_ROWS - 2, MIN_ROWS - 1]
    answers = member.forecast(bundle, bundle.instants[rows], 5, LEVELS)
    assert np.isnan(answers.quantiles[0]).all()
    assert np.isfinite(answers.quantiles[1]).all()
    assert answers.reasons == {0: f"needs {MIN_ROWS} rows of history, found {MIN_ROWS - 1}"}


def test_a_constant_series_is_answered(member: ChronosForecaster, bundle: MarketBundle) -> None:
    quantiles = answer(member, replace(bundle, spot=np.full(len(bundle), 900.0)))
    np.testing.assert_allclose(quantiles, 900.0, rtol=0.01)


@pytest.mark.parametrize("kind", ["bolt", "bolt_short"])
def test_bolt_tails_are_those_of_a_normal_through_its_outermost_quantile(
    members: dict[str, ChronosForecaster], bundle: MarketBundle, kind: str
) -> None:
    logs = np.log(answer(members[kind], bundle))
    at = {level: logs[..., LEVELS.index(level)] for level in (0.01, 0.025, 0.1, 0.5, 0.9, 0.975, 0.99)}
    assert ((at[0.975] - at[0.025]) > (at[0.9] - at[0.1])).all()
    for level, outermost in ((0.01, 0.1), (0.025, 0.1), (0.975, 0.9), (0.99, 0.9)):
        ratio = norm.ppf(level) / norm.ppf(outermost)
        np.testing.assert_allclose(at[level] - at[0.5], ratio * (at[outermost] - at[0.5]), atol=1e-12)


def test_levels_within_the_trained_ones_are_what_the_library_gives(
    folders: dict[str, Path], bundle: MarketBundle
) -> None:
    import torch
    from chronos import BaseChronosPipeline
    from chronos.utils import interpolate_quantiles

    row = 400
    levels = [0.1, 0.12, 0.25, 0.5, 0.68, 0.9]
    past = np.log(bundle.spot[row + 1 - CONTEXT : row + 1])
    scale = np.std(np.diff(past))
    window = torch.tensor((past - past[-1]) / scale, dtype=torch.float32)
    for kind in ("chronos_2", "bolt"):
        pipeline = BaseChronosPipeline.from_pretrained(str(folders[kind]), local_files_only=True)
        raw = pipeline.predict([window], prediction_length=PATH_STEPS)[0].reshape(-1, PATH_STEPS).T
        theirs = interpolate_quantiles(levels, pipeline.quantiles, raw.sort(dim=1).values).numpy()
        member = ChronosForecaster(str(folders[kind]), context=CONTEXT)
        ours = member.forecast(bundle, bundle.instants[[row]], PATH_STEPS, levels)[0]
        np.testing.assert_allclose(ours, bundle.spot[row] * np.exp(scale * theirs), rtol=1e-5, err_msg=kind)


def test_no_weights_is_a_member_error(bundle: MarketBundle) -> None:
    with pytest.raises(MemberError, match="no weights"):
        answer(ChronosForecaster(None), bundle)


@pytest.mark.parametrize("model", ["/nowhere/chronos", "./nowhere", "nowhere", "s3://bucket/chronos"])
def test_a_missing_folder_is_a_member_error(bundle: MarketBundle, model: str) -> None:
    with pytest.raises(MemberError, match=f"no folder '{model}'"):
        answer(ChronosForecaster(model), bundle)


@pytest.mark.parametrize("revision", [None, "", "main"])
def test_a_hub_name_needs_a_pinned_revision(bundle: MarketBundle, revision: str | None) -> None:
    with pytest.raises(MemberError, match="pinned revision"):
        answer(ChronosForecaster("amazon/chronos-2", revision), bundle)


def test_a_hub_out_of_reach_is_a_member_error(
    bundle: MarketBundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MemberError, match="from the hub or its local cache"):
        answer(ChronosForecaster("amazon/chronos-2", "0" * 40), bundle)


def test_a_pinned_commit_in_the_cache_needs_no_network(
    folders: dict[str, Path], bundle: MarketBundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    commit = "0123456789" * 4
    shutil.copytree(folders["bolt"], tmp_path / "models--someone--tiny" / "snapshots" / commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    cached = ChronosForecaster("someone/tiny", commit, context=CONTEXT)
    local = ChronosForecaster(str(folders["bolt"]), context=CONTEXT)
    np.testing.assert_array_equal(answer(cached, bundle), answer(local, bundle))


@pytest.fixture
def copied(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the Chronos-2 model to spoil."""
    return Path(shutil.copytree(folders["chronos_2"], tmp_path / "copied"))


def refusal(folder: Path, bundle: MarketBundle, **settings: Any) -> str:
    with pytest.raises(MemberError) as caught:
        answer(ChronosForecaster(str(folder), **{"context": CONTEXT, **settings}), bundle)
    return str(caught.value)


@pytest.mark.parametrize("keep", [0, 4, 1000, -1])
def test_truncated_weights_are_refused(copied: Path, bundle: MarketBundle, keep: int) -> None:
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    assert "SafetensorError" in refusal(copied, bundle)


def test_absent_weights_are_refused(copied: Path, bundle: MarketBundle) -> None:
    (copied / "model.safetensors").unlink()
    assert "model.safetensors" in refusal(copied, bundle)


def test_a_weight_that_is_not_in_the_file_is_not_drawn_at_random(copied: Path, bundle: MarketBundle) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(copied / "model.safetensors")
    del weights["encoder.block.1.layer.0.self_attention.q.weight"]
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    assert "lacks 1 weights" in refusal(copied, bundle)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"architectures": ["T5ForConditionalGeneration"], "chronos_pipeline_class": None},
            "expected Chronos",
        ),
        ({"architectures": ["BertModel"]}, "BertModel"),
        ({"chronos_pipeline_class": "ChronosPipeline"}, "random samples"),
        ({"chronos_pipeline_class": "ChronosBoltPipeline"}, "expected Chronos-2 or Chronos-Bolt"),
        ({"d_model": 32}, "cannot load"),
        ({"chronos_config": {}}, "cannot load"),
    ],
)
def test_another_architecture_is_refused(
    copied: Path, bundle: MarketBundle, changes: dict[str, Any], reason: str
) -> None:
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | changes))
    assert reason in refusal(copied, bundle)


def test_a_configuration_that_cannot_be_read_is_refused(copied: Path, bundle: MarketBundle) -> None:
    (copied / "config.json").write_text("{")
    assert "config.json" in refusal(copied, bundle)
    (copied / "config.json").write_text("[]")
    assert "config.json" in refusal(copied, bundle)


def test_an_adapter_is_refused(copied: Path, bundle: MarketBundle) -> None:
    (copied / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "amazon/chronos-2"}))
    assert "adapter" in refusal(copied, bundle)


def test_settings_the_model_cannot_serve_are_refused(copied: Path, bundle: MarketBundle) -> None:
    for context in (MIN_ROWS - 1, CONTEXT + 1):
        assert f"from {MIN_ROWS} to {CONTEXT}" in refusal(copied, bundle, context=context)
    assert "on nonsense" in refusal(copied, bundle, device="nonsense")


def test_a_short_model_without_the_levels_to_unroll_is_refused(
    folders: dict[str, Path], tmp_path: Path, bundle: MarketBundle
) -> None:
    folder = Path(shutil.copytree(folders["chronos_2_short"], tmp_path / "copied"))
    config = json.loads((folder / "config.json").read_text())
    odd = [round(0.03 * (i + 1), 2) for i in range(21)]
    config["chronos_config"]["quantiles"] = odd
    (folder / "config.json").write_text(json.dumps(config))
    assert "cannot answer 64 steps" in refusal(folder, bundle)


def test_it_carries_what_the_engine_reads() -> None:
    member = ChronosForecaster("somewhere", context=256, trained_until=date(2024, 6, 30))
    assert (member.name, member.columns, member.lookback_rows) == ("chronos", ("spot",), 256)
    assert member.trained_until == date(2024, 6, 30)


def test_weights_whose_cut_off_nobody_states_may_have_seen_the_outcomes() -> None:
    assert ChronosForecaster("somewhere").may_have_seen
    assert not ChronosForecaster("somewhere", trained_until=date(2024, 6, 30)).may_have_seen
    assert not ChronosForecaster(None).may_have_seen


def test_identity_follows_the_weights(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"one")
    first = ChronosForecaster(str(folder)).identity
    assert ChronosForecaster(str(folder)).identity == first
    (folder / "model.safetensors").write_bytes(b"two")
    assert ChronosForecaster(str(folder)).identity != first
    assert ChronosForecaster(str(folder), context=256).identity != ChronosForecaster(str(folder)).identity
    assert ChronosForecaster("a/b", "1").identity != ChronosForecaster("a/b", "2").identity
