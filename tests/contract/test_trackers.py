"""What every tracker does: the one that does nothing, and MLflow's on SQLite and on PostgreSQL."""

from __future__ import annotations

import datetime
import enum
import json
import os
import sqlite3
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from forex_core.errors import TrackingError
from forex_core.tracking import (
    MLflowTracker,
    NoopTracker,
    Record,
    Tracker,
    copies,
    copy_database,
    open_store,
    writing,
)
from forex_core.tracking import mlflow_tracker as room
from forex_core.tracking.process import PROCESS_TAG
from forex_core.tracking.store import release
from forex_core.tracking.values import Batch, Point
from forex_core.tracking.writing import send

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

STORES = ("sqlite", "postgresql")
Build = Callable[..., Tracker]


@pytest.fixture(params=STORES)
def uri(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue("sqlite_store" if request.param == "sqlite" else "postgres_store"))


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    return tmp_path / "data" / "mlflow" / "mlruns"


@pytest.fixture
def mlflow_tracker(uri: str, artifacts: Path) -> Callable[..., MLflowTracker]:
    def build(**options: Any) -> MLflowTracker:
        given = {"artifact_location": artifacts.as_uri(), "below": artifacts.parent} | options
        return MLflowTracker(uri, "trackers", **given)

    return build


@pytest.fixture(params=("noop", *STORES))
def tracker(request: pytest.FixtureRequest, artifacts: Path) -> Tracker:
    if request.param == "noop":
        return NoopTracker()
    store = "sqlite_store" if request.param == "sqlite" else "postgres_store"
    return MLflowTracker(request.getfixturevalue(store), "trackers", artifact_location=artifacts.as_uri())


class Store:
    """What a store holds, read with a client of its own."""

    def __init__(self, uri: str) -> None:
        self.client: MlflowClient = open_store(uri)

    def run(self, run_id: str | None) -> Run:
        assert run_id is not None
        return self.client.get_run(run_id)

    def runs(self) -> list[Run]:
        found = self.client.get_experiment_by_name("trackers")
        return list(self.client.search_runs([found.experiment_id])) if found else []

    def files(self, run_id: str | None, folder: str | None = None) -> set[str]:
        assert run_id is not None
        found: set[str] = set()
        for item in self.client.list_artifacts(run_id, folder):
            found |= self.files(run_id, item.path) if item.is_dir else {item.path}
        return found

    def text(self, run_id: str | None, path: str) -> str:
        location = self.run(run_id).info.artifact_uri
        return (Path(location.removeprefix("file://")) / path).read_text()


@pytest.fixture
def store(uri: str) -> Store:
    return Store(uri)


class TestEveryTracker:
    def test_has_an_id_in_a_run_and_after_it(self, tracker: Tracker) -> None:
        assert tracker.run_id is None
        assert tracker.get_run_id() is None
        started = tracker.start_run("first")
        assert tracker.run_id == tracker.get_run_id() == started
        tracker.end_run()
        assert tracker.run_id == tracker.get_run_id() == started

    def test_starts_on_entering_and_keeps_the_id_after_leaving(self, tracker: Tracker) -> None:
        with tracker as entered:
            assert entered is tracker
            run_id = tracker.run_id
            assert run_id
            assert tracker.start_run() == run_id, "a second start adopts the run"
        assert tracker.run_id == run_id

    @pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit, TrackingError])
    def test_lets_exceptions_pass(self, tracker: Tracker, kind: type[BaseException]) -> None:
        error = kind("reason")
        with pytest.raises(kind) as caught, tracker:
            raise error
        assert caught.value is error

    def test_ends_no_run_without_complaint(self, tracker: Tracker, told: list[str]) -> None:
        tracker.end_run()
        tracker.start_run()
        tracker.end_run("KILLED")
        tracker.end_run()
        assert told == []

    def test_takes_every_call_with_odd_values_and_without_a_run(
        self, tracker: Tracker, tmp_path: Path
    ) -> None:
        """None of this is worth a crash of the work that is tracked."""

        def everything() -> None:
            tracker.log(Record({"p": "1"}, {"m": 1.0}, {"s": {1: 1.0, 2: 2.0}}, {"t": "x"}))
            tracker.log_params({"deep": {"er": [1, None]}, "é ñ%": object(), 3: 4})
            tracker.log_metrics({"nan": float("nan"), "text": "x", "flag": True}, step=3)
            tracker.log_metrics({})
            tracker.set_tags({"": None, "long" * 100: "x" * 10_000})
            tracker.log_figure(object(), "figure.png")
            tracker.log_figure(None, "../figure.png", "plots")
            tracker.log_artifact(tmp_path / "missing.txt")
            tracker.log_artifacts_dir(tmp_path / "missing", "there")
            assert tracker.log_model(tmp_path / "missing", "model") is None
            assert tracker.find_run({"t": "no such value"}) is None

        everything()
        assert tracker.run_id is None
        with tracker:
            everything()
        assert tracker.degraded is None

    def test_reads_no_text_that_is_not_there(self, tracker: Tracker) -> None:
        with tracker:
            assert tracker.run_id is not None
            assert tracker.read_text(tracker.run_id, "no/such.txt") is None


class TestLifeCycle:
    def test_ends_as_finished_with_its_times(
        self, mlflow_tracker: Callable[..., MLflowTracker], store: Store
    ) -> None:
        with mlflow_tracker(run_name="given") as tracker:
            assert store.run(tracker.run_id).info.status == "RUNNING"
        info = store.run(tracker.run_id).info
        assert (info.status, info.run_name) == ("FINISHED", "given")
        assert info.start_time <= info.end_time

    @pytest.mark.parametrize(
        ("error", "status"), [(ValueError("two\n words"), "FAILED"), (KeyboardInterrupt(), "KILLED")]
    )
    def test_ends_as_failed_or_killed_with_the_reason(
        self,
        mlflow_tracker: Callable[..., MLflowTracker],
        store: Store,
        error: BaseException,
        status: str,
    ) -> None:
        tracker = mlflow_tracker()
        with pytest.raises(type(error)), tracker:
            raise error
        run = store.run(tracker.run_id)
        assert run.info.status == status
        assert run.data.tags["error_type"] == type(error).__name__
        assert run.data.tags["error_message"] == " ".join(str(error).split())
        assert run.data.tags["status"] == "failed"

    @pytest.mark.parametrize(
        ("code", "status"), [(0, "FINISHED"), (None, "FINISHED"), (1, "KILLED"), ("reason", "KILLED")]
    )
    def test_ends_by_an_exit_as_its_code_says(
        self, mlflow_tracker: Callable[..., MLflowTracker], store: Store, code: Any, status: str
    ) -> None:
        tracker = mlflow_tracker()
        with pytest.raises(SystemExit), tracker:
            sys.exit(code)
        run = store.run(tracker.run_id)
        assert run.info.status == status
        assert ("error_type" in run.data.tags) == (status == "KILLED")

    def test_starts_later_when_told_so_and_holds_the_reason_of_a_failure_before(
        self, mlflow_tracker: Callable[..., MLflowTracker], store: Store
    ) -> None:
        with mlflow_tracker(start_on_enter=False):
            pass
        assert store.runs() == [], "nothing to log, no run"
        with mlflow_tracker(start_on_enter=False) as tracker:
            tracker.start_run("later")
        assert store.run(tracker.run_id).info.status == "FINISHED"
        failing = mlflow_tracker(start_on_enter=False, tags={"pair": "USDCLP"})
        with pytest.raises(ValueError, match="early"), failing:
            raise ValueError("early")
        run = store.run(failing.run_id)
        assert (run.info.status, run.data.tags["pair"]) == ("FAILED", "USDCLP")
        assert len(store.runs()) == 2

    def test_starts_at_once_when_asked_to_and_entering_adopts_the_run(
        self, mlflow_tracker: Callable[..., MLflowTracker], store: Store
    ) -> None:
        tracker = mlflow_tracker(auto_start_run=True, run_name="auto")
        started = tracker.run_id
        assert started
        with tracker:
            assert tracker.run_id == started
        assert [run.info.run_name for run in store.runs()] == ["auto"]

    def test_adopting_takes_over_name_tags_and_description(
        self, mlflow_tracker: Callable[..., MLflowTracker], store: Store
    ) -> None:
        with mlflow_tracker() as tracker:
            tracker.start_run("better", "what it is", {"more": 1})
        run = store.run(tracker.run_id)
        assert run.info.run_name == "better"
        assert run.data.tags["mlflow.note.content"] == "what it is"
        assert run.data.tags["more"] == "1"
        assert len(store.runs()) == 1

    @pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
    def test_ends_as_told(
        self, mlflow_tracker: Callable[..., MLflowTracker], store: Store, status: Any
    ) -> None:
        tracker = mlflow_tracker()
        tracker.start_run()
        tracker.end_run(status)
        assert store.run(tracker.run_id).info.status == status

    def test_refuses_another_end_and_goes_on(
        self, mlflow_tracker: Callable[..., MLflowTracker], store: Store
    ) -> None:
        with mlflow_tracker() as tracker:
            with pytest.raises(TrackingError, match=r"'DONE'.*FINISHED, FAILED, KILLED"):
                tracker.end_run("DONE")  # type: ignore[arg-type]
            assert store.run(tracker.run_id).info.status == "RUNNING"

    def test_a_run_ended_by_hand_is_not_started_again_by_a_later_error(
        self, mlflow_tracker: Callable[..., MLflowTracker], store: Store
    ) -> None:
        def work() -> None:
            with mlflow_tracker() as tracker:
                tracker.end_run()
                raise ValueError("late")

        with pytest.raises(ValueError, match="late"):
            work()
        assert [run.info.status for run in store.runs()] == ["FINISHED"]

    def test_one_tracker_holds_one_run_after_the_other(
        self, mlflow_tracker: Callable[..., MLflowTracker], store: Store
    ) -> None:
        tracker = mlflow_tracker()
        ids = []
        for value in (1, 2):
            with tracker:
                tracker.log_params({"value": value})  # another run, so another value
                ids.append(tracker.run_id)
        assert [store.run(run_id).data.params["value"] for run_id in ids] == ["1", "2"]

    def test_leaves_mlflows_own_active_run_alone(
        self, mlflow_tracker: Callable[..., MLflowTracker], uri: str
    ) -> None:
        import mlflow

        with mlflow_tracker():
            assert mlflow.active_run() is None

    def test_without_a_run_every_log_is_told_and_none_starts_one(
        self,
        mlflow_tracker: Callable[..., MLflowTracker],
        store: Store,
        told: list[str],
        tmp_path: Path,
    ) -> None:
        tracker = mlflow_tracker()
        (tmp_path / "file").touch()
        calls: list[Callable[[], object]] = [
            lambda: tracker.log(Record(params={"a": "1"})),
            lambda: tracker.log_params({"a": 1}),
            lambda: tracker.log_metrics({"a": 1}),
            lambda: tracker.set_tags({"a": 1}),
            lambda: tracker.log_figure(object(), "a.png"),
            lambda: tracker.log_artifact(tmp_path / "file"),
            lambda: tracker.log_artifacts_dir(tmp_path),
            lambda: tracker.log_model(tmp_path, "model"),
        ]
        for count, call in enumerate(calls, start=1):
            call()
            assert len(told) == count
            assert "no run is active" in told[-1]
        assert store.runs() == []


class Colour(enum.Enum):
    RED = "red"


class TestParams:
    def test_are_text_people_can_read(
        self, mlflow_tracker: Callable[..., MLflowTracker], store: Store
    ) -> None:
        with mlflow_tracker() as tracker:
            tracker.log_params(
                {
                    "engine": {"members": ["a", "b"], "deep": {"er": 1}, "none": {}},
                    "tuple": (1, (2, 3)),
                    "flag": True,
                    "nothing": None,
                    "day": datetime.date(2026, 1, 2),
                    "instant": datetime.datetime(2026, 1, 2, 3, tzinfo=datetime.UTC),
                    "path": Path("/srv/x"),
                    "numpy": np.float64(0.25),
                    "integer": np.int64(3),
                    "bool": np.True_,
                    "array": np.arange(3),
                    "in_list": [np.float32(0.5), datetime.date(2026, 1, 2), {"a": Decimal("1.5")}],
                    "enum": Colour.RED,
                    "nan": [float("nan")],
                }
            )
        assert store.run(tracker.run_id).data.params == {
            "engine.members": '["a", "b"]',
            "engine.deep.er": "1",
            "engine.none": "{}",
            "tuple": "[1, [2, 3]]",
            "flag": "True",
            "nothing": "None",
            "day": "2026-01-02",
            "instant": "2026-01-02T03:00:00+00:00",
            "path": "/srv/x",
            "numpy": "0.25",
            "integer": "3",
            "bool": "True",
            "array": "[0, 1, 2]",
            "in_list": '[0.5, "2026-01-02", {"a": "1.5"}]',
            "enum": "red",
            "nan": '["nan"]',
        }

    def test_keep_their_first_value_and_nothing_of_the_refused_call_is_written(
        self, mlflow_tracker: Callable[..., MLflowTracker], store: Store
    ) -> None:
        with mlflow_tracker() as tracker:
            tracker.log_params({"a": {"b": 1}})
            tracker.log_params({"a.b": 1, "same": "is fine"})
            with pytest.raises(TrackingError) as caught:
                tracker.log(Record({"new": "x", "a.b": "2"}, {"m": 1.0}, tags={"t": "x"}))
            for part in ("a.b", "'1'", "'2'"):
                assert part in str(caught.value)
            with pytest.raises(TrackingError, match="given twice"):
                tracker.log_params({"c": {"d": 1}, "c.d": 2})
        data = store.run(tracker.run_id).data
        assert data.params == {"a.b": "1", "same": "is fine"}
        assert data.metrics == {}
        assert "t" not in data.tags
        assert tracker.degraded is None

    def test_of_another_value_past_the_cut_are_another_value(
        self, mlflow_tracker: Callable[..., MLflowTracker]
    ) -> None:
        with mlflow_tracker() as tracker:
            tracker.log_params({"long": "x" * 7000 + "a"})
            tracker.log_params({"long": "x" * 7000 + "a"})
            with pytest.raises(TrackingError, match="param long"):
                tracker.log_params({"long": "x" * 7000 + "b"})

    @pytest.mark.parametrize(("kind", "limit"), [("param", 6000), ("tag", 8000)])
    def test_that_are_too_long_are_cut_and_attached_whole(
        self,
        mlflow_tracker: Callable[..., MLflowTracker],
        store: Store,
        told: list[str],
        kind: str,
        limit: int,
    ) -> None:
        text, fitting = "ñ" * limit + "end", "ñ" * limit
        with mlflow_tracker() as tracker:
            log = tracker.log_params if kind == "param" else tracker.set_tags
            log({"long": text, "fits": fitting})
        data = store.run(tracker.run_id).data
        kept = data.params if kind == "param" else data.tags
        assert len(kept["long"]) == limit
        path = f"cut/{kind}s/long.txt"
        assert path in kept["long"]
        assert store.text(tracker.run_id, path) == text
        assert kept["fits"] == fitting
        assert len(told) == 1
        assert path in told[0]


class TestMetrics:
    def test_are_numbers_and_the_rest_is_told(
        self, mlflow_tracker: Callable[..., MLflowTracker], store: Store, told: list[str]
    ) -> None:
        with mlflow_tracker() as tracker:
            tracker.log_metrics(
                {
                    "int": 3,
                    "float": 0.5,
                    "numpy": np.float32(0.25),
                    "integer": np.int64(7),
                    "decimal": Decimal("1.5"),
                    "zero_d": np.array(2.0),
                    "flag": True,
                    "numpy_flag": np.False_,
                    "text": "3",
                    "none": None,
                    "list": [1.0],
                }
            )
        assert store.run(tracker.run_id).data.metrics == {
            "int": 3.0,
            "float": 0.5,
            "numpy": 0.25,
            "integer": 7.0,
            "decimal": 1.5,
            "zero_d": 2.0,
        }
        assert len(told) == 5
        for name in ("flag", "numpy_flag", "text", "none", "list"):
            assert any(f"metric {name} left out" in message for message in told)

    def test_have_steps(self, mlflow_tracker: Callable[..., MLflowTracker], store: Store) -> None:
        with mlflow_tracker() as tracker:
            for step in range(3):
                tracker.log_metrics({"loss": 3 - step}, step=step)
            tracker.log(Record(stepped={"by_step": {1: 1.0, 2: 4.0, 3: 9.0}}))
        assert tracker.run_id is not None
        loss = store.client.get_metric_history(tracker.run_id, "loss")
        assert sorted((m.step, m.value) for m in loss) == [(0, 3.0), (1, 2.0), (2, 1.0)]
        stepped = store.client.get_metric_history(tracker.run_id, "by_step")
        assert sorted((m.step, m.value) for m in stepped) == [(1, 1.0), (2, 4.0), (3, 9.0)]

    def test_that_are_not_finite_are_told_and_kept_in_a_tag(
        self, mlflow_tracker: Callable[..., MLflowTracker], store: Store, told: list[str]
    ) -> None:
        with mlflow_tracker() as tracker:
            tracker.log_metrics({"fine": 1.0, "nan": float("nan"), "up": np.inf})
            tracker.log_metrics({"down": -np.inf, "huge": 10**400}, step=2)
            for step in range(1, 1001):
                tracker.log_metrics({"loss": np.nan if step % 2 else np.inf}, step=step)
        run = store.run(tracker.run_id)
        assert run.data.metrics == {"fine": 1.0}
        assert json.loads(run.data.tags["metrics_not_finite"]) == {
            "nan": "nan",
            "up": "inf",
            "down": "-inf at step 2",
            "huge": "inf at step 2",
            "loss": "nan 500 times, at steps 1 to 999; inf 500 times, at steps 2 to 1000",
        }
        assert len(told) == 6, "each kind of each metric once"

    def test_of_the_largest_and_smallest_size_survive(
        self, mlflow_tracker: Callable[..., MLflowTracker], store: Store
    ) -> None:
        values = {"max": 1.7976931348623157e308, "tiny": 2.2250738585072014e-308, "minus": -0.1}
        with mlflow_tracker() as tracker:
            tracker.log_metrics(values)
        assert store.run(tracker.run_id).data.metrics == values


class TestKeysAndBatches:
    NAMES = ("hit rate %", "hit rate #", "hit rate _", "/root", "a//b", "..", "", "é ñ", "k" * 300, "k" * 301)

    @pytest.mark.parametrize("kind", ["params", "metrics", "tags"])
    def test_illegal_keys_become_legal_ones_apart_from_each_other(
        self, mlflow_tracker: Callable[..., MLflowTracker], store: Store, told: list[str], kind: str
    ) -> None:
        given = {name: number for number, name in enumerate(self.NAMES)}
        with mlflow_tracker() as tracker:
            log: Any = {
                "params": tracker.log_params,
                "metrics": tracker.log_metrics,
                "tags": tracker.set_tags,
            }[kind]
            log(given)
            log(given)  # the same names again are the same keys
        data = store.run(tracker.run_id).data
        kept = {"params": data.params, "metrics": data.metrics, "tags": data.tags}[kind]
        ours = {key: value for key, value in kept.items() if not key.startswith(("mlflow.", PROCESS_TAG))}
        assert sorted(float(value) for value in ours.values()) == [float(n) for n in range(len(self.NAMES))]
        assert float(ours["hit rate _"]) == 2, "a name that is legal stays"
        changed = [name for name in self.NAMES if name not in ours]
        assert len([message for message in told if " is logged as " in message]) == len(changed)

    def test_more_than_a_batch_is_all_there(
        self, mlflow_tracker: Callable[..., MLflowTracker], store: Store
    ) -> None:
        with mlflow_tracker() as tracker:
            tracker.log(
                Record(
                    {f"p{n}": str(n) for n in range(250)},
                    {f"m{n}": float(n) for n in range(2100)},
                    {"s": {n: float(n) for n in range(1, 1501)}},
                    {f"t{n}": str(n) for n in range(230)},
                )
            )
        data = store.run(tracker.run_id).data
        assert data.params == {f"p{n}": str(n) for n in range(250)}
        assert {k: v for k, v in data.metrics.items() if k != "s"} == {f"m{n}": n for n in range(2100)}
        assert {k for k in data.tags if k[0] == "t"} == {f"t{n}" for n in range(230)}
        assert tracker.run_id is not None
        assert len(store.client.get_metric_history(tracker.run_id, "s")) == 1500

    def test_characters_that_no_database_takes_are_replaced_and_told(
        self, mlflow_tracker: Callable[..., MLflowTracker], store: Store, told: list[str]
    ) -> None:
        with mlflow_tracker() as tracker:
            tracker.log_params({"p": "a\x00b\udc80c 日本"})
            tracker.set_tags({"t": "\x00"})
        data = store.run(tracker.run_id).data
        assert data.params == {"p": "a\ufffdb?c 日本"}
        assert data.tags["t"] == "\ufffd"
        assert len(told) == 2


class TestTags:
    def test_later_values_replace_earlier_ones(
        self, mlflow_tracker: Callable[..., MLflowTracker], store: Store
    ) -> None:
        with mlflow_tracker(tags={"pair": "USDCLP", "environment": "test"}) as tracker:
            tracker.set_tags({"pair": "USDMXN", "number": 3, "flag": False})
        tags = store.run(tracker.run_id).data.tags
        assert (tags["pair"], tags["environment"], tags["number"], tags["flag"]) == (
            "USDMXN",
            "test",
            "3",
            "False",
        )

    def test_of_the_experiment_are_set_when_it_is_made(
        self, mlflow_tracker: Callable[..., MLflowTracker], store: Store
    ) -> None:
        with mlflow_tracker(experiment_tags={"horizon": "7d"}) as tracker:
            pass
        made = store.client.get_experiment(store.run(tracker.run_id).info.experiment_id)
        assert made.tags["horizon"] == "7d"

    def test_find_the_newest_finished_run_that_has_them_all(
        self, mlflow_tracker: Callable[..., MLflowTracker]
    ) -> None:
        tracker = mlflow_tracker()
        ids = []
        for status in ("FINISHED", "FINISHED", "FAILED"):
            tracker.start_run(tags={"a": "it's", "b": "2"})
            tracker.end_run(status)  # type: ignore[arg-type]
            ids.append(tracker.run_id)
        assert tracker.find_run({"a": "it's", "b": "2"}) == ids[1]
        assert tracker.find_run({"a": "it's", "b": "3"}) is None

    def test_find_a_run_of_an_experiment_that_another_process_made_since(
        self, mlflow_tracker: Callable[..., MLflowTracker]
    ) -> None:
        early = mlflow_tracker()
        assert early.find_run({"a": "1"}) is None
        with mlflow_tracker(tags={"a": "1"}) as other:
            pass
        assert early.find_run({"a": "1"}) == other.run_id

    def test_are_looked_for_without_making_an_experiment(
        self, mlflow_tracker: Callable[..., MLflowTracker], store: Store
    ) -> None:
        assert mlflow_tracker().find_run({"a": "1"}) is None
        assert store.client.get_experiment_by_name("trackers") is None


class TestArtifacts:
    def test_files_and_folders_are_attached_where_they_are_wanted(
        self, mlflow_tracker: Callable[..., MLflowTracker], store: Store, tmp_path: Path
    ) -> None:
        folder = tmp_path / "made"
        (folder / "inner").mkdir(parents=True)
        (folder / "a.txt").write_text("a")
        (folder / "inner" / "b.txt").write_text("b")
        with mlflow_tracker() as tracker:
            tracker.log_artifact(folder / "a.txt")
            tracker.log_artifact(str(folder / "a.txt"), "reports/daily")
            tracker.log_artifacts_dir(folder, "all")
            tracker.log_artifact(folder, "as")
        assert store.files(tracker.run_id) == {
            "a.txt",
            "reports/daily/a.txt",
            "all/a.txt",
            "all/inner/b.txt",
            "as/made/a.txt",
            "as/made/inner/b.txt",
        }
        assert tracker.run_id is not None
        assert tracker.read_text(tracker.run_id, "all/inner/b.txt") == "b"

    def test_that_are_missing_or_cannot_be_read_are_told_and_nothing_else_happens(
        self,
        mlflow_tracker: Callable[..., MLflowTracker],
        store: Store,
        told: list[str],
        tmp_path: Path,
    ) -> None:
        (tmp_path / "broken").symlink_to(tmp_path / "gone")
        (tmp_path / "file").write_text("x")
        (tmp_path / "model").mkdir()
        with mlflow_tracker() as tracker:
            tracker.log_artifact(tmp_path / "missing.txt")
            tracker.log_artifact(tmp_path / "broken")
            tracker.log_artifacts_dir(tmp_path / "missing")
            tracker.log_artifacts_dir(tmp_path / "file")
            assert tracker.log_model(tmp_path / "model", "model") is None
            tracker.log_artifact(tmp_path / "file", "../outside")
        assert len(told) == 6
        for message, part in zip(
            told, ("missing.txt", "broken", "missing", "no folder", "MLmodel", "outside"), strict=True
        ):
            assert part in message
        assert store.files(tracker.run_id) == set()
        assert store.run(tracker.run_id).info.status == "FINISHED"
        assert tracker.degraded is None

    def test_of_a_folder_are_attached_but_for_those_that_cannot_be(
        self,
        mlflow_tracker: Callable[..., MLflowTracker],
        store: Store,
        told: list[str],
        tmp_path: Path,
    ) -> None:
        folder = tmp_path / "made"
        (folder / "inner").mkdir(parents=True)
        (folder / "inner" / "good.txt").write_text("good")
        (folder / "link.txt").symlink_to(folder / "inner" / "good.txt")
        (folder / "broken").symlink_to(tmp_path / "gone")
        os.mkfifo(folder / "inner" / "pipe")
        with mlflow_tracker() as tracker:
            tracker.log_artifacts_dir(folder, "all")
            tracker.log_artifact(folder / "inner" / "pipe")
            (folder / "MLmodel").write_text("flavors: {}")
            assert tracker.log_model(folder, "model") is None
        assert store.files(tracker.run_id) == {"all/inner/good.txt", "all/link.txt"}
        assert store.text(tracker.run_id, "all/link.txt") == "good"
        assert ["broken" in message for message in told] == [True, False, False, True, False, False]
        assert ["pipe" in message for message in told] == [False, True, True, False, True, False]
        assert "model not logged" in told[-1]

    def test_over_the_limit_are_told_and_logged(
        self,
        mlflow_tracker: Callable[..., MLflowTracker],
        store: Store,
        told: list[str],
        tmp_path: Path,
    ) -> None:
        large, small = tmp_path / "large.bin", tmp_path / "small.bin"
        for file, size in ((large, room.LARGE_ARTIFACT_BYTES + 1), (small, 1000)):
            file.touch()
            os.truncate(file, size)  # a hole, no bytes on the disk
        with mlflow_tracker() as tracker:
            tracker.log_artifact(small)
            tracker.log_artifact(large)
        assert store.files(tracker.run_id) == {"large.bin", "small.bin"}
        assert len(told) == 1
        assert "large.bin is large, 100 MB" in told[0]

    def test_a_store_of_files_that_cannot_be_written_is_told(
        self,
        mlflow_tracker: Callable[..., MLflowTracker],
        store: Store,
        told: list[str],
        tmp_path: Path,
        artifacts: Path,
    ) -> None:
        (tmp_path / "file").write_text("x")
        artifacts.parent.mkdir(parents=True, exist_ok=True)
        artifacts.write_text("a file where the folder should be")
        with mlflow_tracker() as tracker:
            tracker.log_artifact(tmp_path / "file")
            tracker.log_metrics({"m": 1})
        assert len(told) == 1
        assert "not a directory" in told[0].lower() or "file exists" in told[0].lower()
        assert store.run(tracker.run_id).data.metrics == {"m": 1.0}


class TestFigures:
    @pytest.fixture
    def matplotlib_figure(self) -> Iterator[Any]:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        figure, axes = pyplot.subplots()
        axes.plot([1, 2])
        yield figure
        pyplot.close(figure)

    def test_of_matplotlib(
        self, mlflow_tracker: Callable[..., MLflowTracker], store: Store, matplotlib_figure: Any
    ) -> None:
        with mlflow_tracker() as tracker:
            tracker.log_figure(matplotlib_figure, "curve.png")
            tracker.log_figure(matplotlib_figure, "inner/curve.svg", "plots")
        assert store.files(tracker.run_id) == {"curve.png", "plots/inner/curve.svg"}
        assert "<svg" in store.text(tracker.run_id, "plots/inner/curve.svg")

    def test_of_plotly(self, mlflow_tracker: Callable[..., MLflowTracker], store: Store) -> None:
        from plotly import graph_objects

        figure = graph_objects.Figure(graph_objects.Scatter(y=[1, 2]))
        with mlflow_tracker() as tracker:
            tracker.log_figure(figure, "curve.html", "plots")
            tracker.log_figure(figure, "curve.json", "plots")
        assert store.files(tracker.run_id) == {"plots/curve.html", "plots/curve.json"}
        page = store.text(tracker.run_id, "plots/curve.html")
        assert 'src="http' not in page, "opens without a network"
        assert json.loads(store.text(tracker.run_id, "plots/curve.json"))["data"][0]["y"] == [1, 2]

    def test_that_are_none_or_cannot_be_drawn_are_told(
        self,
        mlflow_tracker: Callable[..., MLflowTracker],
        store: Store,
        told: list[str],
        matplotlib_figure: Any,
    ) -> None:
        with mlflow_tracker() as tracker:
            tracker.log_figure("not a figure", "a.png")
            tracker.log_figure(matplotlib_figure, "a.nosuchformat")
            tracker.log_figure(matplotlib_figure, "/etc/a.png")
            tracker.log_figure(matplotlib_figure, "../a.png")
        assert len(told) == 4
        assert "builtins.str" in told[0]
        assert "nosuchformat" in told[1]
        assert store.files(tracker.run_id) == set()


class TestModels:
    def test_saved_ones_are_logged_and_load(
        self, mlflow_tracker: Callable[..., MLflowTracker], store: Store, uri: str, tmp_path: Path
    ) -> None:
        import mlflow

        code = tmp_path / "code.py"
        code.write_text(
            "import mlflow\n"
            "class Double(mlflow.pyfunc.PythonModel):\n"
            "    def predict(self, context, model_input: list[float]) -> list[float]:\n"
            "        return [2 * x for x in model_input]\n"
            "mlflow.models.set_model(Double())\n"
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow warns of its own type hints when it is imported
            mlflow.pyfunc.save_model(tmp_path / "saved", python_model=str(code), pip_requirements=["mlflow"])
        with mlflow_tracker() as tracker:
            address = tracker.log_model(tmp_path / "saved", "double")
        assert address is not None
        assert address.startswith("models:/m-")
        model = store.client.get_logged_model(address.removeprefix("models:/"))
        assert (model.name, model.source_run_id, str(model.status)) == ("double", tracker.run_id, "READY")
        outputs = store.run(tracker.run_id).outputs
        assert [output.model_id for output in outputs.model_outputs] == [model.model_id]
        mlflow.set_tracking_uri(store.client.tracking_uri)
        try:
            assert mlflow.pyfunc.load_model(address).predict([1.0, 2.0]) == [2.0, 4.0]
        finally:
            mlflow.set_tracking_uri(None)

    def test_that_could_not_be_attached_are_marked_as_failed_and_told(
        self,
        mlflow_tracker: Callable[..., MLflowTracker],
        store: Store,
        told: list[str],
        tmp_path: Path,
        artifacts: Path,
    ) -> None:
        in_the_way = artifacts / "trackers" / "models"
        in_the_way.parent.mkdir(parents=True)
        in_the_way.write_text("a file where the folder should be")
        with mlflow_tracker() as tracker:
            (tmp_path / "saved").mkdir()
            (tmp_path / "saved" / "MLmodel").write_text("flavors: {}\n")
            assert tracker.log_model(tmp_path / "saved", "model") is None
        run = store.run(tracker.run_id)
        (model,) = store.client.search_logged_models([run.info.experiment_id])
        assert (str(model.status), run.info.status) == ("FAILED", "FINISHED")
        assert len(told) == 1
        assert "model model not logged" in told[0]


@pytest.mark.parametrize("artifact_files", [0, 5])
def test_a_run_costs_at_most_five_calls_of_the_client(
    mlflow_tracker: Callable[..., MLflowTracker],
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    artifact_files: int,
) -> None:
    """Counted on the real client, whose every public method is wrapped."""
    from mlflow import MlflowClient

    with mlflow_tracker():
        pass  # makes the experiment
    for number in range(artifact_files):
        (tmp_path / "files").mkdir(exist_ok=True)
        (tmp_path / "files" / str(number)).write_text("x")
    calls: list[str] = []

    def counted(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            calls.append(name)
            return method(*arguments, **named)

        return call

    for name in dir(MlflowClient):
        if not name.startswith("_") and callable(getattr(MlflowClient, name)):
            monkeypatch.setattr(MlflowClient, name, counted(name, getattr(MlflowClient, name)))
    with mlflow_tracker() as tracker:
        tracker.log(
            Record(
                {f"p{n}": str(n) for n in range(40)},
                {f"m{n}": n for n in range(60)},
                {},
                {f"t{n}": str(n) for n in range(10)},
            )
        )
        if artifact_files:
            tracker.log_artifacts_dir(tmp_path / "files")
    monkeypatch.undo()
    # Beside them one transaction for the batch; see tracking/writing.py.
    assert calls == ["create_run", "set_terminated"]
    data = store.run(tracker.run_id).data
    assert (len(data.params), len(data.metrics)) == (40, 60)
    assert len(store.files(tracker.run_id)) == artifact_files


def rows_of(uri: str, run_id: str | None, folder: Path) -> dict[str, set[str]]:
    """Every row of a run as the database holds it, without the run's id."""
    copy = copy_database(uri, folder / f"{run_id}.db")
    found = {}
    with closing(sqlite3.connect(copy.path)) as connection:
        for table in ("params", "metrics", "latest_metrics", "tags"):
            cursor = connection.execute(f"SELECT * FROM {table} WHERE run_uuid = ?", (run_id,))
            names = [column[0] for column in cursor.description]
            rows = [dict(zip(names, row, strict=True)) for row in cursor]
            found[table] = {str(sorted((k, v) for k, v in row.items() if k != "run_uuid")) for row in rows}
    return found


def test_rows_written_in_one_transaction_are_those_that_mlflow_writes(
    mlflow_tracker: Callable[..., MLflowTracker],
    uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same calls with tables of an unknown version of MLflow go through its client."""
    monkeypatch.setattr("forex_core.tracking.values.time.time", lambda: 1.8e9)
    rows = []
    for versions in (writing.KNOWN_TABLES, ()):
        monkeypatch.setattr(writing, "KNOWN_TABLES", versions)
        sent = []

        def counted(client: MlflowClient, run_id: str, batch: Batch, sent: list[Batch] = sent) -> None:
            sent.append(batch)
            send(client, run_id, batch)

        monkeypatch.setattr(writing, "send", counted)
        with mlflow_tracker(run_name="same", tags={"pair": "USDCLP"}) as tracker:
            tracker.log(
                Record(
                    {"a": "1", "b": "x" * 6000},
                    {"m": 1.5, "minus": -0.0},
                    {"s": {1: 3.0, 2: 1.0, 3: 2.0}},
                    {"pair": "USDMXN", "t": "v"},
                )
            )
            tracker.log_params({"a": 1, "c": 2})
            tracker.log_metrics({"s": 5.0}, step=2)
            tracker.log_metrics({"m": 0.5, "new": 1})
            tracker.set_tags({"t": "w", "u": ""})
        rows.append(rows_of(uri, tracker.run_id, tmp_path))
        # A metric that has a value already is MLflow's to compare.
        assert len(sent) == (2 if versions else 5)
    assert rows[0] == rows[1]
    assert {table: len(found) for table, found in rows[0].items()} == {
        "params": 3,
        "metrics": 8,
        "latest_metrics": 4,
        "tags": 5,  # the run's name and its process among them
    }


@pytest.mark.parametrize("order", [1, -1])
def test_the_latest_of_a_batch_is_the_one_that_mlflow_takes(
    mlflow_tracker: Callable[..., MLflowTracker], uri: str, store: Store, tmp_path: Path, order: int
) -> None:
    """By step, of one step by time, of one time by value, in whichever order they come."""
    points = [
        Point("by_step", 1.0, 300, 2),
        Point("by_step", 9.0, 400, 1),
        Point("by_time", 1.0, 500, 1),
        Point("by_time", 9.0, 400, 1),
        Point("by_value", 1.0, 300, 1),
        Point("by_value", 9.0, 300, 1),
        Point("by_value", 5.0, 300, 1),
    ]
    batch = Batch(metrics=points[::order])
    own, theirs = mlflow_tracker(run_name="same"), mlflow_tracker(run_name="same")
    writing.write(store.client, uri, own.start_run(), batch, writing.Written())
    send(store.client, theirs.start_run(), batch)
    assert store.run(own.run_id).data.metrics == {"by_step": 1.0, "by_time": 1.0, "by_value": 9.0}
    assert rows_of(uri, own.run_id, tmp_path) == rows_of(uri, theirs.run_id, tmp_path)


def test_what_another_process_wrote_to_the_run_is_merged(
    mlflow_tracker: Callable[..., MLflowTracker], store: Store
) -> None:
    with mlflow_tracker() as tracker:
        assert tracker.run_id is not None
        store.client.log_metric(tracker.run_id, "m", 1.0, timestamp=1, step=9)
        store.client.set_tag(tracker.run_id, "t", "theirs")
        tracker.log(Record(metrics={"m": 2.0}, tags={"t": "ours"}))
    run = store.run(tracker.run_id)
    assert (run.data.metrics, run.data.tags["t"]) == ({"m": 1.0}, "ours"), "the later step counts"


def test_nothing_is_written_of_a_run_that_the_store_does_not_have(
    mlflow_tracker: Callable[..., MLflowTracker], uri: str, tmp_path: Path
) -> None:
    tracker = mlflow_tracker()
    tracker.start_run()
    with copies._writing(uri) as (execute, mark):
        for table in ("tags", "runs"):
            execute(f"DELETE FROM {table} WHERE run_uuid = {mark}", (str(tracker.run_id),))
    release(uri)  # a new connection, which no session of MLflow has used
    with pytest.raises(TrackingError):
        tracker.log(Record({"p": "1"}, {"m": 1.0}, tags={"t": "x"}))
    rows = copy_database(uri, tmp_path / "after.db").tables
    assert {table: rows[table] for table in ("params", "metrics", "latest_metrics", "tags")} == {
        "params": 0,
        "metrics": 0,
        "latest_metrics": 0,
        "tags": 0,
    }
