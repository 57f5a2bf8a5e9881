"""Whatever is given, MLflow's own validation takes what comes out, and no two things become one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from forex_core.tracking.values import (
    BATCH_ENTRIES,
    MAX_KEY,
    MAX_PARAM,
    MAX_TAG,
    NOT_FINITE_TAG,
    Batch,
    Point,
    Preparation,
    as_text,
    requests,
)

NAMES = st.text(st.characters(), max_size=20) | st.sampled_from(
    ["a/b", "a//b", "/a", "..", ".", "", "a" * 249 + "é", "b" * 300, "b" * 301, "%", "#", "_"]
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.dates()
    | st.binary()
    | st.sampled_from([np.float64, np.ndarray, dict, BaseModel, np.dtype("f8"), Decimal("sNaN")]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def check_taken(batch: Batch) -> None:
    """By the same checks that a store makes."""
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.utils import validation

    for request in requests(batch):
        entries = (
            [Metric(p.key, p.value, p.timestamp, p.step) for p in request.metrics],
            [Param(key, value) for key, value in request.params.items()],
            [RunTag(key, value) for key, value in request.tags.items()],
        )
        metrics, params, tags = validation._validate_batch_log_data(*entries)
        validation._validate_batch_log_limits(metrics, params, tags)
        validation._validate_param_keys_unique(params)
        assert [param.value for param in params] == list(request.params.values()), "nothing is cut by MLflow"
        assert [tag.value for tag in tags] == list(request.tags.values())
        for text in (*request.params.values(), *request.tags.values()):
            text.encode()
            assert "\x00" not in text


@given(st.dictionaries(NAMES, VALUES, max_size=6), st.dictionaries(NAMES, VALUES, max_size=6))
def test_any_tags_and_metrics_are_taken_and_stay_apart(tags: dict[str, Any], metrics: dict[str, Any]) -> None:
    preparation = Preparation()
    batch = preparation.batch(tags=tags, metrics=metrics)
    check_taken(batch)
    numbers = [v for v in metrics.values() if isinstance(v, (int, float)) and not isinstance(v, bool)]
    finite = [v for v in numbers if math.isfinite(v)]
    assert [point.value for point in batch.metrics] == finite
    assert len({point.key for point in batch.metrics}) == len(finite)
    assert len(batch.tags.keys() - {NOT_FINITE_TAG}) == len(tags.keys() - {NOT_FINITE_TAG})
    again = preparation.batch(tags=tags, metrics=metrics)
    assert again.tags.keys() == batch.tags.keys()
    differing = {key for key, text in batch.tags.items() if again.tags[key] != text}
    assert differing <= {NOT_FINITE_TAG}, "which counts"
    assert [p.key for p in again.metrics] == [p.key for p in batch.metrics], "the same name is the same key"


@given(st.dictionaries(NAMES, VALUES, max_size=6))
def test_any_params_are_taken_or_refused_as_given_twice(params: dict[str, Any]) -> None:
    try:
        batch = Preparation().batch(params)
    except ValueError:
        with pytest.raises(ValueError, match="given twice"):
            Preparation().batch(params)
    else:
        check_taken(batch)


@given(
    st.integers(0, 350),
    st.integers(0, 2500),
    st.integers(0, 350),
    st.sampled_from(["", "x" * MAX_PARAM, "日" * MAX_PARAM]),
)
def test_requests_are_within_the_limits_and_lose_nothing(
    params: int, metrics: int, tags: int, text: str
) -> None:
    batch = Batch(
        {f"p{n}": text for n in range(params)},
        tuple(Point(f"m{n}", float(n), 0) for n in range(metrics)),
        {f"t{n}": text for n in range(tags)},
    )
    sent = list(requests(batch))
    assert {k: v for r in sent for k, v in r.params.items()} == batch.params
    assert {k: v for r in sent for k, v in r.tags.items()} == batch.tags
    assert tuple(p for r in sent for p in r.metrics) == batch.metrics
    for request in sent:
        count = len(request.params) + len(request.tags) + len(request.metrics)
        assert 0 < count <= BATCH_ENTRIES
        assert len(request.params) <= 100
        assert len(request.tags) <= 100
        texts = [*request.params.items(), *request.tags.items()]
        assert sum(len(k.encode()) + len(v.encode()) for k, v in texts) <= 1_000_000


@pytest.mark.parametrize(("kind", "limit"), [("params", MAX_PARAM), ("tags", MAX_TAG)])
def test_texts_are_cut_at_the_limit_and_not_before(kind: str, limit: int) -> None:
    batch = Preparation().batch(**{kind: {"fits": "x" * limit, "long": "x" * (limit + 1)}})  # type: ignore[arg-type]
    kept = getattr(batch, kind)
    assert kept["fits"] == "x" * limit
    assert len(kept["long"]) == limit
    assert batch.texts == {f"cut/{kind}/long.txt": "x" * (limit + 1)}


LONG_NAMES = NAMES | st.sampled_from(
    ["a_b", "a:b", "k" * 149 + "x", "k" * 160 + "y", "k" * 160 + "z", "ñ" * 200]
)


@given(st.lists(LONG_NAMES, unique=True, min_size=2, max_size=6))
@example(["a/b", "a_b"])
@example(["k" * 160 + "y", "k" * 160 + "z"])
@example(["日" * 200, "ñ" * 200])
def test_every_text_that_is_cut_has_a_file_of_its_own(names: list[str]) -> None:
    whole = {name: f"{number}" * (MAX_PARAM + 1) for number, name in enumerate(names)}
    batch = Preparation().batch(whole)
    assert sorted(batch.texts.values()) == sorted(whole.values())
    for path, text in batch.texts.items():
        assert [kept for kept in batch.params.values() if kept.endswith(f" in {path}]")] == [
            kept for kept in batch.params.values() if kept[0] == text[0]
        ]
        assert len(path.rpartition("/")[2].encode()) <= 255


def test_keys_are_cut_at_the_limit_and_not_before() -> None:
    names = ["k" * MAX_KEY, "k" * (MAX_KEY + 1), "k" * (MAX_KEY + 2)]
    batch = Preparation().batch({name: n for n, name in enumerate(names)})
    assert next(iter(batch.params)) == names[0]
    assert [len(key) for key in batch.params] == [MAX_KEY] * 3


class Inner(BaseModel):
    secret: SecretStr = SecretStr("hidden")
    number: int = 3


@dataclass(frozen=True)
class Outer:
    inner: Inner
    name: str = "outer"


def test_a_class_is_a_text_like_another() -> None:
    kinds = {"numpy": np.float64, "array": np.ndarray, "pydantic": Inner, "record": Outer}
    batch = Preparation().batch(kinds | {"several": [np.float32, Inner]}, tags=kinds)
    assert batch.params["numpy"] == batch.tags["numpy"] == "<class 'numpy.float64'>"
    assert batch.params["pydantic"] == str(Inner)
    assert batch.params["several"] == f'["{np.float32}", "{Inner}"]'


def test_numbers_that_no_float_holds_are_said_and_the_others_logged() -> None:
    preparation = Preparation()
    large = 10**5000
    odd = {"up": large, "down": -large, "signal": Decimal("sNaN"), "several": [large]}
    batch = preparation.batch({"large": large, "inner": [large]}, metrics={**odd, "fine": 1.0})
    assert [(point.key, point.value) for point in batch.metrics] == [("fine", 1.0)]
    assert batch.params.keys() == {"large", "inner"}
    told = preparation.take_notes()
    for name, said in {"up": "inf", "down": "-inf", "signal": "nan", "several": "expected a number"}.items():
        assert any(f"metric {name} " in note and said in note for note in told)


@pytest.mark.parametrize(
    ("step", "kept"),
    [
        (None, 0),
        (7, 7),
        (np.int64(7), 7),
        (7.0, 7),
        (-3, -3),
        (2**63 - 1, 2**63 - 1),
        (-(2**63), -(2**63)),
        (2**63, None),
        (-(2**63) - 1, None),
        (2.5, None),
        (float("nan"), None),
        (float("inf"), None),
        ("7", None),
        ([1, 2], None),
        (np.array([1, 2]), None),
        (True, None),
    ],
)
def test_a_step_is_a_whole_number_that_databases_hold(step: Any, kept: int | None) -> None:
    preparation = Preparation()
    batch = preparation.batch({"param": 1}, metrics={"m": 1.0}, step=step)
    assert [point.step for point in batch.metrics] == ([] if kept is None else [kept])
    assert batch.params == {"param": "1"}
    assert ["metric m left out" in note for note in preparation.take_notes()] == [True] * (kept is None)


def test_the_cost_of_what_is_not_finite_does_not_grow_with_the_steps() -> None:
    preparation = Preparation()
    batches = [preparation.batch(metrics={"loss": float("nan")}, step=step) for step in range(5000)]
    assert all(not batch.texts for batch in batches)
    assert max(len(batch.tags[NOT_FINITE_TAG]) for batch in batches) < 100
    assert len(preparation.take_notes()) == 1


def test_records_and_models_are_nested_and_keep_their_secrets() -> None:
    batch = Preparation().batch({"outer": Outer(Inner())}, tags={"model": Inner()})
    assert batch.params == {
        "outer.inner.secret": "**********",
        "outer.inner.number": "3",
        "outer.name": "outer",
    }
    assert "hidden" not in str(batch)
    assert as_text({"s": SecretStr("hidden")}) == '{"s": "**********"}'
