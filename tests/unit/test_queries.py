"""Questions to a real SQLite store, with runs made by MLflow's own client."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from forex_core.errors import InputError, TrackingError
from forex_core.tracking import copy_database, open_store, queries
from forex_core.tracking.store import release
from forex_core.types import Horizon, Pair, short_id

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "forecaster_7d"
WEEK, MONTH = Horizon(7), Horizon(30)
USDCLP, EURUSD = Pair("USD", "CLP"), Pair("EUR", "USD")


class Store:
    """A store of a test's own, and how to put runs into it."""

    def __init__(self, uri: str, folder: Path) -> None:
        self.uri = uri
        self.path = Path(uri.removeprefix("sqlite:///"))  # of an SQLite store
        self.folder = folder
        self.client: MlflowClient = open_store(uri)

    def experiment(self, name: str = EXPERIMENT) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        location = (self.folder / "mlruns" / name).as_uri()
        return str(self.client.create_experiment(name, location, {"service": "forex-forecast"}))

    def run(
        self,
        rmse: float | None = None,
        *,
        pair: str = "USDCLP",
        horizon: str = "7d",
        status: str = "FINISHED",
        started: int | None = None,
        params: dict[str, str] | None = None,
        metrics: dict[str, float] | None = None,
        **tags: str,
    ) -> str:
        from mlflow.entities import Metric, Param

        values = {} if rmse is None else {f"{horizon}_rmse": rmse}
        made = self.client.create_run(
            self.experiment(f"forecaster_{horizon}"),
            start_time=started,
            tags={"pair": pair, "horizon": horizon} | tags,
            run_name="forecast_20261119_080000",
        )
        self.client.log_batch(
            made.info.run_id,
            metrics=[Metric(name, value, 0, 0) for name, value in (values | (metrics or {})).items()],
            params=[Param(name, value) for name, value in (params or {}).items()],
        )
        self.client.set_terminated(made.info.run_id, status)
        return str(made.info.run_id)

    def clones(self, run_id: str, values: list[float]) -> list[str]:
        """Runs like the one given but for their id, start and 7d_rmse, written past the client, which is slow."""
        ids = [f"{number:032x}" for number in range(1, len(values) + 1)]
        with closing(sqlite3.connect(self.path)) as database, database:
            for table in ("runs", "latest_metrics", "metrics", "tags", "params"):
                columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
                for number, (clone, value) in enumerate(zip(ids, values, strict=True), start=1):
                    changed = {
                        "run_uuid": f"'{clone}'",
                        "start_time": f"start_time + {number}",
                        "artifact_uri": f"replace(artifact_uri, '{run_id}', '{clone}')",
                    }
                    if table in ("latest_metrics", "metrics"):
                        changed["value"] = f"CASE WHEN key = '7d_rmse' THEN {value!r} ELSE value END"
                    selected = ", ".join(changed.get(name, name) for name in columns)
                    database.execute(
                        f"INSERT INTO {table} ({', '.join(columns)}) "
                        f"SELECT {selected} FROM {table} WHERE run_uuid = '{run_id}'"
                    )
        return ids

    def model(self, run_id: str, folder: Path, *, files: dict[str, str], status: str = "READY") -> Any:
        from mlflow.entities import LoggedModelOutput

        logged = self.client.create_logged_model(self.experiment(), source_run_id=run_id)
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        self.client.log_model_artifacts(logged.model_id, str(folder))
        self.client.finalize_logged_model(logged.model_id, status)
        self.client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, 0)])
        return logged

    def version(self, run_id: str, name: str = "usdclp-7d", **tags: str) -> str:
        from mlflow.exceptions import MlflowException

        try:
            self.client.get_registered_model(name)
        except MlflowException:
            self.client.create_registered_model(name)
        made = self.client.create_model_version(name, self.folder.as_uri(), run_id, tags=tags)
        return str(made.version)


@pytest.fixture
def store(sqlite_store: str, tmp_path: Path) -> Store:
    return Store(sqlite_store, tmp_path / "data" / "mlflow")


@pytest.fixture(params=["sqlite_store", "postgres_store"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(request.getfixturevalue(request.param), tmp_path / "data" / "mlflow")


GOOD_FILES = {"MLmodel": "flavors:\n  python_function: {}\n", "artifacts/specification.json": "{}"}


# --- the best run


def best(store: Store, **options: Any) -> str | None:
    row = queries.best_run(store.client, EXPERIMENT, "7d_rmse", pair=USDCLP, **options)
    return row.id if row else None


def test_what_is_not_a_finished_finite_score_of_the_pair_is_never_first(any_store: Store) -> None:
    any_store.run(0.1, status="FAILED")
    any_store.run(0.2, status="KILLED")
    any_store.run(0.3, pair="EURUSD")
    any_store.run(0.4, horizon="30d")
    any_store.run(None)
    any_store.run(float("nan"))
    any_store.run(float("inf"))
    any_store.run(float("-inf"))
    any_store.client.delete_run(any_store.run(0.5))
    any_store.client.delete_run(any_store.run(500.0))
    assert best(any_store) is None
    assert best(any_store, mode="max") is None
    low, high = any_store.run(12.0), any_store.run(14.0)
    any_store.run(900.0, status="FAILED")
    assert best(any_store) == low
    assert best(any_store, mode="max") == high
    assert queries.best_run(any_store.client, EXPERIMENT, "7d_rmse").id != low, "any pair"  # type: ignore[union-attr]


def test_a_nan_that_an_older_server_takes_for_zero_is_never_first(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow 3.6 cannot be installed beside ours: its answer is the one without the conditions on metrics."""
    store.run(float("nan"))
    assert best(store) is None
    low = store.run(12.0)
    store.run(14.0)
    search = store.client.search_runs

    def older(filter_string: str, **arguments: Any) -> Any:
        kept = [part for part in filter_string.split(" and ") if not part.startswith("metrics.")]
        return search(filter_string=" and ".join(kept), **arguments | {"order_by": ["attributes.start_time"]})

    monkeypatch.setattr(store.client, "search_runs", older)
    assert best(store) == low


def test_the_newest_of_equal_runs_is_best(any_store: Store) -> None:
    any_store.run(5.0, started=1000)
    newest = any_store.run(5.0, started=3000)
    any_store.run(5.0, started=2000)
    assert best(any_store) == best(any_store, mode="max") == newest


def test_an_absent_experiment_has_no_best_run(store: Store) -> None:
    assert queries.best_run(store.client, "forecaster_8d", "8d_rmse") is None
    store.experiment()
    assert best(store) is None


def test_a_deleted_experiment_is_told_with_its_cure(any_store: Store) -> None:
    run_id = any_store.run(1.0, started=1_000_000)
    any_store.run(1.0, horizon="30d")
    gone = any_store.experiment()
    any_store.client.delete_experiment(gone)
    client = any_store.client
    cure = rf"experiment forecaster_7d was deleted in .*'mlflow experiments restore -x {gone}'"
    for question in (
        lambda: queries.runs(client, None, WEEK),
        lambda: queries.best_run(client, EXPERIMENT, "7d_rmse"),
        lambda: list(queries.runs_by_data(client, USDCLP, WEEK)),
        lambda: queries.run(client, run_id),
        lambda: queries.audits(client, EXPERIMENT),
    ):
        with pytest.raises(TrackingError, match=cure) as caught:
            question()
        assert "secret" not in str(caught.value)
    assert len(queries.runs(client, None, MONTH)) == 1
    deleted, other = queries.experiments(client)
    assert (deleted.name, deleted.deleted, deleted.finished) == (EXPERIMENT, True, 1)
    assert (other.name, other.deleted) == ("forecaster_30d", False)
    client.restore_experiment(gone)
    assert [row.id for row in queries.runs(client, None, WEEK)] == [run_id]


def test_a_metric_that_no_run_has_is_refused_with_those_near_it(any_store: Store) -> None:
    any_store.run(1.0, metrics={"7d_rmse_ratio_rw": 0.9, "7d_mape": 1.0}, pair="EURUSD")
    any_store.client.delete_run(any_store.run(metrics={"gone": 1.0}))
    with pytest.raises(
        InputError, match=r"no run of forecaster_7d has a metric '7d_rsme'; near it are 7d_rmse"
    ):
        queries.refuse_unknown_metric(any_store.client, EXPERIMENT, "7d_rsme")
    for name in ("gone", "zzz"):
        with pytest.raises(InputError, match="'forex runs show RUN_ID' lists what a run has"):
            queries.refuse_unknown_metric(any_store.client, EXPERIMENT, name)
    queries.refuse_unknown_metric(
        any_store.client, EXPERIMENT, "7d_mape"
    )  # that other pairs have it is enough
    queries.refuse_unknown_metric(
        any_store.client, "forecaster_30d", "30d_rmse"
    )  # nothing is known to be mistyped
    assert best(any_store) is None


@pytest.mark.parametrize(
    "name", ["a%b", "7d_rmse`", "x' or 1=1", 'a"b', "", "..", "/x", "a//b", "a,b", "a" * 251, "a\nb", "a;b"]
)
def test_a_name_that_no_metric_can_have_is_a_clear_error(name: str, store: Store) -> None:
    run_id = store.run(1.0)
    with pytest.raises(InputError, match="cannot be the name of a metric"):
        queries.best_run(store.client, EXPERIMENT, name)
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException):  # as MLflow sees it
        store.client.log_metric(run_id, name, 1.0)


@pytest.mark.parametrize("name", ["val/loss", "a b", "a:b", "ünï", "a-b.c", "select"])
def test_names_that_a_metric_can_have_are_found(name: str, any_store: Store) -> None:
    run_id = any_store.run(1.0, metrics={name: 3.0})
    row = queries.best_run(any_store.client, EXPERIMENT, name)
    assert row is not None
    assert (row.id, row.metrics[name]) == (run_id, 3.0)


def test_an_unknown_mode_is_refused(store: Store) -> None:
    with pytest.raises(InputError, match="expected min or max"):
        best(store, mode="least")


def test_only_a_model_that_is_ready_and_there_is_loadable(store: Store, tmp_path: Path) -> None:
    store.run(1.0)
    broken = {
        "no MLmodel": {"artifacts/specification.json": "{}"},
        "no specification": {"MLmodel": GOOD_FILES["MLmodel"]},
        "cut specification": GOOD_FILES | {"artifacts/specification.json": '{"recipe": '},
        "cut MLmodel": GOOD_FILES | {"MLmodel": ""},
    }
    for number, (name, files) in enumerate(broken.items()):
        store.model(store.run(2.0 + number), tmp_path / name, files=files)
    store.model(store.run(6.0), tmp_path / "pending", files=GOOD_FILES, status="FAILED")
    gone = store.model(store.run(7.0), tmp_path / "gone", files=GOOD_FILES)
    shutil.rmtree(gone.artifact_location.removeprefix("file://"))
    deleted = store.model(store.run(8.0), tmp_path / "deleted", files=GOOD_FILES)
    store.client.delete_logged_model(deleted.model_id)
    assert best(store, loadable=True) is None
    good = store.run(9.0)
    store.model(good, tmp_path / "good", files=GOOD_FILES)
    assert best(store, loadable=True) == good
    assert best(store) != good


def test_a_loadable_model_is_what_the_metrics_are_of(any_store: Store, tmp_path: Path) -> None:
    def run(rmse: float, **tags: str) -> str:
        run_id = any_store.run(rmse, **tags)
        any_store.model(run_id, tmp_path / str(rmse), files=GOOD_FILES)
        return run_id

    of = {"published_model": "usdclp-7d"}
    other = run(1.0, published_version="1", **of)  # of the champion, version 1; the run learned version 2
    gone = run(2.0, published_version="9", **of)
    own = run(3.0, published_version="1", **of)
    unsaid = run(4.0)
    assert [any_store.version(own), any_store.version(other)] == ["1", "2"]
    any_store.version(other, "eurusd-7d")  # its version 1, of another model
    assert best(any_store) == other
    assert best(any_store, loadable=True) == own
    any_store.version(own)  # registered once more
    assert best(any_store, loadable=True) == own
    for run_id in (own, other, gone):
        any_store.client.delete_run(run_id)
    assert best(any_store, loadable=True) == unsaid


@pytest.mark.slow
def test_best_is_right_among_many_pages_of_runs(store: Store, tmp_path: Path) -> None:
    """The only loadable run is the 1,100th of 1,200 by its score, and the best of all lies on no first page by time."""
    origin = store.run(5000.0, started=0)
    values = [float(1000 + (i * 7919) % 1200) for i in range(1200)]
    ids = store.clones(origin, values)
    ranked = [i for _, i in sorted(zip(values, ids, strict=True))]
    assert best(store) == ranked[0]
    store.model(ranked[1099], tmp_path / "model", files=GOOD_FILES)
    assert best(store, loadable=True) == ranked[1099]
    assert queries.experiments(store.client)[0].finished == 1201
    assert [row.id for row in queries.runs(store.client, USDCLP, WEEK, 1300)] == [*reversed(ids), origin]
    assert [row.id for row in queries.runs(store.client, USDCLP, WEEK, 3)] == ids[:-4:-1]


# --- lists


def test_experiments_count_runs_by_their_end(any_store: Store) -> None:
    any_store.run(1.0, started=1_000_000)
    any_store.run(1.0, started=3_000_000)
    any_store.run(status="FAILED", started=2_000_000)
    any_store.run(status="KILLED", started=1)
    any_store.client.delete_run(any_store.run(1.0, started=9_000_000))
    any_store.run(1.0, horizon="15d")
    seven, fifteen = queries.experiments(any_store.client)
    assert (seven.name, fifteen.name) == ("forecaster_7d", "forecaster_15d")
    assert (seven.finished, seven.failed, seven.other) == (2, 1, 1)
    assert seven.last_run is not None
    assert seven.last_run.timestamp() == 3000
    assert seven.artifact_location.endswith("/mlruns/forecaster_7d")
    assert seven.tags["service"] == "forex-forecast"


def test_a_store_that_may_only_be_read_answers_the_same(store: Store) -> None:
    run_id = store.run(1.0, started=1_000_000)
    store.run(status="FAILED", started=2_000_000)
    with queries.existing_store(f"sqlite:///file:{store.path}?mode=ro&uri=true") as client:
        assert client is not None
        assert queries.experiments(client) == queries.experiments(store.client)
        assert queries.best_run(client, EXPERIMENT, "7d_rmse") == queries.best_run(
            store.client, EXPERIMENT, "7d_rmse"
        )
        assert queries.run(client, run_id[:8]) == queries.run(store.client, run_id)


def test_a_run_row_has_the_horizons_own_scores_and_what_a_reader_asks_for(store: Store) -> None:
    own = {f"30d_{name}": number for number, name in enumerate(queries.SCORES)}
    store.run(
        horizon="30d",
        metrics=own | {"7d_rmse": 99.0, "challenger_30d_rmse": 98.0},
        params={"origin": "2026-11-19", "as_of": "2026-11-20T08:00:00-03:00"},
        environment="production",
        pinned="true",
        challenger="false",
    )
    (row,) = queries.runs(store.client, USDCLP, MONTH)
    assert row.scores == {name: float(number) for number, name in enumerate(queries.SCORES)}
    assert (row.pair, row.horizon, row.environment, row.origin) == (
        "USDCLP",
        "30d",
        "production",
        "2026-11-19",
    )
    assert row.marks == ("pinned",)
    assert row.error is None
    assert row.ended is not None
    assert row.ended >= row.started


def test_scores_that_are_no_finite_number_are_none_and_metrics_as_logged(any_store: Store) -> None:
    run_id = any_store.run(
        metrics={"7d_rmse": float("inf"), "7d_mape": float("nan"), "7d_crps": float("-inf")}
    )
    row = queries.run(any_store.client, run_id)
    assert row.scores["rmse"] is row.scores["mape"] is row.scores["crps"] is None
    assert row.metrics["7d_rmse"] == float("inf")
    assert row.metrics["7d_crps"] == float("-inf")


def test_runs_of_one_pair_and_status(any_store: Store) -> None:
    clp, eur = any_store.run(1.0, started=1), any_store.run(1.0, pair="EURUSD", started=2)
    failed = any_store.run(status="FAILED", error_type="SourceError", error_message="no file", started=3)

    def ids(*arguments: Any) -> list[str]:
        return [row.id for row in queries.runs(any_store.client, *arguments)]

    assert ids(None, WEEK) == [failed, eur, clp]
    assert ids(USDCLP, WEEK) == [failed, clp]
    assert ids(USDCLP, WEEK, 20, "finished") == [clp]
    assert ids(USDCLP, WEEK, 1) == [failed]
    assert ids(USDCLP, MONTH) == []
    assert queries.run(any_store.client, failed).error == "SourceError: no file"
    with pytest.raises(InputError, match=r"expected one of finished, failed, killed, running, scheduled$"):
        ids(USDCLP, WEEK, 20, "done")
    with pytest.raises(InputError, match="expected 1 or more"):
        ids(USDCLP, WEEK, 0)


def test_runs_over_the_newest_data_come_first(any_store: Store) -> None:
    unsaid = any_store.run(started=9)
    old = any_store.run(params={"origin": "2026-11-10"}, started=3)
    first, again = (any_store.run(params={"origin": "2026-11-19"}, started=start) for start in (1, 2))
    any_store.run(params={"origin": "2026-11-20"}, status="FAILED")
    any_store.run(params={"origin": "2026-11-20"}, pair="EURUSD")
    assert list(queries.runs_by_data(any_store.client, USDCLP, WEEK)) == [again, first, old, unsaid]
    assert list(queries.runs_by_data(any_store.client, USDCLP, MONTH)) == []


# --- one run


def test_a_run_is_found_by_the_beginning_of_its_id_with_its_files(any_store: Store, tmp_path: Path) -> None:
    run_id = any_store.run(1.5, params={"num_sources": "3"})
    (tmp_path / "reports" / "data").mkdir(parents=True)
    (tmp_path / "reports" / "forecast.json").write_text("{}")
    (tmp_path / "reports" / "data" / "bundle.parquet").write_text("1234")
    any_store.client.log_artifacts(run_id, str(tmp_path / "reports"), "reports")
    for asked in (run_id, run_id[:8], f" {run_id[:8].upper()} "):
        row = queries.run(any_store.client, asked)
        assert row.id == run_id
        assert row.params == {"num_sources": "3"}
        assert row.metrics == {"7d_rmse": 1.5}
        assert row.tags["pair"] == "USDCLP"
        assert row.artifacts is not None
        assert {(a.path, a.bytes) for a in row.artifacts} == {
            ("reports/forecast.json", 2),
            ("reports/data/bundle.parquet", 4),
        }


def test_a_run_that_was_spooled_is_found_by_the_id_that_the_ledger_has_of_it(any_store: Store) -> None:
    """Where none has it for its own."""
    spool_id = f"spooled-276f7b0c{24 * '0'}"
    run_id, other = any_store.run(spool_id=spool_id), any_store.run(spool_id=f"spooled-{24 * 'f'}{8 * '0'}")
    for asked in (spool_id, spool_id.upper(), short_id(spool_id), run_id[:8]):
        assert queries.run(any_store.client, asked).id == run_id
    any_store.run(spool_id=f"spooled-{run_id}")
    assert queries.run(any_store.client, run_id).id == run_id
    any_store.client.delete_run(other)
    with pytest.raises(InputError, match=f"was deleted; .*--run-id {other}"):
        queries.run(any_store.client, "f" * 8)


def test_an_unknown_an_ambiguous_and_a_deleted_run_are_clear_errors(store: Store) -> None:
    origin = store.run(1.0)
    ids = store.clones(origin, [1.0] * 20)
    with pytest.raises(InputError, match=r"several runs begin with 00000000: .* and more"):
        queries.run(store.client, ids[0][:8])
    assert queries.run(store.client, ids[0]).id == ids[0]
    with pytest.raises(InputError, match="no run begins with ffffffff"):
        queries.run(store.client, "f" * 8)
    for text in ("", "7d", "90d", "abcdefgh", "%", "' or 1", "0" * 33, "____", "%%%%"):
        with pytest.raises(InputError, match="is not the id of a run"):
            queries.run(store.client, text)
    store.client.delete_run(origin)
    with pytest.raises(InputError, match=f"was deleted; .*--run-id {origin}"):
        queries.run(store.client, origin[:8])


# --- comparison

MEMBERS = {"ets_rmse": 12.0, "ets_mape": 1.2, "ets_weight": 0.4}


def test_models_stand_side_by_side_and_params_that_differ_are_named(any_store: Store) -> None:
    same = {"origin": "2026-11-19", "num_sources": "3"}
    first = any_store.run(
        11.0,
        metrics=MEMBERS
        | {"7d_mape": 1.1, "7d_origins": 208, "challenger_7d_rmse": 10.0, "challenger_ets_weight": 1.0},
        params=same | {"settings": '{"engine": {"weight_rate": 120, "members": ["ets"]}, "pair": "USDCLP"}'},
    )
    second = any_store.run(
        13.0,
        metrics={"var_rmse": 9.0, "var_mape": 0.9, "var_weight": 1.0, "7d_origins": 208},
        params=same | {"settings": '{"engine": {"weight_rate": 60, "members": ["ets"]}, "pair": "USDCLP"}'},
    )
    table = queries.compare(any_store.client, [first[:8], second, first])
    assert [row.id for row in table.runs] == [first, second]
    assert list(table.models) == ["ensemble", "ets", "var", "challenger_ensemble", "challenger_ets"]
    assert table.models["ensemble"] == (
        queries.ModelScore(11.0, 1.1, None),
        queries.ModelScore(13.0, None, None),
    )
    assert table.models["challenger_ensemble"] == (queries.ModelScore(10.0, None, None), None)
    assert table.models["ets"] == (queries.ModelScore(12.0, 1.2, 0.4), None)
    assert table.models["var"] == (None, queries.ModelScore(9.0, 0.9, 1.0))
    assert table.params == {"settings.engine.weight_rate": ("120", "60")}
    assert table.remarks == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"params": {"origin": "2026-11-20"}}, "different windows"),
        ({"metrics": {"7d_origins": 207.0}}, "different windows"),
        (
            {"params": {"origin": "2026-11-19", "first_origin": "2022", "last_origin": "2026"}},
            "from 2022 to 2026",
        ),
        ({"pair": "EURUSD"}, "EURUSD 7d, USDCLP 7d"),
        ({"horizon": "30d"}, "USDCLP 30d, USDCLP 7d"),
        ({"status": "FAILED", "error_message": "disk full"}, "is FAILED (disk full)"),
    ],
)
def test_runs_whose_scores_do_not_compare_are_said_to(
    change: dict[str, Any], said: str, store: Store
) -> None:
    base: dict[str, Any] = {"metrics": {"7d_origins": 208.0}, "params": {"origin": "2026-11-19"}}
    table = queries.compare(store.client, [store.run(1.0, **base), store.run(1.0, **base | change)])
    assert any(said in remark for remark in table.remarks), table.remarks


def test_two_different_runs_are_needed(store: Store) -> None:
    one = store.run(1.0)
    with pytest.raises(InputError, match="two different ones"):
        queries.compare(store.client, [one, one[:8]])


# --- models


def test_versions_carry_their_aliases_and_tags(any_store: Store) -> None:
    first, second = any_store.run(1.0), any_store.run(2.0)
    any_store.version(first, recipe="abc", trained_until="2026-11-12")
    any_store.version(second, recipe="abc", trained_until="2026-11-19", pin="true", note="a 'quoted' one")
    any_store.version(first, "eurusd-7d")
    for alias, version in (("champion", "2"), ("previous", "1"), ("challenger", "1")):
        any_store.client.set_registered_model_alias("usdclp-7d", alias, version)
    rows = queries.models(any_store.client)
    assert [(row.name, row.version) for row in rows] == [("eurusd-7d", 1), ("usdclp-7d", 2), ("usdclp-7d", 1)]
    assert [row.version for row in queries.models(any_store.client, USDCLP)] == [2, 1]
    champion, former = rows[1:]
    assert (champion.aliases, former.aliases) == (("champion",), ("challenger", "previous"))
    assert (champion.recipe, champion.trained_until, champion.pin) == ("abc", "2026-11-19", "true")
    assert champion.published is None
    assert champion.run_id == second
    assert champion.tags["note"] == "a 'quoted' one"
    assert queries.run(any_store.client, second).aliases == ("champion",)
    assert queries.run(any_store.client, first).version == 1


def test_a_run_tells_the_version_it_published_from_the_one_it_learned(store: Store) -> None:
    pinned = store.run(1.0)
    store.version(pinned)
    store.client.set_registered_model_alias("usdclp-7d", "champion", "1")
    later = store.run(2.0, published_model="usdclp-7d", published_version="1", pinned="bad data")
    store.version(later)
    store.client.set_registered_model_alias("usdclp-7d", "challenger", "2")
    row = queries.run(store.client, later)
    assert (row.published_version, row.version) == (1, 2)
    assert (row.aliases, row.version_aliases) == (("champion",), ("challenger",))
    assert row.marks == ("pinned",)


def test_changes_by_hand_are_listed_newest_first(any_store: Store) -> None:
    def change(started: int, status: str = "FINISHED", pair: str = "USDCLP", **tags: str) -> str:
        operations = any_store.experiment("operations")
        known = {"action": "rollback", "model": f"{pair.lower()}-7d", "pair": pair, "horizon": "7d"} | tags
        made = any_store.client.create_run(operations, started, known)
        any_store.client.set_terminated(made.info.run_id, status)
        return str(made.info.run_id)

    assert queries.audits(any_store.client, "operations") == []
    old = change(1_000, from_version="3", to_version="2", by="ana@desk", reason="too narrow", backup="/b.db")
    failed = change(2_000, "FAILED", from_version="None", error_type="TrackingError", error_message="full")
    other = change(3_000, pair="EURUSD", action="promote", to_version="9")
    bands = any_store.client.create_run(
        any_store.experiment("operations"), 4_000, {"pair": "USDCLP", "of": "3"}
    )
    any_store.client.set_terminated(bands.info.run_id)  # which logged a model, and changed nothing
    rows = queries.audits(any_store.client, "operations")
    assert [row.run_id for row in rows] == [other, failed, old]
    assert [row.run_id for row in queries.audits(any_store.client, "operations", USDCLP, 1)] == [failed]
    last = rows[-1]
    assert (last.action, last.model, last.from_version, last.to_version) == ("rollback", "usdclp-7d", 3, 2)
    assert (last.by, last.reason, last.backup, last.error) == ("ana@desk", "too narrow", "/b.db", None)
    assert (rows[1].from_version, rows[1].error) == (None, "TrackingError: full")
    assert queries.run(any_store.client, old).window is None, "it has neither scores nor an origin"


# --- stores that are not there


def test_no_question_makes_a_store(tmp_path: Path) -> None:
    path = tmp_path / "data" / "mlflow" / "mlflow.db"
    with queries.existing_store(f"sqlite:///{path}") as client:
        assert client is None
    assert list(tmp_path.iterdir()) == []
    path.parent.mkdir(parents=True)
    path.touch()
    with queries.existing_store(f"sqlite:///{path}") as client:
        assert client is None
    assert path.stat().st_size == 0


def test_no_question_makes_tables(new_postgres: Callable[..., str]) -> None:
    from forex_core.databases import postgres

    uri = new_postgres()
    with queries.existing_store(uri) as client:
        assert client is None
    with postgres(uri) as database:
        assert database.execute("SELECT to_regclass('experiments')").fetchone() == (None,)


def test_an_empty_store_has_nothing(store: Store) -> None:
    with queries.existing_store(store.uri) as client:
        assert client is not None
        assert queries.experiments(client) == []
        assert queries.models(client) == []
        assert queries.runs(client, USDCLP, WEEK) == []
        with pytest.raises(InputError, match="no run begins"):
            queries.run(client, "abcd1234")


def test_a_file_that_is_no_database_is_a_tracking_error(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.write_text("these are notes, not a database" * 100)
    with pytest.raises(TrackingError, match="not a database"):  # noqa: SIM117
        with queries.existing_store(f"sqlite:///{path}"):
            pass
    assert path.read_text().startswith("these are notes")


def test_a_database_of_something_else_is_no_store_and_stays_so(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE experiments (what)")
        database.execute("CREATE TABLE notes (text)")
    before = path.read_bytes()
    with queries.existing_store(f"sqlite:///{path}") as client:
        assert client is None
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def ask_everything(uri: str, run_id: str) -> None:
    asked: list[Callable[[MlflowClient], object]] = [
        queries.experiments,
        queries.models,
        lambda c: queries.runs(c, USDCLP, WEEK),
        lambda c: queries.run(c, run_id[:8]),
        lambda c: queries.best_run(c, EXPERIMENT, "7d_rmse", loadable=True),
    ]
    for ask in asked:
        with queries.existing_store(uri) as client:
            assert client is not None
            assert ask(client)


def test_questions_leave_a_copy_as_it_is(store: Store, tmp_path: Path) -> None:
    """A copy of the database is one file, and may lie where its reader may not write."""
    run_id = store.run(1.0)
    store.version(run_id)
    store.model(run_id, tmp_path / "model", files=GOOD_FILES)
    folder = tmp_path / "backups"
    copy = copy_database(store.uri, folder / "copy.db").path
    before = copy.read_bytes()
    copy.chmod(0o444)
    folder.chmod(0o555)
    try:
        ask_everything(f"sqlite:///{copy}", run_id)
        assert list(folder.iterdir()) == [copy]
    finally:
        folder.chmod(0o755)
        release(f"sqlite:///{copy}")
    assert copy.read_bytes() == before


def test_questions_leave_the_store_as_it_is(store: Store, tmp_path: Path) -> None:
    run_id = store.run(1.0)
    store.version(run_id)
    store.model(run_id, tmp_path / "model", files=GOOD_FILES)

    def content() -> list[str]:
        with closing(sqlite3.connect(store.path)) as database:
            return list(database.iterdump())

    def files() -> set[Path]:
        return {path for path in store.path.parent.rglob("*") if path.suffix not in (".db-wal", ".db-shm")}

    before, there = content(), files()
    ask_everything(store.uri, run_id)
    assert content() == before
    assert files() == there
