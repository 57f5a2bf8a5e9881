"""Runs made again, on a real SQLite store: exact where nothing changed, and what changed is named where it did."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from forex_core.config import ChronosConfig, EngineConfig
from forex_core.data.snapshot import read_snapshot, write_snapshot
from forex_core.engine import Engine, build_members
from forex_core.errors import InputError
from forex_core.report.document import forecast_document, replay_record
from forex_core.specification import Specification, carry_code, frame_of, paths_of
from forex_core.testing import synthetic_bundle
from forex_core.tracking import MLflowTracker, Record
from forex_core.tracking.packaging import MODEL, save_model
from forex_core.tracking.registry import Registry, model_name
from forex_core.tracking.replay import Replay, Reproduction, replay
from forex_core.types import LEVELS, Forecast, ForecastRun, Horizon, MarketBundle, Pair

WEEK = Horizon(7)
CONFIG = EngineConfig(members=("random_walk", "theta", "var", "drivers"), grid_origins=60, warmup_origins=8)
CHRONOS = ChronosConfig()
NAME = "usdclp-7d"


@dataclass
class Store:
    """A store, and how forecast runs get into it."""

    root: Path

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.root / 'mlflow.db'}"

    @property
    def files(self) -> Path:
        return self.root / "mlruns"

    @property
    def registry(self) -> Registry:
        return Registry(self.uri)

    def publish(
        self,
        run: ForecastRun,
        bundle: MarketBundle,
        specification: Specification | None = None,
        *,
        published: int | None = None,
        code: Path | None = None,
        without: tuple[str, ...] = (),
    ) -> tuple[str, int]:
        """Log `run` as a forecast flow does; returns the run's id and the version of the model that it made.

        Args:
            specification: of the model that the run made; by default of `run`.
            published: the version whose forecast it is, by default the run's own.
            code: what the model carries, by default the code that is running.
            without: tags that an older run does not have.
        """
        specification = specification or Specification.of(run, bundle, CONFIG, CHRONOS)
        forecast = run.forecast
        tracker = MLflowTracker(self.uri, "forecaster_7d", artifact_location=self.files.as_uri())
        scratch = self.root / "scratch"
        reports = scratch / "reports"
        reports.mkdir(parents=True)
        with tracker:
            run_id = tracker.start_run()
            document = forecast_document(run, bundle, run_id, reports / "report.html")
            (reports / "forecast.json").write_text(json.dumps(document))
            (reports / "members.json").write_text(json.dumps(replay_record(run)))
            write_snapshot(bundle, reports / "snapshot.parquet")
            tracker.log_artifacts_dir(reports, "reports")
            folder = save_model(specification, frame_of(bundle), scratch / "model")
            if code is not None:
                shutil.rmtree(folder / "code")
                shutil.copytree(code, folder / "code")
            address = tracker.log_model(folder, MODEL)
            version = self.registry.register_model(
                model_name(bundle.pair, WEEK), str(address), tags={"recipe": specification.recipe}
            )
            tags = {
                "pair": str(bundle.pair),
                "rate": bundle.rate,
                "horizon": str(WEEK),
                "published_model": NAME,
                "published_version": str(published or version.number),
                "published_recipe": run.recipe,
                "published_digest": forecast.digest,
            }
            params = {
                "fingerprint": run.fingerprint,
                "known_when": bundle.known_when,
                "origin": forecast.origin.isoformat(),
                "forecast_mean": f"{forecast.mean[-1]:.10g}",
                "forecast_std": f"{forecast.std[-1]:.10g}",
            }
            kept = {name: value for name, value in tags.items() if name not in without}
            tracker.log(Record(params=params, tags=kept))
        shutil.rmtree(scratch)
        return run_id, version.number

    def reports(self, run_id: str) -> Path:
        return self.files / "forecaster_7d" / run_id / "artifacts" / "reports"

    def model(self, number: int) -> Path:
        return self.registry.folder(self.registry.version(NAME, number))

    def delete_forecast(self, run_id: str) -> None:
        for name in ("forecast.json", "members.json"):
            (self.reports(run_id) / name).unlink()

    def replay(self, run_id: str) -> Replay:
        return replay(self.registry, run_id)

    def stored(self, run_id: str) -> Reproduction:
        return replay(self.registry, run_id, ("stored",)).reproductions[0]

    def recomputed(self, run_id: str) -> Reproduction:
        return replay(self.registry, run_id, ("recomputed",)).reproductions[0]


@dataclass
class Published:
    """Two days of one model: the first made version 1, the second published version 1 and made version 2."""

    store: Store
    own: str
    pinned: str
    other_machine: str
    far_away: str
    untagged: str


@pytest.fixture(scope="module")
def market() -> MarketBundle:
    return synthetic_bundle(700)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, market: MarketBundle) -> Published:
    store = Store(tmp_path_factory.mktemp("store"))
    engine = Engine(CONFIG, build_members(CONFIG, CHRONOS))
    earlier = market.until(market.instants[-30])
    first = engine.forecast(earlier, WEEK)
    own, version = store.publish(first, earlier)
    paths = engine.paths(market, engine.rows_behind(market))
    new = paths.run(WEEK)
    pinned, _ = store.publish(
        paths.run(WEEK, first.state),
        market,
        Specification.of(new, market, CONFIG, CHRONOS),
        published=version,
    )
    other_machine, _ = store.publish(scaled(first, 1 + 3e-7), earlier)
    far_away, _ = store.publish(scaled(first, 1 + 3e-5), earlier)
    untagged, _ = store.publish(
        first,
        earlier,
        without=("published_digest", "published_model", "published_version", "published_recipe"),
    )
    return Published(store, own, pinned, other_machine, far_away, untagged)


@pytest.fixture(scope="module")
def kept(made: Published) -> Path:
    """The files of the runs as they were written."""
    return Path(shutil.copytree(made.store.files, made.store.root / "kept"))


@pytest.fixture
def published(made: Published, kept: Path) -> Iterator[Published]:
    """The runs, whose files a test may alter: what it altered is put back."""
    before = stamps(made.store.files)
    yield made
    after = stamps(made.store.files)
    for name in after.keys() - before.keys():
        (made.store.files / name).unlink()
    for name in before.keys() - {name for name, stamp in after.items() if before.get(name) == stamp}:
        (made.store.files / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(kept / name, made.store.files / name)


def stamps(folder: Path) -> dict[str, tuple[int, int, int]]:
    """What changes with every write of a file, by its place in the folder."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            state = path.stat()
            found[path.relative_to(folder).as_posix()] = (state.st_ino, state.st_mtime_ns, state.st_size)
    return found


@pytest.fixture(scope="module")
def untouched(made: Published, kept: Path) -> Reproduction:
    """The first run, computed again before anything of it was altered."""
    return made.store.recomputed(made.own)


def scaled(run: ForecastRun, factor: float) -> ForecastRun:
    """What another processor would have published: every answer off by a little."""
    return replace(
        run,
        forecast=replace(run.forecast, quantiles=run.forecast.quantiles * factor),
        members=tuple(replace(m, raw=m.raw * factor, calibrated=m.calibrated * factor) for m in run.members),
    )


def alter_snapshot(
    path: Path, column: str, row: int, value: Callable[[float], float], *, refingerprint: bool = False
) -> None:
    """One value altered, the description of the file kept, or made to agree with the altered value."""
    table = pq.read_table(path)
    columns = {name: table[name].to_numpy().copy() for name in table.column_names}
    columns[column][row] = value(columns[column][row])
    pq.write_table(pa.table(columns).replace_schema_metadata(table.schema.metadata), path)
    if refingerprint:
        from forex_core.data.snapshot import inspect_snapshot

        write_snapshot(inspect_snapshot(path)[0], path)


def alter_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def alter_specification(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    alter_json(folder / "artifacts" / "specification.json", change)


def causes(found: Reproduction) -> str:
    return "; ".join(found.causes)


def forecast_of(price: float, more: float = 0.0) -> Forecast:
    day = date(2024, 6, 28)
    quantiles = price * np.exp(np.linspace(-0.1, 0.1, len(LEVELS)))[None] + more
    return Forecast(Pair("USD", "CLP"), day, (date(2024, 7, 1),), (1,), LEVELS, quantiles)


@pytest.mark.parametrize(
    ("price", "step"), [(954.13, 1e-6), (1.0875, 1e-6), (0.0067, 1e-9), (6.13e-05, 1e-11)]
)
def test_a_digest_tells_rounded_prices_apart(price: float, step: float) -> None:
    plain = forecast_of(price)
    exact = replace(plain, quantiles=plain.rounded)
    assert plain.digest == exact.digest
    assert replace(exact, quantiles=exact.quantiles + step / 4).digest == exact.digest
    assert replace(exact, quantiles=exact.quantiles + step).digest != exact.digest


def test_a_digest_covers_what_the_prices_are_of() -> None:
    plain = forecast_of(954.13)
    others = (
        replace(plain, pair=Pair("EUR", "CLP")),
        replace(plain, origin=date(2024, 6, 27)),
        replace(plain, target_dates=(date(2024, 7, 2),)),
        replace(plain, levels=(0.005, *LEVELS[1:])),
    )
    assert len({plain.digest, *(other.digest for other in others)}) == 5


def test_a_digest_has_one_zero() -> None:
    plain = forecast_of(954.13)
    quantiles = plain.quantiles.copy()
    quantiles[0, 0] = 0.0
    negative = quantiles.copy()
    negative[0, 0] = -1e-9
    assert replace(plain, quantiles=quantiles).digest == replace(plain, quantiles=negative).digest


def test_a_run_is_replayed_exactly_at_both_levels(published: Published) -> None:
    told: list[str] = []
    found = replay(
        published.store.registry, published.own[:8], advance=lambda stage, done, total: told.append(stage)
    )
    assert found.run_id == published.own
    assert found.holds
    assert [one.level for one in found.reproductions] == ["stored", "recomputed"]
    for one in found.reproductions:
        assert (one.outcome, one.compared_with, one.causes) == ("exact", "reports/forecast.json", ())
        assert one.numbers % len(LEVELS) == 0
        assert one.numbers > 0
        assert one.learned is None
    assert found.model == "usdclp-7d version 1, made by the run"
    assert told == ["reading what was published", "from stored answers", "computing again", "done"]


def test_no_cached_answer_is_used(published: Published, tmp_path: Path) -> None:
    assert published.store.recomputed(published.own).outcome == "exact"
    assert not list(tmp_path.rglob("*.answers"))


def test_a_deleted_forecast_leaves_its_digest_to_compare_with(published: Published) -> None:
    (published.store.reports(published.own) / "forecast.json").unlink()
    for one in published.store.replay(published.own).reproductions:
        assert one.outcome == "exact"
        assert one.compared_with == ("the tag published_digest, as the run has no reports/forecast.json")


def test_it_is_recomputed_without_any_file_of_the_forecast(published: Published) -> None:
    for run_id in (published.own, published.pinned):
        published.store.delete_forecast(run_id)
        found = published.store.replay(run_id)
        stored, recomputed = found.reproductions
        assert recomputed.outcome == "exact"
        assert (stored.outcome, stored.causes) == ("impossible", ("the run has no reports/members.json",))
        assert not found.holds


def test_without_a_digest_the_params_are_compared(published: Published) -> None:
    store, run_id = published.store, published.untagged
    assert store.replay(run_id).holds
    store.delete_forecast(run_id)
    found = store.recomputed(run_id)
    assert (found.outcome, found.numbers) == ("exact", 2)
    assert "forecast_mean and forecast_std (10 digits of the last step)" in str(found.compared_with)
    alter_snapshot(store.reports(run_id) / "snapshot.parquet", "spot", -1, lambda v: v * 1.001)
    found = store.recomputed(run_id)
    assert found.outcome == "different"
    assert found.largest is not None
    assert found.largest.what in ("mean", "std")


@pytest.mark.parametrize("deleted", [False, True], ids=["beside the forecast", "by its digest"])
@pytest.mark.parametrize(
    ("column", "row"),
    [
        ("spot", -1),
        ("spot", 320),
        ("spot", 640),
        ("driver.Copper", -2),
        ("driver.Copper", 400),
        ("truth", 500),
    ],
)
def test_one_altered_value_of_the_data_is_reported(
    untouched: Reproduction, published: Published, column: str, row: int, deleted: bool
) -> None:
    store, run_id = published.store, published.own
    alter_snapshot(store.reports(run_id) / "snapshot.parquet", column, row, lambda v: v * 1.01)
    if deleted:
        store.delete_forecast(run_id)
    found = store.recomputed(run_id)
    assert (untouched.outcome, found.outcome) == ("exact", "different")
    assert not found.holds
    assert found.numbers > 0
    assert found.largest is not None
    assert found.largest.relative > 1e-9
    assert "reports/snapshot.parquet was altered: its content has the fingerprint" in causes(found)
    assert store.stored(run_id).holds or deleted


def test_altered_data_that_no_number_shows_are_reported_all_the_same(published: Published) -> None:
    store, run_id = published.store, published.own
    path = store.reports(run_id) / "snapshot.parquet"
    alter_snapshot(path, "truth_known", 3, lambda v: v + 1)
    found = store.recomputed(run_id)
    assert (found.outcome, found.largest) == ("different", None)
    assert "altered: its record of when each row was known is" in causes(found)


def test_altered_data_with_a_fingerprint_of_their_own_are_not_the_runs(published: Published) -> None:
    store, run_id = published.store, published.pinned
    path = store.reports(run_id) / "snapshot.parquet"
    alter_snapshot(path, "spot", -1, lambda v: np.nextafter(v, np.inf), refingerprint=True)
    found = store.recomputed(run_id)
    assert found.outcome == "different"
    assert "the run was made from" in causes(found)


@pytest.mark.parametrize(
    ("told", "change"),
    [
        ("record of when each row was known", {"as_of": pd.Timedelta(hours=1)}),
        ("record of when each row was known", {"instants": pd.Timedelta(minutes=-1)}),
        ("record of when each row was known", {"truth_known": 1}),
        ("rate", {"rate": "observed"}),
    ],
)
def test_a_snapshot_written_anew_with_other_times_or_another_rate_is_not_the_runs(
    published: Published, told: str, change: dict[str, Any]
) -> None:
    """The numbers may come out the same, and all that the file says of itself agrees."""
    store, run_id = published.store, published.pinned
    path = store.reports(run_id) / "snapshot.parquet"
    bundle = read_snapshot(path)
    (name, by), *_ = change.items()
    write_snapshot(replace(bundle, **{name: by if name == "rate" else getattr(bundle, name) + by}), path)
    found = store.recomputed(run_id)
    assert found.outcome == "different"
    assert f"altered: its {told} is" in causes(found)


@pytest.mark.parametrize("value", [np.nan, 0.0, -700.0, np.inf])
@pytest.mark.parametrize("row", [-1, 400])
def test_a_value_that_is_no_price_is_reported(published: Published, value: float, row: int) -> None:
    store, run_id = published.store, published.own
    alter_snapshot(store.reports(run_id) / "snapshot.parquet", "spot", row, lambda _: value)
    found = store.recomputed(run_id)
    assert not found.holds
    assert "snapshot.parquet was altered" in found.causes[0]


def test_data_that_cannot_be_read_are_one_clear_reason(published: Published) -> None:
    store, run_id = published.store, published.own
    path = store.reports(run_id) / "snapshot.parquet"
    path.write_bytes(path.read_bytes()[:1000])
    found = store.replay(run_id)
    stored, recomputed = found.reproductions
    assert stored.outcome == "exact"
    assert recomputed.outcome == "impossible"
    assert "is not a data snapshot of a run" in causes(recomputed)
    path.unlink()
    assert causes(store.recomputed(run_id)) == (
        "the run has no reports/snapshot.parquet; restore it from a backup"
    )


def test_altered_answers_are_told_from_an_altered_forecast(published: Published) -> None:
    store, run_id = published.store, published.own

    def raise_median(document: dict[str, Any]) -> None:
        document["quantiles"]["0.5"][0] += 2e-6

    def raise_weight(document: dict[str, Any]) -> None:
        document["members"]["theta"]["weight"] += 1e-4
        document["members"]["random_walk"]["weight"] -= 1e-4

    path = store.reports(run_id) / "members.json"
    before = path.read_text()
    alter_json(path, raise_weight)
    found = store.replay(run_id)
    stored, recomputed = found.reproductions
    assert (stored.outcome, recomputed.outcome) == ("different", "exact")
    assert stored.largest is not None
    assert stored.largest.relative < 1e-5, "nothing of another machine excuses even a small difference"
    assert "reports/members.json was altered after the run" in causes(stored)
    path.write_text(before)

    alter_json(store.reports(run_id) / "forecast.json", raise_median)
    for one in store.replay(run_id).reproductions:
        assert one.outcome == "different"
        assert one.largest is not None
        assert (one.largest.what, one.largest.level) == ("quantile", 0.5)
        assert one.largest.stored - one.largest.again == pytest.approx(2e-6, rel=1e-3)
        assert "reports/forecast.json was altered after the run" in causes(one)
        assert "the forecast made again has it" in causes(one)


@pytest.mark.parametrize("name", ["forecast.json", "members.json"])
@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"levels": [0.5], "members": {}, "band_factors": [[1]]}'])
def test_a_broken_file_is_named(published: Published, name: str, text: str) -> None:
    store, run_id = published.store, published.own
    (store.reports(run_id) / name).write_text(text)
    stored, recomputed = store.replay(run_id).reproductions
    assert recomputed.outcome == "exact"
    assert f"reports/{name} cannot be read" in causes(stored) + str(stored.compared_with)


def test_answers_that_make_no_forecast_are_refused(published: Published) -> None:
    def spoil(document: dict[str, Any]) -> None:
        document["members"]["theta"]["raw"][0][0] = -1.0

    alter_json(published.store.reports(published.own) / "members.json", spoil)
    found = published.store.stored(published.own)
    assert found.outcome == "impossible"
    assert "makes no forecast" in causes(found)


def test_altered_weights_of_what_a_run_learned_are_named(published: Published) -> None:
    def shift(document: dict[str, Any]) -> None:
        document["state"]["weights"]["theta"] += 1e-3
        document["state"]["weights"]["random_walk"] -= 1e-3

    alter_specification(published.store.model(1), shift)
    found = published.store.recomputed(published.own)
    assert found.outcome == "different"
    assert found.largest is None, "the run learned its own weights again"
    assert found.learned is not None
    assert found.learned.what in ("weight of theta", "weight of random_walk")
    assert found.learned.relative == pytest.approx(1e-3)
    assert f"the specification does not hold what was learned: {found.learned.what}" in causes(found)


@pytest.mark.parametrize(
    ("library", "shift", "outcome"),
    [
        ("same", 1e-7, "close"),
        ("same", 1e-4, "different"),
        ("another", 1e-4, "close"),
        ("another", 1e-2, "different"),
    ],
)
def test_weights_learned_elsewhere_may_differ_by_more(
    published: Published, library: str, shift: float, outcome: str
) -> None:
    def change(document: dict[str, Any]) -> None:
        document["state"]["weights"]["theta"] += shift
        document["state"]["weights"]["random_walk"] -= shift
        if library == "another":
            document["libraries"]["scipy"] = "0.1"

    alter_specification(published.store.model(1), change)
    found = published.store.recomputed(published.own)
    assert found.outcome == outcome
    assert found.learned is not None
    assert found.learned.relative == pytest.approx(shift, rel=1e-3)
    assert (outcome == "different") == ("does not hold what was learned" in causes(found))


def test_weights_that_are_none_are_named(published: Published) -> None:
    alter_specification(
        published.store.model(1), lambda document: document["state"]["weights"].update(theta=0.9)
    )
    stored, recomputed = published.store.replay(published.own).reproductions
    assert (stored.outcome, recomputed.outcome) == ("exact", "impossible")
    assert "this is no specification of a model" in causes(recomputed)


def test_altered_factors_of_what_a_run_learned_are_named(published: Published) -> None:
    def widen(document: dict[str, Any]) -> None:
        document["state"]["factors"][2][3] *= 1 + 1e-4

    alter_specification(published.store.model(1), widen)
    found = published.store.recomputed(published.own)
    assert found.outcome == "different"
    assert found.learned is not None
    assert (found.learned.what, found.learned.level) == ("band factor of step 3", LEVELS[3])


def test_a_pinned_model_is_replayed_with_the_weights_of_its_day(published: Published) -> None:
    found = published.store.replay(published.pinned)
    assert [one.outcome for one in found.reproductions] == ["exact", "exact"]
    assert found.model == "usdclp-7d version 1"


@pytest.mark.parametrize("part", ["weights", "factors"])
def test_an_altered_state_of_a_pinned_model_is_named(published: Published, part: str) -> None:
    def change(document: dict[str, Any]) -> None:
        if part == "factors":
            document["state"]["factors"][0] = [f * 1.1 for f in document["state"]["factors"][0]]
        else:
            document["state"]["weights"] |= {"theta": 1.0, "random_walk": 0.0, "drivers": 0.0, "var": 0.0}

    alter_specification(published.store.model(1), change)
    found = published.store.recomputed(published.pinned)
    assert found.outcome == "different"
    assert found.largest is not None
    named = "weights are not those of" if part == "weights" else "band factors are not those of"
    assert named in causes(found)
    # The files of version 1 were altered, not what the run of the day recorded.
    assert published.store.stored(published.pinned).outcome == "exact"


def test_the_files_of_another_model_are_not_taken_for_it(published: Published) -> None:
    published.store.delete_forecast(published.pinned)
    alter_specification(published.store.model(1), lambda document: document.update(horizon="15d"))
    found = published.store.recomputed(published.pinned)
    assert found.outcome == "different"
    assert "are of USDCLP 15d, the run is of USDCLP 7d" in causes(found)


def test_another_recipe_than_the_run_says_is_named(published: Published) -> None:
    client = published.store.registry.client
    recipe = client.get_run(published.own).data.tags["published_recipe"]
    client.set_tag(published.own, "published_recipe", "0" * 64)
    try:
        found = published.store.recomputed(published.own)
    finally:
        client.set_tag(published.own, "published_recipe", recipe)
    assert (found.outcome, found.largest) == ("different", None)
    assert f"are of recipe {recipe[:12]}, the run published {'0' * 12}" in causes(found)


def test_a_model_that_is_gone_is_named(published: Published) -> None:
    shutil.rmtree(published.store.model(1))
    found = published.store.recomputed(published.pinned)
    assert found.outcome == "impossible"
    assert "the files of version 1 of usdclp-7d are not at" in causes(found)
    assert published.store.stored(published.pinned).outcome == "exact"


def test_another_library_and_processor_are_named_though_nothing_differs(published: Published) -> None:
    def elsewhere(document: dict[str, Any]) -> None:
        document["libraries"] |= {"numpy": "1.0", "torch": "0.1"}
        document["processor"] = "vendor_id : Other\nflags : fpu sse2 avx999\n"

    alter_specification(published.store.model(1), elsewhere)
    found = published.store.recomputed(published.own)
    assert found.outcome == "exact"
    assert f"library numpy was 1.0, is {np.__version__}" in found.causes
    assert "torch" not in causes(found), "no member of this recipe uses it"
    assert "other kernels of it: vendor_id Other then" in causes(found)
    assert "avx999 then and not now" in causes(found)


def test_a_small_difference_is_close_and_its_cause_named(published: Published) -> None:
    def elsewhere(document: dict[str, Any]) -> None:
        document["libraries"]["statsmodels"] = "0.1"

    store, run_id = published.store, published.other_machine
    found = store.replay(run_id)
    stored, recomputed = found.reproductions
    assert (stored.outcome, recomputed.outcome) == ("exact", "close")
    assert found.holds
    assert recomputed.largest is not None
    assert recomputed.largest.relative == pytest.approx(3e-7, rel=0.01)
    assert recomputed.largest.target_date is not None
    assert recomputed.largest.level in LEVELS
    assert "answers of members are not those of reports/members.json: " in causes(recomputed)

    alter_specification(store.registry.folder(store.registry.version(NAME, 3)), elsewhere)
    assert "library statsmodels was 0.1" in causes(store.recomputed(run_id))

    store.delete_forecast(run_id)
    found_again = store.recomputed(run_id)
    assert found_again.outcome == "close"
    assert found_again.largest is not None
    assert found_again.largest.relative == pytest.approx(3e-7, rel=0.01)
    assert str(found_again.compared_with).startswith("the tag published_digest")
    assert "it is another one" in str(found_again.compared_with)


def test_a_difference_without_a_cause_says_that_none_was_found(published: Published) -> None:
    published.store.delete_forecast(published.other_machine)
    assert causes(published.store.recomputed(published.other_machine)).startswith("none found: ")


def test_settings_of_numerical_libraries_are_named(
    published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Prescott")
    found = published.store.recomputed(published.own)
    assert re.search(r"OPENBLAS_CORETYPE \w+ then, Prescott now", causes(found))


def test_settings_of_numerical_libraries_that_are_as_they_were_are_no_cause(
    published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine may have such a variable always; what `published` was made with is what is set here now."""
    assert published.store.recomputed(published.own).causes == ()
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    assert "ONEDNN_MAX_CPU_ISA none then, SSE41 now" in causes(published.store.recomputed(published.own))


@pytest.mark.slow
def test_on_other_kernels_it_is_close_and_the_variable_named(published: Published, tmp_path: Path) -> None:
    """What stands for another processor: code paths of the linear algebra that another one would take."""
    surroundings = os.environ | {
        "FOREX_TRACKING_URI": published.store.uri,
        "FOREX_ARTIFACT_URI": published.store.files.as_uri(),
        "OPENBLAS_CORETYPE": "Prescott",
    }
    command = [sys.executable, "-m", "forex_core.cli", "replay", published.own, "--json"]
    done = subprocess.run(command, env=surroundings, capture_output=True, text=True, check=True)
    stored, recomputed = json.loads(done.stdout)["levels"].values()
    assert stored["outcome"] == "exact"
    assert recomputed["outcome"] in ("exact", "close")
    assert any("Prescott now" in cause for cause in recomputed["causes"])


def test_past_the_tolerance_a_run_is_not_replayed(published: Published) -> None:
    stored, recomputed = published.store.replay(published.far_away).reproductions
    assert (stored.outcome, recomputed.outcome) == ("exact", "different")
    assert recomputed.largest is not None
    assert recomputed.largest.relative == pytest.approx(3e-5, rel=0.01)


def test_other_target_dates_are_told(published: Published) -> None:
    def another_day(document: dict[str, Any]) -> None:
        document["target_dates"][-1] = "2030-01-01"

    alter_json(published.store.reports(published.own) / "forecast.json", another_day)
    found = published.store.recomputed(published.own)
    assert found.outcome == "different"
    assert "the target dates or levels are others: stored" in causes(found)


_OF_OTHER_CODE = """
import sys; sys.path.insert(0, sys.argv[1])
from pathlib import Path
from forex_core.config import ChronosConfig, EngineConfig
from forex_core.engine import Engine, build_members
config = EngineConfig.model_validate_json(sys.argv[2])
Path(sys.argv[3]).write_text(Engine(config, build_members(config, ChronosConfig())).recipe)
"""


@pytest.mark.slow
def test_a_recipe_of_other_code_is_recomputed_by_the_code_that_the_model_carries(
    published: Published, market: MarketBundle, tmp_path: Path
) -> None:
    code = tmp_path / "code"
    carry_code(code)
    altered = code / "forex_core" / "ensemble.py"
    assert "LOSS_STEPS = (6, 11)" in altered.read_text()
    altered.write_text(altered.read_text().replace("LOSS_STEPS = (6, 11)", "LOSS_STEPS = (2, 9)"))
    told = tmp_path / "recipe"
    subprocess.run(
        [sys.executable, "-P", "-c", _OF_OTHER_CODE, str(code), CONFIG.model_dump_json(), str(told)],
        check=True,
    )
    engine = Engine(CONFIG, build_members(CONFIG, CHRONOS))
    recipe = told.read_text()
    assert recipe != engine.recipe
    here = engine.forecast(market, WEEK)
    specification = Specification.of(replace(here, recipe=recipe), market, CONFIG, CHRONOS)
    run = paths_of(specification, code, market, None).run(WEEK)
    assert run.forecast.digest != here.forecast.digest
    specification = Specification.of(run, market, CONFIG, CHRONOS)
    run_id, number = published.store.publish(run, market, specification, code=code)
    found = published.store.replay(run_id)
    assert [one.outcome for one in found.reproductions] == ["exact", "exact"]

    # Altered once more, the code makes no longer the recipe that it says.
    carried = published.store.model(number) / "code" / "forex_core" / "ensemble.py"
    carried.write_text(carried.read_text() + "\n")
    recomputed = published.store.recomputed(run_id)
    assert recomputed.outcome == "impossible"
    assert "it makes another recipe" in causes(recomputed)


def test_missing_weights_of_chronos_are_named(published: Published) -> None:
    def with_chronos(document: dict[str, Any]) -> None:
        document["engine"]["members"].append("chronos")
        document["chronos"]["model"] = "/nowhere/chronos"

    alter_specification(published.store.model(1), with_chronos)
    found = published.store.recomputed(published.own)
    assert found.outcome == "impossible"
    assert "needs the weights of Chronos that were at /nowhere/chronos" in causes(found)


def test_what_published_no_forecast_is_refused(published: Published) -> None:
    store = published.store
    tracker = MLflowTracker(store.uri, "forecaster_7d", artifact_location=store.files.as_uri())
    tags = {"pair": "USDCLP", "horizon": "7d"}
    failed = tracker.start_run(tags=tags | {"error_type": "InputError", "error_message": "no such file"})
    tracker.end_run("FAILED")
    audit = tracker.start_run(tags=tags)
    tracker.end_run()
    foreign = tracker.start_run()
    tracker.end_run()
    with pytest.raises(InputError, match="is FAILED: InputError: no such file"):
        store.replay(failed)
    with pytest.raises(InputError, match="neither a forecast nor data"):
        store.replay(audit)
    with pytest.raises(InputError, match="published no forecast"):
        store.replay(foreign)


def test_an_unknown_run_is_refused(published: Published) -> None:
    with pytest.raises(InputError, match="no run begins with 00000000"):
        published.store.replay("00000000")


def command(published: Published, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    from forex_core.cli import app

    monkeypatch.setenv("FOREX_TRACKING_URI", published.store.uri)
    monkeypatch.setenv("FOREX_ARTIFACT_URI", published.store.files.as_uri())
    return CliRunner().invoke(app, ["replay", *arguments])


def test_the_command_says_by_its_exit_code_whether_a_run_is_replayed(
    published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = command(published, monkeypatch, published.own[:8])
    assert done.exit_code == 0
    assert done.stdout.count("replayed, exact") == 2
    assert published.own in done.stdout

    alter_snapshot(
        published.store.reports(published.own) / "snapshot.parquet", "spot", -1, lambda value: value * 1.01
    )
    done = command(published, monkeypatch, published.own[:8])
    assert done.exit_code == 1
    assert "NOT replayed" in done.stdout
    assert "cause: reports/snapshot.parquet was altered" in done.stdout
    assert command(published, monkeypatch, published.own, "--level", "stored").exit_code == 0


def test_the_document_names_the_largest_difference(
    published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = command(published, monkeypatch, published.far_away, "--level", "recomputed", "--json")
    document = json.loads(done.stdout)
    assert done.exit_code == 1
    assert document["replayed"] is False
    assert list(document["levels"]) == ["recomputed"]
    found = document["levels"]["recomputed"]
    assert found["outcome"] == "different"
    assert found["compared_with"] == "reports/forecast.json"
    largest = found["largest_difference"]
    assert largest["relative"] == pytest.approx(3e-5, rel=0.01)
    assert largest["again"] == pytest.approx(largest["stored"], rel=1e-4)
    assert largest["target_date"].startswith("20")
    assert found["causes"]


def test_the_command_refuses_what_it_does_not_know(
    published: Published, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    done = command(published, monkeypatch, "00000000")
    assert isinstance(done.exception, InputError)
    assert done.exception.exit_code == 2
    done = command(published, monkeypatch, published.own, "--level", "half")
    assert "expected one of stored, recomputed, both" in str(done.exception)
    monkeypatch.setenv("FOREX_TRACKING_URI", f"sqlite:///{tmp_path / 'none.db'}")
    from forex_core.cli import app

    done = CliRunner().invoke(app, ["replay", published.own])
    assert "there are no runs yet" in str(done.exception)
    assert not (tmp_path / "none.db").exists()
