"""The forecast flows on a real Prefect server and a real MLflow store."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from forex_core.config import load_settings
from forex_core.data.series import Definition, definition_of
from forex_core.errors import TrackingError
from forex_core.testing import synthetic_table
from forex_core.tracking import registry_from_settings
from forex_core.tracking.replay import replay
from forex_core.types import HORIZONS, Horizon

pytestmark = [pytest.mark.usefixtures("prefect_server", "kept_pictures"), pytest.mark.timeout(280)]

WEEK = Horizon(7)


def run_flow(horizon: Horizon, **parameters: Any) -> dict[str, Any]:
    from flows.forecast import FLOWS

    return FLOWS[horizon](**parameters)


def runs(tmp_path: Path, horizon: Horizon = WEEK) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path / 'data' / 'mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(f"forecaster_{horizon}")
    return list(client.search_runs([experiment.experiment_id])) if experiment else []


@pytest.mark.usefixtures("light")
def test_a_flow_publishes_logs_and_reports(market: Path, tmp_path: Path) -> None:
    document = run_flow(WEEK, pair="USDCLP", source="csv", paths=[market])
    (run,) = runs(tmp_path)
    assert run.info.run_id == document["run_id"]
    assert run.info.status == "FINISHED"
    assert re.fullmatch(r"forecast_\d{8}_\d{6}", run.info.run_name)
    metrics, params, tags = run.data.metrics, run.data.params, run.data.tags
    for member in ("random_walk", "theta", "var", "drivers"):
        assert metrics[f"{member}_rmse"] == pytest.approx(document["models"][member]["rmse"])
        assert metrics[f"{member}_mape"] == pytest.approx(document["models"][member]["mape_pct"])
        assert metrics[f"{member}_weight"] == pytest.approx(document["models"][member]["weight"])
    assert sum(metrics[f"{m}_weight"] for m in ("random_walk", "theta", "var", "drivers")) == pytest.approx(1)
    assert metrics["7d_rmse"] == pytest.approx(document["models"]["ensemble"]["rmse"])
    assert {"7d_crps", "7d_coverage_80", "7d_dm_pvalue", "7d_rmse_ratio_next_close"} <= set(metrics)
    assert params["usdclp_series_length"] == "900"
    assert params["copper_features_available"] == "True"
    assert float(params["forecast_mean"]) == pytest.approx(document["mean"][-1])
    assert tags["pair"] == "USDCLP"
    assert tags["horizon"] == "7d"
    assert tags["skip_email"] == "true"
    assert tags["prefect_flow_run_id"] != "none"
    assert "chronos" in document["failures"]
    assert "no weights" in tags["left_out.chronos"]
    folder = Path(document["report"]).parent
    written = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    stored = Path(run.info.artifact_uri.removeprefix("file://")) / "reports"
    logged = {p.relative_to(stored).as_posix() for p in stored.rglob("*") if p.is_file()}
    assert written == logged
    assert {"report.html", "forecast.csv", "forecast.json", "members.json", "snapshot.parquet"} <= logged
    assert json.loads((stored / "forecast.json").read_text())["run_id"] == run.info.run_id
    assert run.info.run_id in (folder / "report.html").read_text(encoding="utf-8")
    replayed = published_from(json.loads((stored / "members.json").read_text()))
    for at, level in enumerate(json.loads((stored / "members.json").read_text())["levels"]):
        assert replayed[:, at] == pytest.approx(document["quantiles"][str(level)], abs=1e-6)


@pytest.mark.usefixtures("light")
def test_the_weights_of_the_package_are_a_member_and_go_with_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default; a recomputation by the code that the run logged finds the same, with the weights beside it."""
    market = tmp_path / "market.csv"
    synthetic_table(900, start="2018-06-01").to_csv(market, index=False)
    monkeypatch.delenv("FOREX_CHRONOS")
    document = run_flow(WEEK, pair="USDCLP", source="csv", paths=[market])
    (run,) = runs(tmp_path)
    assert not document["failures"]
    assert run.data.metrics["chronos_weight"] > 0
    assert run.data.metrics["chronos_rmse"] == pytest.approx(document["models"]["chronos"]["rmse"])
    registry = registry_from_settings(load_settings())
    (version,) = registry.versions("usdclp-7d")
    folder = registry.folder(version)
    carried = {file.name for file in (folder / "code" / "forex_core" / "models" / "weights").iterdir()}
    assert carried == {"config.json", "training.json", "model.onnx"}
    found = replay(registry, run.info.run_id)
    assert [one.outcome for one in found.reproductions] == ["exact", "exact"]
    graph = folder / "code" / "forex_core" / "models" / "weights" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    with pytest.raises(TrackingError, match="not those that were registered"):
        registry.verified(version)


def published_from(record: dict[str, Any]) -> np.ndarray:
    """[H, Q] prices, as the stored record of the members says they came about."""
    middle = record["levels"].index(0.5)
    logs = np.log([member["raw"] for member in record["members"].values()])
    weights = np.array([member["weight"] for member in record["members"].values()])
    median = np.tensordot(weights, logs[:, :, middle], axes=1)
    spread = (logs - logs[:, :, [middle]]).mean(axis=0) * np.array(record["band_factors"])
    return np.exp(median[:, None] + np.sort(spread, axis=1))


@pytest.mark.slow
@pytest.mark.usefixtures("light")
def test_every_horizon_lands_in_its_own_experiment(market: Path, tmp_path: Path) -> None:
    medians = []
    for horizon in HORIZONS:
        document = run_flow(horizon, pair="USDCLP", source="csv", paths=[market])
        (run,) = runs(tmp_path, horizon)
        assert f"{horizon}_rmse" in run.data.metrics
        assert len(run.data.metrics) > 10
        medians.append(document["quantiles"]["0.5"])
    shortest = len(medians[0])
    assert all(path[:shortest] == medians[0] for path in medians), "horizons are slices of one path"


@pytest.mark.slow
@pytest.mark.usefixtures("light")
def test_the_same_data_are_published_once_unless_forced(market: Path, tmp_path: Path) -> None:
    day = date(2018, 6, 8)
    first = run_flow(WEEK, pair="USDCLP", source="csv", paths=[market], as_of=day)
    again = run_flow(WEEK, pair="USDCLP", source="csv", paths=[market], as_of=day)
    assert again["already_published"]
    assert again["run_id"] == first["run_id"]
    assert len(runs(tmp_path)) == 1
    forced = run_flow(WEEK, pair="USDCLP", source="csv", paths=[market], as_of=day, force=True)
    assert forced["run_id"] != first["run_id"]
    assert forced["changes"] == {"absent": {"kind": "first"}}, "the same again is not before itself"
    assert forced["quantiles"] == first["quantiles"]
    assert len(runs(tmp_path)) == 2


@pytest.mark.slow
@pytest.mark.usefixtures("light")
def test_of_a_quote_that_cannot_be_used_nothing_has_changed_either(market: Path) -> None:
    """It is years later than the last date that is forecast."""
    ask = {"pair": "USDCLP", "source": "csv", "paths": [market], "force": True}
    quote = 1.005 * float(pd.read_csv(market)["USDCLP"].iloc[-1])
    for _ in range(2):
        told = run_flow(WEEK, quote=quote, **ask)
        assert told["quote"]["absent"]["kind"] == "too_late"
        assert told["changes"] == {"absent": {"kind": "first"}}


@pytest.mark.slow
@pytest.mark.usefixtures("light")
def test_what_is_asked_for_beside_the_forecast_is_published_with_it(market: Path, tmp_path: Path) -> None:
    """Another position is another report; the same one is published once."""
    day = date(2018, 6, 8)
    flows = tmp_path / "flows.csv"
    flows.write_text("date,amount\n2018-06-12,100000\n2018-06-15,-50000\n")
    asked = {"budget_rate": 1000.0, "exposure": -2e6, "cash_flows": flows, "quote": 1005.0}
    bare = run_flow(WEEK, pair="USDCLP", source="csv", paths=[market], as_of=day)
    close = bare["origin_close"]
    asked |= {"budget_rate": 1.01 * close, "quote": 1.005 * close}
    told = run_flow(WEEK, pair="USDCLP", source="csv", paths=[market], as_of=day, **asked)
    assert bare["treasury"] is None
    assert bare["quote"]["absent"]["kind"] == "past_day"
    assert bare["changes"] == {"absent": {"kind": "first"}}
    assert told["run_id"] != bare["run_id"]
    assert told["quantiles"] == bare["quantiles"]
    assert told["treasury"]["exposure"]["side"] == "short"
    assert told["treasury"]["cash_flows"]["side"] == "mixed"
    assert told["quote"]["value"] == pytest.approx(1.005 * close)
    assert told["changes"]["run_id"] == bare["run_id"]
    assert told["changes"]["data"]["new_rows"] == 0
    assert told["changes"]["data"]["revised"] == []
    assert told["changes"]["median"]["before"] == told["changes"]["median"]["now"]
    again = run_flow(WEEK, pair="USDCLP", source="csv", paths=[market], as_of=day, **asked)
    assert again["already_published"]
    assert (again["run_id"], again["treasury"]) == (told["run_id"], told["treasury"])
    stored = json.loads((Path(told["report"]).parent / "forecast.json").read_text())
    assert stored["treasury"] == told["treasury"]
    tags = {run.info.run_id: run.data.tags["position"] for run in runs(tmp_path)}
    assert tags[bare["run_id"]] == "none"
    assert "2000000" not in tags[told["run_id"]]


@pytest.mark.slow
@pytest.mark.usefixtures("light")
def test_what_has_changed_is_told_since_the_forecast_of_the_day_before(market: Path, tmp_path: Path) -> None:
    """Whatever was made meanwhile of a day long past."""
    ask = {"pair": "USDCLP", "source": "csv", "paths": [market]}
    before = run_flow(WEEK, as_of=date(2018, 6, 7), **ask)
    long_ago = run_flow(WEEK, as_of=date(2018, 4, 10), **ask)
    assert long_ago["changes"] == {"absent": {"kind": "first"}}
    told = run_flow(WEEK, as_of=date(2018, 6, 8), **ask)
    assert told["changes"]["run_id"] == before["run_id"]
    assert told["changes"]["data"]["new_rows"] == 1
    same = run_flow(WEEK, as_of=date(2018, 6, 8), force=True, **ask)
    assert same["changes"]["run_id"] == before["run_id"], "of itself nothing has changed"
    assert same["changes"]["median"] == told["changes"]["median"]
    quote = 1.005 * told["origin_close"]
    quoted = run_flow(WEEK, as_of=date(2018, 6, 8), quote=quote, **ask)
    assert quoted["changes"]["run_id"] == same["run_id"]
    at_stake = run_flow(WEEK, as_of=date(2018, 6, 8), quote=quote, exposure=1e6, **ask)
    assert at_stake["changes"]["run_id"] == same["run_id"]
    (kept,) = tmp_path.glob(f"data/mlflow/**/{at_stake['run_id']}/artifacts/reports/forecast.json")
    kept.unlink()
    again = run_flow(WEEK, as_of=date(2018, 6, 11), **ask)
    assert again["changes"] == {"absent": {"kind": "unreadable", "run_id": at_stake["run_id"]}}


@pytest.mark.slow
@pytest.mark.usefixtures("light")
@pytest.mark.parametrize(
    ("altered", "is_readable"),
    [
        ({"band": 0.99}, True),
        ({"quote": "x"}, True),
        ({"quote": ["x"]}, True),
        ({"quantiles": [1]}, False),
        ({"quantiles": {"0.5": 1}}, False),
    ],
)
def test_what_has_another_band_or_was_altered_is_not_the_same_forecast(
    market: Path, tmp_path: Path, altered: dict[str, Any], is_readable: bool
) -> None:
    ask = {"pair": "USDCLP", "source": "csv", "paths": [market], "as_of": date(2018, 6, 8)}
    before = run_flow(WEEK, **ask)
    (kept,) = tmp_path.glob(f"data/mlflow/**/{before['run_id']}/artifacts/reports/forecast.json")
    document = json.loads(kept.read_text())
    if "band" in altered:
        low = [altered["band"] * value for value in document["quantiles"]["0.1"]]
        altered = {"quantiles": document["quantiles"] | {"0.1": low}}
    kept.write_text(json.dumps(document | altered))
    changes = run_flow(WEEK, force=True, **ask)["changes"]
    if is_readable:
        assert changes["run_id"] == before["run_id"]
        assert changes["median"]["before"] == changes["median"]["now"]
    else:
        assert changes == {"absent": {"kind": "unreadable", "run_id": before["run_id"]}}


@pytest.mark.slow
@pytest.mark.usefixtures("light")
def test_the_settings_say_what_is_at_stake_in_their_pair(
    market: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREX_PAIR", "USDCLP")
    monkeypatch.setenv("FOREX_TREASURY__BUDGET_RATE", "1000")
    monkeypatch.setenv("FOREX_TREASURY__EXPOSURE", "5e5")
    told = run_flow(WEEK, source="csv", paths=[market])["treasury"]
    assert told["budget_rate"] == 1000.0
    assert told["exposure"]["amount"] == 500_000.0
    without = run_flow(WEEK, source="csv", paths=[market], exposure=0)["treasury"]
    assert (without["budget_rate"], without["exposure"]) == (1000.0, None)
    other = tmp_path / "other.csv"
    pd.read_csv(market).rename(columns={"USDCLP": "EURCLP"}).to_csv(other, index=False)
    assert run_flow(WEEK, pair="EURCLP", source="csv", paths=[other])["treasury"] is None


@pytest.mark.usefixtures("light")
def test_a_position_that_cannot_be_is_refused_and_recorded(market: Path, tmp_path: Path) -> None:
    from forex_core.errors import InputError

    flows = tmp_path / "flows.csv"
    flows.write_text("date,amount\n2031-01-02,100000\n")
    for asked, said in (
        ({"cash_flows": flows}, "outside the horizon"),
        ({"quote": 9.0}, "the quote 9 is not within"),
        ({"budget_rate": 9.0}, "the budget rate 9 is"),
    ):
        with pytest.raises(InputError, match=said):
            run_flow(WEEK, pair="USDCLP", source="csv", paths=[market], **asked)
    assert {run.info.status for run in runs(tmp_path)} == {"FAILED"}


@pytest.mark.usefixtures("light")
def test_the_same_data_on_a_later_day_are_older_and_published_again(market: Path, tmp_path: Path) -> None:
    last = pd.read_csv(market).Date.iloc[-1]
    fresh = run_flow(WEEK, pair="USDCLP", source="csv", paths=[market], as_of=date.fromisoformat(last))
    stale = run_flow(WEEK, pair="USDCLP", source="csv", paths=[market])
    assert stale["fingerprint"] == fresh["fingerprint"]
    assert stale["run_id"] != fresh["run_id"]
    assert "stale" not in {r["kind"] for r in fresh["repairs"]}
    assert "stale" in {r["kind"] for r in stale["repairs"]}


@pytest.mark.slow
@pytest.mark.usefixtures("light")
def test_a_named_output_gets_the_runs_files_and_gives_none(market: Path, tmp_path: Path) -> None:
    """What lies in the folder already is left alone: not logged, not removed, never taken for the run's report."""
    output = tmp_path / "out"
    output.mkdir()
    (output / "private.txt").write_text("mine")
    first = run_flow(WEEK, pair="USDCLP", source="csv", paths=[market], output=output)
    assert Path(first["report"]) == output / "report.html"
    assert json.loads((output / "forecast.json").read_text())["report"] == first["report"]
    other = run_flow(Horizon(15), pair="USDCLP", source="csv", paths=[market], output=output)
    again = run_flow(WEEK, pair="USDCLP", source="csv", paths=[market])
    assert other["run_id"] in (output / "report.html").read_text(encoding="utf-8")
    assert first["run_id"] in Path(again["report"]).read_text(encoding="utf-8")
    (run,) = runs(tmp_path)
    stored = Path(run.info.artifact_uri.removeprefix("file://"))
    assert "private.txt" not in {p.name for p in stored.rglob("*")}
    assert (output / "private.txt").read_text() == "mine"


@pytest.mark.usefixtures("light")
def test_a_pair_that_is_none_leaves_a_failed_run(tmp_path: Path) -> None:
    from forex_core.errors import InputError

    with pytest.raises(InputError):
        run_flow(WEEK, pair="DOLLARS")
    (run,) = runs(tmp_path)
    assert run.info.status == "FAILED"


@pytest.mark.usefixtures("light")
def test_a_failure_fails_the_flow_and_leaves_a_failed_run(market: Path, tmp_path: Path) -> None:
    from forex_core.errors import InputError

    with pytest.raises(InputError, match="before the data"):
        run_flow(WEEK, pair="USDCLP", source="csv", paths=[market], as_of=date(2001, 1, 1))
    (run,) = runs(tmp_path)
    assert run.info.status == "FAILED"
    assert run.data.tags["error_type"] == "InputError"
    assert "before the data" in run.data.tags["error_message"]
    assert run.data.tags["pair"] == "USDCLP"


@pytest.mark.usefixtures("light")
@pytest.mark.slow
def test_records_and_the_result_reach_prefect(market: Path, tmp_path: Path) -> None:
    """By a process of its own, as a worker runs it."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.sorting import ArtifactSort
    from prefect.settings import PREFECT_API_URL

    answer = tmp_path / "answer.json"
    code = """
import json, sys
from pathlib import Path
from flows.forecast import FLOWS
from forex_core.types import Horizon
document = FLOWS[Horizon(7)](pair="USDCLP", source="csv", paths=[Path(sys.argv[1])])
Path(sys.argv[2]).write_text(json.dumps(document))
"""
    told = {"PREFECT_API_URL": str(PREFECT_API_URL.value()), "PREFECT_LOGGING_TO_API_ENABLED": "true"}
    subprocess.run(
        [sys.executable, "-c", code, str(market), str(answer)],
        env=os.environ | told,
        cwd=Path(__file__).parents[2],
        check=True,
        capture_output=True,
    )
    document = json.loads(answer.read_text())
    with get_client(sync_client=True) as client:
        logged = _wait_for_log(client, "member chronos left out")
        artifacts = client.read_artifacts(sort=ArtifactSort.CREATED_DESC)
    assert logged.task_run_id is not None, "attributed to the task that made the record"
    (artifact,) = [
        a for a in artifacts if a.key == "forecast-usdclp-7d" and document["run_id"] in str(a.data)
    ]
    assert document["verdict"]["sentence"] in str(artifact.data)
    assert document["report"] in str(artifact.data)


def _wait_for_log(client: Any, text: str) -> Any:
    """The first log record with `text`; records are sent in batches, some seconds after they are made."""
    from prefect.client.schemas.filters import LogFilter, LogFilterLevel
    from prefect.client.schemas.sorting import LogSort

    warnings = LogFilter(level=LogFilterLevel(ge_=30))  # the server has the records of other tests as well
    until = time.monotonic() + 120
    while time.monotonic() < until:
        newest = client.read_logs(warnings, sort=LogSort.TIMESTAMP_DESC)
        found = [record for record in newest if text in record.message]
        if found:
            return found[0]
        time.sleep(0.2)
    raise AssertionError(f"no log record with '{text}' reached the server")


def test_only_an_unreachable_source_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect import flow

    import flows.forecast as module
    from forex_core.config import load_settings
    from forex_core.data import loading
    from forex_core.errors import SourceError, SourceUnavailable

    calls = []

    class Flaky:
        """Stands for a source across a network: unreachable at first, then without the pair."""

        name = "flaky"

        def spot_definition(self, pair: object) -> Definition:
            return definition_of(str(pair))

        def load(self, pair: object, instant: object) -> None:
            calls.append(pair)
            raise SourceUnavailable("gone") if len(calls) == 1 else SourceError("no such pair")

    monkeypatch.setattr(loading, "provider", lambda *_: Flaky())

    @flow
    def only_load() -> None:
        module.load.with_options(retry_delay_seconds=0)(load_settings(), None)

    with pytest.raises(SourceError):
        only_load()
    assert len(calls) == 2
