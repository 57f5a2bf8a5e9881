"""Back to an earlier champion and back again: by the rule, all or nothing, on a real SQLite store."""

from __future__ import annotations

import json
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import ndtri

from forex_core.calendars import business_day_numbers
from forex_core.calibration import FACTOR_RANGE
from forex_core.champion import Candidate, best_previous
from forex_core.config import ChronosConfig, EngineConfig
from forex_core.data.snapshot import write_snapshot
from forex_core.engine import Engine, build_members
from forex_core.errors import DataQualityError, ForecastError, ForexError, InputError, TrackingError
from forex_core.models.chronos_weights import EMBEDDED_FOLDER, STATEMENT
from forex_core.models.random_walk import reference_sigma
from forex_core.specification import Specification, carry_code, frame_of, may_have_seen
from forex_core.testing import bundle_of, synthetic_bundle, synthetic_table
from forex_core.tracking import AUDIT, MLflowTracker, Registry, Standing, Version, copy_database
from forex_core.tracking import rollback as room
from forex_core.tracking.candidacy import reigning_of
from forex_core.tracking.packaging import save_model
from forex_core.tracking.process import PROCESS_TAG
from forex_core.tracking.registry import FILES_TAG, MAX_COVERED, Pin
from forex_core.tracking.rollback import Plan, Succession, latest_snapshot
from forex_core.tracking.store import release
from forex_core.types import LEVELS, Horizon, MarketBundle, Pair, State

NAME = "usdclp-7d"
WEEK = Horizon(7)
USDCLP = Pair("USD", "CLP")
RECIPES = {"a": 120.0, "b": 110.0, "c": 100.0, "d": 90.0}
"""Weight rates: with one member they change the recipe and no forecast."""

TABLES = (
    "registered_models",
    "registered_model_tags",
    "registered_model_aliases",
    "model_versions",
    "model_version_tags",
)


@pytest.fixture(scope="module")
def market() -> MarketBundle:
    return synthetic_bundle(900)


@dataclass(frozen=True)
class Shelf:
    """Model folders, saved once and copied: the random walk with bands of another width."""

    place: Path
    market: MarketBundle
    specification: Specification

    def model(
        self, rate: str = "a", width: float = 1.0, until: date | None = None, **overrides: Any
    ) -> tuple[Specification, Path]:
        config = _config(rate)
        state = self.specification.state
        made = replace(
            self.specification,
            recipe=Engine(config, build_members(config, ChronosConfig())).recipe,
            engine_settings=config.model_dump(mode="json"),
            state=State(until or state.trained_until, state.weights, np.full_like(state.factors, width)),
        )
        made = replace(made, **overrides)
        folder = Path(tempfile.mkdtemp(dir=self.place)) / "model"
        shutil.copytree(self.place / "first", folder)
        (folder / "artifacts" / "specification.json").write_text(made.to_json())
        return made, folder


def _config(recipe: str) -> EngineConfig:
    return EngineConfig(
        members=("random_walk",),
        min_members=1,
        grid_origins=60,
        warmup_origins=8,
        weight_rate=RECIPES[recipe],
    )


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, market: MarketBundle) -> Shelf:
    place = tmp_path_factory.mktemp("shelf")
    engine = Engine(_config("a"), build_members(_config("a"), ChronosConfig()))
    run = engine.forecast(market, WEEK)
    specification = Specification.of(run, market, _config("a"), ChronosConfig())
    save_model(specification, frame_of(market), place / "first")
    return Shelf(place, market, specification)


class Court:
    """A registry with models in it, and changes of champion as the flow makes them."""

    def __init__(self, uri: str, shelf: Shelf, folder: Path) -> None:
        self.uri, self.shelf, self.folder = uri, shelf, folder
        self.registry = Registry(uri)
        self.backups = folder / "backups"
        self.made = 0

    @property
    def database(self) -> Path:
        return Path(self.uri.removeprefix("sqlite:///"))

    @property
    def standing(self) -> Standing:
        return self.registry.standing(NAME)

    def version(
        self, recipe: str = "a", *, published: bool = True, run_id: str | None = None, **model: Any
    ) -> Version:
        self.made += 1  # bands of its own: the same state over again is no candidate
        specification, folder = self.shelf.model(recipe, **{"width": 1 + 1e-6 * self.made, **model})
        tags = {"recipe": specification.recipe, "trained_until": specification.state.trained_until}
        made = self.registry.register_model(NAME, folder.as_uri(), tags=tags, run_id=run_id)
        if published:
            self.registry.mark_published(made)
        return self.registry.version(NAME, made.number)

    def crown(self, version: Version) -> Version:
        with self.registry.lock(NAME):
            self.registry.succeed(self.standing, version)
        return version

    def reign(self) -> None:
        """Published were 1 to 3; 3 is champion, 2 was before it, and 4 is on trial."""
        kept = self.shelf.place / "reign.db"
        if kept.is_file() and self.uri.startswith("sqlite"):
            self.replace_database(kept)
            return
        self.crown(self.version("d"))
        self.crown(self.version("a"))
        self.crown(self.version("b"))
        self.registry.challenge(self.version("c", published=False))
        if self.uri.startswith("sqlite"):
            copy_database(self.uri, kept)

    def replace_database(self, by: Path) -> None:
        with closing(sqlite3.connect(by)) as source, closing(sqlite3.connect(self.database)) as target:
            source.backup(target)  # into the live one, which pooled connections have open

    def own_files(self, number: int) -> Path:
        """Files of a version that no other test has."""
        own = Path(tempfile.mkdtemp(dir=self.folder)) / "model"
        shutil.copytree(self.registry.folder(self.registry.version(NAME, number)), own)
        with closing(sqlite3.connect(self.database)) as writer, writer:
            places = (own.as_uri(), own.as_uri(), number)
            writer.execute(
                "UPDATE model_versions SET source = ?, storage_location = ? WHERE version = ?", places
            )
        return own

    def succession(self, bundle: MarketBundle | None = None) -> Succession:
        return Succession(self.registry, NAME, WEEK, bundle or self.shelf.market)

    def tracker(self) -> MLflowTracker:
        return MLflowTracker(self.uri, AUDIT, artifact_location=(self.folder / "mlruns").as_uri())

    def carry_out(
        self,
        find: Callable[[Succession], Plan],
        reason: str = "a test",
        backups: Path | None = None,
        bundle: MarketBundle | None = None,
    ) -> dict[str, Any]:
        with self.registry.lock(NAME, 0):
            succession = self.succession(bundle)
            return succession.carry_out(find(succession), reason, backups, self.tracker(), by="ana@desk")

    def rollback(self, to: str | None = None, **options: Any) -> dict[str, Any]:
        return self.carry_out(lambda s: s.rollback(to), **options)

    def undo(self) -> dict[str, Any]:
        return self.carry_out(lambda s: s.undo())

    def promote(self, to: str | None = None) -> dict[str, Any]:
        return self.carry_out(lambda s: s.promote(to))

    def dump(self, times: bool = False) -> dict[str, list[tuple[Any, ...]]]:
        """All rows of the registry's tables, without when they were changed last unless asked for."""
        with closing(sqlite3.connect(self.database)) as reader:
            found = {}
            for table in TABLES:
                columns = [row[1] for row in reader.execute(f"PRAGMA table_info({table})")]
                kept = ", ".join(c for c in columns if times or c != "last_updated_time")
                found[table] = sorted(map(tuple, reader.execute(f"SELECT {kept} FROM {table}")), key=repr)
            return found

    def audits(self) -> list[Any]:
        """Audit runs, the newest first."""
        experiment = self.registry.client.get_experiment_by_name(AUDIT)
        if experiment is None:
            return []
        order = ["attributes.start_time DESC"]
        return list(self.registry.client.search_runs([experiment.experiment_id], order_by=order))


@pytest.fixture(scope="module")
def live_store(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a store that stays open for all tests here, since opening one takes longer than most of them."""
    path = tmp_path_factory.mktemp("live") / "mlflow.db"
    shutil.copyfile(migrated_sqlite, path)
    yield f"sqlite:///{path}"
    release(f"sqlite:///{path}")


@pytest.fixture
def court(live_store: str, migrated_sqlite: Path, shelf: Shelf, tmp_path: Path) -> Court:
    """With nothing in its store."""
    (tmp_path / "data").mkdir()
    made = Court(live_store, shelf, tmp_path / "data")
    made.replace_database(migrated_sqlite)
    return made


@contextmanager
def refused(court: Court, kind: type[ForexError], reason: str) -> Iterator[None]:
    """What is inside fails with this reason, and the registry stays as it was, to the row."""
    before = court.dump(times=True)
    with pytest.raises(kind, match=reason) as caught:
        yield
    assert type(caught.value) is kind
    assert court.dump(times=True) == before


# --- the rule


def day(market: MarketBundle, row: int) -> date:
    return market.dates[row].date()


def slow_comparison(
    market: MarketBundle, widths: dict[int, float], cut_off: date, known_good: int
) -> dict[int, tuple[float, float, int, date]]:
    """By version: Δ to the known good one, its standard error, number of origins and the first of them."""
    numbers, sigma = business_day_numbers(market.pair, market.dates), reference_sigma(market)
    rows = [
        row
        for row in range(len(market))
        if numbers[row] >= 0
        and numbers[row] % 5 == 0
        and day(market, row) > cut_off
        and row + 5 < len(market)
    ][-52:]

    def loss(row: int, width: float) -> float:
        steps = []
        for h in range(1, 6):
            total = 0.0
            edges = [0.0, *LEVELS, 1.0]
            for q, level in enumerate(LEVELS):
                quantile = market.spot[row] * np.exp(width * ndtri(level) * sigma[row] * np.sqrt(h))
                error = market.truth[row + h] - quantile
                total += (edges[q + 2] - edges[q]) * max(level * error, (level - 1) * error)
            steps.append(total)
        return float(np.mean(steps) / market.spot[row])

    walk = np.array([loss(row, 1.0) for row in rows])
    losses = {version: np.array([loss(row, width) for row in rows]) for version, width in widths.items()}
    found = {}
    for version, own in losses.items():
        d = own - losses[known_good]
        delta = d.mean() / walk.mean()
        around, n = (d - delta * walk) / walk.mean(), len(rows)
        dof = int(max(4, min(0.4 * n ** (2 / 3), 5 * n / 10) // 1))
        total = 0.0
        for j in range(1, dof + 1):
            total += (
                sum(np.sqrt(2 / n) * around[t] * np.cos(np.pi * j * (t + 0.5) / n) for t in range(n)) ** 2
            )
        found[version] = (float(delta), float(np.sqrt(total / dof / n)), n, day(market, rows[0]))
    return found


@pytest.fixture(scope="module")
def observed(market: MarketBundle) -> MarketBundle:
    """Every close observed, so that a slow loop needs no rule for what is missing."""
    assert np.isfinite(market.truth).all()
    return market


@pytest.mark.parametrize(
    "widths",
    [
        {3: 1.0, 2: 3.0, 1: 2.5},
        {3: 3.0, 2: 1.0, 1: 2.5},
        {3: 1.02, 2: 0.95, 1: 1.1},
        {3: 0.97, 2: 1.0, 1: 1.3},
        {3: 1.1, 2: 1.0},
        {3: 0.9, 2: 1.0, 1: 0.8},
    ],
)
@pytest.mark.parametrize("row", [500, 620])
def test_the_best_by_far_is_taken_else_the_last_known_good(
    shelf: Shelf, observed: MarketBundle, widths: dict[int, float], row: int
) -> None:
    candidates = []
    for offset, (version, width) in enumerate(widths.items()):
        specification, folder = shelf.model("abc"[offset], width, until=day(observed, row - 10 * offset))
        candidates.append(Candidate(version, specification, folder / "code"))
    expected = slow_comparison(observed, widths, day(observed, row), known_good=2)
    best = min(expected, key=lambda v: expected[v][0])
    delta, error, origins, first = expected[best]
    chosen, why = best_previous(candidates, 2, observed, WEEK)
    assert f"over {origins} origins since {first}" in why
    assert chosen == (best if -delta >= error else 2)
    if best == 2:
        assert why.startswith("the last known good, and the best of")
    else:
        said = [float(number) for number in re.findall(r"([\d.]+) %", why)]
        assert said == [pytest.approx(-100 * delta, abs=6e-3), pytest.approx(100 * error, abs=6e-3)]
        assert (f"version {best} leads by" in why) == (chosen == 2)


def test_the_parameters_above_meet_every_branch(observed: MarketBundle) -> None:
    outcomes = set()
    for widths in (
        {3: 1.0, 2: 3.0},
        {3: 3.0, 2: 1.0},
        {3: 1.02, 2: 0.95},
        {3: 0.97, 2: 1.0},
        {3: 0.9, 2: 1.0},
    ):
        for row in (500, 620):
            delta, error, origins, _ = slow_comparison(observed, widths, day(observed, row), 2)[3]
            assert origins == (52 if row == 500 else 50)
            outcomes.add("worse" if delta > 0 else "far better" if -delta >= error else "better")
    assert outcomes == {"worse", "better", "far better"}


def test_few_origins_do_not_tell(shelf: Shelf, observed: MarketBundle) -> None:
    def candidates(row: int) -> list[Candidate]:
        bad, good = (shelf.model(r, w, until=day(observed, row)) for r, w in (("a", 3.0), ("b", 1.0)))
        return [Candidate(3, good[0], good[1] / "code"), Candidate(2, bad[0], bad[1] / "code")]

    rows = [r for r in range(700, 860) if slow_count(observed, r) in (25, 26)]
    enough = max(r for r in rows if slow_count(observed, r) == 26)
    chosen, why = best_previous(candidates(enough), 2, observed, WEEK)
    assert chosen == 3
    assert "over 26 origins" in why
    chosen, why = best_previous(candidates(enough + 5), 2, observed, WEEK)
    assert chosen == 2
    assert why.startswith(
        "the last known good: 25 outcomes are known since the candidates stopped learning on"
    )
    assert best_previous(candidates(enough + 5), 9, observed, WEEK)[0] == 3, "else the newest"
    assert best_previous(candidates(enough + 5), None, observed, WEEK)[1].startswith(
        "the newest: 25 outcomes"
    )
    assert best_previous(candidates(enough)[:1], 2, observed, WEEK) == (3, "it is the only candidate")


@pytest.mark.slow
def test_a_candidate_that_cannot_be_computed_drops_out(shelf: Shelf, observed: MarketBundle) -> None:
    until = day(observed, 500)

    def candidate(version: int, width: float, broken: bool = False) -> Candidate:
        specification, folder = shelf.model("abc"[version - 1], width, until=until)
        if broken:  # of code that is not the code here, and is not that of the recipe either
            specification = replace(specification, recipe="0" * 64)
        return Candidate(version, specification, folder / "code")

    sound = [candidate(3, 1.0), candidate(1, 3.0)]
    chosen, why = best_previous([sound[0], candidate(2, 1.0, broken=True), sound[1]], 2, observed, WEEK)
    assert chosen == 3
    assert why.startswith("the newest, and the best of 2 over 52 origins"), "which stands in for it"
    broken = [candidate(3, 1.0, broken=True), candidate(2, 1.0, broken=True)]
    chosen, why = best_previous([broken[0], candidate(2, 3.0), sound[1]], 2, observed, WEEK)
    assert (chosen, why.split(" over ")[0]) == (2, "the last known good, and the best of 2")
    with pytest.raises(ForecastError, match=r"no candidate .*: version 3: .* not answer: .*; version 2: "):
        best_previous(broken, 2, observed, WEEK)


def neural_candidate(version: int, shelf: Shelf, folder: Path, until: date, seen: bool) -> Candidate:
    """Half the walk and half the embedded weights, as a run logs them, with a statement that lets them answer here."""
    weights = folder / "weights"
    shutil.copytree(EMBEDDED_FOLDER, weights)
    statement = json.loads((weights / STATEMENT).read_text())
    (weights / STATEMENT).write_text(
        json.dumps(statement | {"may_have_seen": seen, "trained_until": "2010-12-31"})
    )
    config = _config("a").model_copy(update={"members": ("random_walk", "chronos")})
    chronos = ChronosConfig(model=str(weights))
    made = replace(
        shelf.specification,
        recipe=Engine(config, build_members(config, chronos)).recipe,
        engine_settings=config.model_dump(mode="json"),
        chronos_settings=chronos.model_dump(mode="json"),
        state=replace(
            shelf.specification.state, trained_until=until, weights={"random_walk": 0.5, "chronos": 0.5}
        ),
    )
    carry_code(folder / "code", made)
    inside = made.with_weights_inside()
    told = {**made.chronos_settings, "trained_until": "2010-12-31"}  # no setting overrules a statement
    for one in (made, replace(made, chronos_settings=told), inside):
        assert may_have_seen(one, folder / "code") == seen
    return Candidate(version, inside, folder / "code")


@pytest.mark.slow
@pytest.mark.parametrize("seen", [False, True])
def test_weights_that_may_have_seen_the_outcomes_lead_nowhere(
    seen: bool, shelf: Shelf, observed: MarketBundle, tmp_path: Path
) -> None:
    until = day(observed, 500)
    better = neural_candidate(3, shelf, tmp_path, until, seen)
    specification, folder = shelf.model("b", 3.0, until=until)
    poor = Candidate(2, specification, folder / "code")
    chosen, why = best_previous([better, poor], 2, observed, WEEK)
    assert chosen == (2 if seen else 3)
    assert ("version 3 is not compared, for its weights may have seen these outcomes" in why) == seen
    chosen, why = best_previous([better, poor], 3, observed, WEEK)
    assert (chosen, why.split(" over ")[0]) == (3, "the last known good, and the best of 2"), (
        "by no lead of its own"
    )


def slow_count(market: MarketBundle, row: int) -> int:
    numbers = business_day_numbers(market.pair, market.dates)
    return sum(numbers[r] >= 0 and numbers[r] % 5 == 0 for r in range(row + 1, len(market) - 5))


def test_candidates_were_published_and_not_rolled_back(court: Court) -> None:
    for recipe in "abcd":
        court.crown(court.version(recipe))
    court.version("a", published=False)  # 5, the newest of its recipe
    court.registry.challenge(court.version("c", published=False))
    assert court.rollback()["to_version"] == 3, "the one before the champion"
    assert court.rollback()["to_version"] == 2, "neither who was champion nor who was rolled back from"
    assert court.rollback()["to_version"] == 1
    with refused(court, InputError, "no previous version to go back to: none but the champion was published"):
        court.rollback()


def test_another_recipe_comes_before_another_state(court: Court) -> None:
    court.crown(court.version("a"))
    court.crown(court.version("b"))
    court.crown(court.version("b"))
    assert court.rollback()["to_version"] == 1
    court.undo()
    court.registry.client.delete_model_version(NAME, "1")
    assert court.rollback()["to_version"] == 2, "of its own recipe where there is no other"


@pytest.mark.slow
def test_a_recipe_that_was_rolled_back_from_is_left_with_all_its_states(court: Court) -> None:
    court.crown(court.version("c"))
    court.crown(court.version("a"))
    for _ in range(2):
        court.crown(court.version("b"))
    assert court.rollback()["to_version"] == 2
    court.registry.challenge(court.version("b", published=False))  # 5, which nobody has seen yet
    assert court.rollback()["to_version"] == 1, "not version 3, of the recipe that was just left"
    court.promote()
    assert court.succession().rollback().target.number == 1, "which was followed by a promotion"
    court.registry.client.delete_model_version(NAME, "1")
    assert court.succession().rollback().target.number == 3, "of its own recipe where there is no other"
    court.registry.mark_published(court.registry.version(NAME, 5))
    court.crown(court.version("d"))
    assert court.succession().rollback().target.number == 5, "it came back with a sound state"


def test_of_each_recipe_the_newest_that_can_be_used(court: Court) -> None:
    first, second = court.version("a"), court.version("a")
    court.crown(first)
    court.crown(second)
    court.crown(court.version("b"))
    assert court.succession().rollback().target.number == 2
    (court.registry.folder(second) / "artifacts" / "specification.json").unlink()
    assert court.succession().rollback().target.number == 1


def test_a_really_better_one_is_found_in_the_registry(court: Court, market: MarketBundle) -> None:
    until = day(market, 500)
    court.crown(court.version("a", width=1.0, until=until))
    court.crown(court.version("b", width=3.0, until=until))
    court.crown(court.version("c", width=1.0, until=until))
    plan = court.succession().rollback()
    assert court.standing.previous is not None
    assert (plan.target.number, court.standing.previous.number) == (1, 2)
    assert re.match(r"it leads the last known good by \d+\.\d+ % of the random walk's CRPS", plan.how)


# --- a version of the user's choice


def logged_run(court: Court, rmse: float | None, published: int, status: str = "FINISHED") -> str:
    client = court.registry.client
    found = client.get_experiment_by_name("forecaster_7d")
    place = (court.folder / "mlruns").as_uri()
    experiment = found.experiment_id if found else client.create_experiment("forecaster_7d", place)
    run_id = str(client.create_run(experiment, tags={"published_version": str(published)}).info.run_id)
    if rmse is not None:
        client.log_metric(run_id, "7d_rmse", rmse)
    client.set_terminated(run_id, status)
    return run_id


def test_a_metric_ranks_when_it_is_named(court: Court) -> None:
    values = [12.0, 10.0, 14.0, 10.0, None, float("nan"), 1.0, 99.0, 11.0]
    for number, value in enumerate(values, start=1):
        status = "FAILED" if value in (1.0, 99.0) else "FINISHED"
        run_id = logged_run(court, value, published=number, status=status)
        court.version("abcd"[number % 4], run_id=run_id)
    court.crown(court.registry.version(NAME, 9))

    def best(mode: Any) -> tuple[int, str]:
        plan = court.succession().rollback(metric="7d_rmse", mode=mode)
        return plan.target.number, plan.how

    assert best("min") == (4, "its run has the lowest 7d_rmse, 10"), "the newest of equal ones"
    assert best("max") == (3, "its run has the highest 7d_rmse, 14")
    shutil.rmtree(court.registry.folder(court.registry.version(NAME, 4)))
    assert best("min")[0] == 2, "one whose files are gone is passed over"
    seen = court.registry.version(NAME, 2).recipe
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            "forex_core.tracking.rollback.may_have_seen", lambda found, code: found.recipe == seen
        )
        assert best("min")[0] == 1, "what weights may have seen is no score"
    with refused(court, InputError, "has a finished run with the metric 7d_mape; 'forex runs show"):
        court.succession().rollback(metric="7d_mape")


def test_a_version_is_named_by_number_or_run(court: Court) -> None:
    ids = ["12345678" + "0" * 24, "12345678" + "1" * 24, "abcdef01" + "0" * 24, "7777" + "a" * 28]
    for run_id in ids:
        court.version(run_id=run_id)
    court.crown(court.version())

    def named(text: str) -> int:
        plan = court.succession().rollback(to=text)
        assert plan.how == "it was named"
        return plan.target.number

    assert [named(text) for text in ("1", "0002", "3")] == [1, 2, 3]
    assert [named(text) for text in (ids[0], ids[1][:9], "ABCDEF01", "abcd", "7777")] == [1, 2, 3, 3, 4]
    for text, reason in [
        (
            "12345678",
            r"'12345678' is more than one version or run of usdclp-7d; expected one of 5 \(\), 4 \(7777",
        ),
        ("99", "usdclp-7d has no version 99; it has 5, 4, 3, 2, 1"),
        ("99999", "'99999' is no version or run"),
        ("ffffffff", "'ffffffff' is no version or run"),
        ("a", "'a' is no version or run"),
        ("", "'' is no version or run"),
        ("²", "'²' is no version or run"),
        ("-1", "'-1' is no version or run"),
        ("9" * 40, "is no version or run"),
    ]:
        with refused(court, InputError, reason):
            named(text)


def test_one_that_was_never_published_may_be_named(court: Court) -> None:
    court.reign()
    assert court.rollback("4")["to_version"] == 4


# --- refusals


class TestRefusals:
    def test_without_a_champion(self, court: Court) -> None:
        with refused(court, InputError, "usdclp-7d has no champion yet; publish a forecast first"):
            court.rollback()
        court.version()
        for change in (court.rollback, court.undo, court.promote):
            with refused(court, InputError, "no champion yet"):
                change()

    def test_without_a_previous_version(self, court: Court) -> None:
        court.crown(court.version())
        with refused(court, InputError, "no previous version to go back to: none but the champion"):
            court.rollback()

    def test_of_the_champion_itself(self, court: Court) -> None:
        court.reign()
        with refused(court, InputError, "version 3 of usdclp-7d is champion already; nothing to roll back"):
            court.rollback("3")

    def test_to_undo_what_is_none(self, court: Court) -> None:
        court.reign()
        with refused(
            court, InputError, "version 3 of usdclp-7d is not champion by a rollback; nothing to undo"
        ):
            court.undo()
        court.rollback()
        court.promote()
        with refused(court, InputError, "nothing to undo"):
            court.undo()

    def test_to_promote_without_a_challenger_and_a_pin(self, court: Court) -> None:
        court.crown(court.version())
        with refused(court, InputError, "has no challenger and version 1 is not pinned; nothing to promote"):
            court.promote()

    @pytest.mark.parametrize(
        ("damage", "reason"),
        [
            (shutil.rmtree, r"the files of version 2 of usdclp-7d are not at .*; restore them from a backup"),
            (lambda f: (f / "MLmodel").unlink(), "lacks MLmodel or its code; restore its files"),
            pytest.param(
                lambda f: shutil.rmtree(f / "code"), "lacks MLmodel or its code", marks=pytest.mark.slow
            ),
            (lambda f: (f / "artifacts" / "specification.json").unlink(), "cannot be used: .*No such file"),
            (lambda f: _cut(f / "artifacts" / "specification.json"), "this is no specification of a model"),
            (
                lambda f: _append(f / "code/forex_core/models/random_walk.py"),
                "are not those that were registered",
            ),
            pytest.param(
                lambda f: _append(f / "code/forex_core/specification.py"),
                "are not those that were registered",
                marks=pytest.mark.slow,
            ),
            pytest.param(
                lambda f: (f / "forecast_model.py").unlink(),
                "are not those that were registered",
                marks=pytest.mark.slow,
            ),
            (lambda f: _edit(f / "artifacts" / "specification.json"), "are not those that were registered"),
        ],
    )
    def test_of_a_model_that_is_missing_or_damaged(
        self, court: Court, damage: Callable[[Path], Any], reason: str
    ) -> None:
        court.reign()
        damage(court.own_files(2))
        with refused(court, TrackingError, reason):
            court.rollback("2")
        assert court.rollback()["to_version"] == 1, "the next best is taken where none was named"

    @pytest.mark.slow
    def test_of_code_that_was_altered_before_it_was_registered(self, court: Court) -> None:
        court.reign()
        specification, folder = court.shelf.model("c", recipe="0" * 64)
        _append(folder / "code/forex_core/models/random_walk.py")
        court.registry.register_model(NAME, folder.as_uri(), tags={"recipe": specification.recipe})
        with refused(court, ForecastError, "the code that recipe 000000000000 carries could not answer"):
            court.rollback("5")

    def test_of_a_model_of_another_pair_or_horizon(self, court: Court) -> None:
        court.reign()
        court.version("c", pair=Pair("EUR", "USD"))
        court.version("c", horizon=Horizon(30))
        for number, found in (("5", "EURUSD 7d"), ("6", "USDCLP 30d")):
            with refused(court, TrackingError, f"version {number} of usdclp-7d is a model of {found}"):
                court.rollback(number)

    def test_without_a_driver_that_it_needs(self, court: Court) -> None:
        court.crown(_reader(court, "a", 0.25))
        court.crown(_reader(court, "d", 0.25))
        court.crown(court.version("b"))
        poor = bundle_of(synthetic_table(900, drivers=("DXY",)))
        with refused(
            court, DataQualityError, r"version 2 of usdclp-7d needs Copper, VIX, which the data .* lack"
        ):
            court.rollback("2", bundle=poor)
        with refused(
            court, InputError, r"no previous version to go back to: version 2 .* needs .*; version 1"
        ):
            court.rollback(bundle=poor)

    @pytest.mark.slow
    def test_only_without_a_driver_that_a_member_reads(self, court: Court) -> None:
        court.crown(court.version("a"))
        court.crown(_reader(court, "b", 0.0))
        court.crown(court.version("c"))
        for drivers in (("DXY",), ()):
            poor = bundle_of(synthetic_table(900, drivers=drivers))
            assert court.rollback("1", bundle=poor)["to_version"] == 1
            with refused(court, DataQualityError, "version 2 of usdclp-7d needs"):
                court.rollback("2", bundle=poor)  # of weight 0, but the band is the mean of all members
            court.undo()

    def test_without_a_driver_that_only_the_carried_code_may_need(self, court: Court) -> None:
        court.reign()
        specification, folder = court.shelf.model("c", recipe="0" * 64)
        court.registry.register_model(NAME, folder.as_uri(), tags={"recipe": specification.recipe})
        poor = bundle_of(synthetic_table(900, drivers=("DXY",)))
        with refused(court, DataQualityError, "version 5 of usdclp-7d needs Copper, VIX, which the data"):
            court.rollback("5", bundle=poor)

    def test_of_a_forecast_that_is_not_sound(self, court: Court) -> None:
        court.reign()
        court.version("c", width=20.0)
        court.version("c", width=0.01)
        for number in ("5", "6"):
            with refused(court, ForecastError, r"is not sound: the 80 % band .* times the random walk's"):
                court.rollback(number)

    def test_of_data_that_end_before_the_model_was_learned(self, court: Court, market: MarketBundle) -> None:
        court.reign()
        old = market.until(market.instants[800])
        with refused(court, DataQualityError, r"has learned up to .*, the data end on .*; give newer data"):
            court.rollback("2", bundle=old)

    def test_of_data_that_are_too_short(self, court: Court, market: MarketBundle) -> None:
        court.reign()
        court.version("c", until=day(market, 0))
        for rows in (61, 150, 350):
            with refused(court, DataQualityError, "origins with a known 7d outcome .* expected 26"):
                court.rollback("5", bundle=market.until(market.instants[rows]))
        with refused(court, ForecastError, "could not answer"):
            court.rollback("5", bundle=market.until(market.instants[30]))

    def test_while_another_process_is_at_it(self, court: Court) -> None:
        court.reign()
        program = (
            "import sys; from forex_core.tracking.store import store_lock\n"
            "with store_lock(*sys.argv[1:]): print('held', flush=True); sys.stdin.read()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program, court.uri, f"change-of-champion-{NAME}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            with refused(
                court, TrackingError, "another 'change-of-champion-usdclp-7d' is running .* try again"
            ):
                court.rollback()
            other.kill()
        assert court.rollback()["to_version"] == 2

    def test_of_a_plan_that_is_out_of_date(self, court: Court) -> None:
        court.reign()
        plan = court.succession().rollback()
        court.crown(court.version("b"))
        with refused(court, TrackingError, "the champion of usdclp-7d changed since this was decided"):
            court.carry_out(lambda _: plan)

    @pytest.mark.parametrize("place", ["a file", "below a file", "/proc/forex"])
    def test_where_the_copy_cannot_be_written(self, court: Court, place: str) -> None:
        court.reign()
        (court.folder / "a file").write_text("")
        backups = court.folder / place.replace("below a file", "a file/backups")
        with refused(court, TrackingError, r"the database could not be copied to .*, so nothing was changed"):
            court.rollback(backups=backups)
        assert court.audits() == []

    def test_where_the_copy_does_not_verify(self, court: Court, monkeypatch: pytest.MonkeyPatch) -> None:
        from forex_core import databases

        court.reign()
        counted = databases.table_counts
        # A table that lost a row on the way, which no disk does on demand.
        monkeypatch.setattr(
            databases,
            "table_counts",
            lambda c: counted(c) | ({} if c.isolation_level is None else {"runs": 99}),
        )
        with refused(court, TrackingError, "the copy of the database does not verify"):
            court.rollback(backups=court.backups)
        assert list(court.backups.iterdir()) == []

    def test_where_the_audit_cannot_be_logged(self, court: Court, monkeypatch: pytest.MonkeyPatch) -> None:
        court.reign()
        tracker = MLflowTracker(
            f"sqlite:///{court.folder / 'a file' / 'mlflow.db'}", AUDIT, spool=court.folder / "spool"
        )
        (court.folder / "a file").write_text("")
        monkeypatch.setattr(court, "tracker", lambda: tracker)
        with refused(
            court, TrackingError, "the audit run could not be logged, so the champion stays as it is"
        ):
            court.rollback()

    def test_for_a_reason_without_end(self, court: Court) -> None:
        court.reign()
        with refused(court, InputError, "the reason has 1001 characters; expected 1000 at most"):
            court.rollback(reason="x" * 1001)
        assert court.rollback(reason="ü'\"\n" * 250)["reason"] == "ü'\"\n" * 250


def _reader(court: Court, recipe: str, weight: float) -> Version:
    """A published version with a member that reads drivers, of this weight."""
    config = _config(recipe).model_copy(update={"members": ("random_walk", "drivers")})
    state = court.shelf.specification.state
    specification, folder = court.shelf.model(
        recipe,
        recipe=Engine(config, build_members(config, ChronosConfig())).recipe,
        engine_settings=config.model_dump(mode="json"),
        state=replace(state, weights={"random_walk": 1 - weight, "drivers": weight}),
    )
    tags = {"recipe": specification.recipe, "published": "true"}
    return court.registry.register_model(NAME, folder.as_uri(), tags=tags)


def _cut(path: Path) -> None:
    text = path.read_text()
    path.write_text(text[: len(text) // 2])


def _edit(specification: Path) -> None:
    document = json.loads(specification.read_text())
    document["state"]["factors"][0][0] += 0.001
    specification.write_text(json.dumps(document, indent=1))


def _append(path: Path) -> None:
    path.write_text(path.read_text() + "\n# altered\n")


# --- there and back


def aliases(court: Court) -> dict[str, int]:
    found = court.registry.client.get_registered_model(NAME).aliases
    return {name: int(number) for name, number in found.items()}


def test_an_undo_restores_aliases_pin_and_tags_exactly(court: Court) -> None:
    court.reign()
    before = court.dump()
    done = court.rollback(reason="too narrow")
    assert aliases(court) == {"champion": 2, "previous": 2, "challenger": 4}
    pin = court.standing.pin
    assert pin == Pin("ana@desk", done["at"], "too narrow", 3, done["audit_run"])
    mark = json.loads(court.registry.version(NAME, 3).tags["rolled_back"])
    assert mark == {"by": "ana@desk", "at": done["at"], "reason": "too narrow", "to": 2}
    assert court.dump() != before
    undone = court.undo()
    assert (undone["from_version"], undone["to_version"], undone["after"]["pin"]) == (2, 3, None)
    assert court.dump() == before


@pytest.mark.parametrize("path", [["2", "1", "3"], ["4", "3", "4", "2"]])
def test_undos_walk_back_over_rollbacks_of_rollbacks(court: Court, path: list[str]) -> None:
    court.reign()
    states = [court.dump()]
    for to in path:
        court.rollback(to)
        states.append(court.dump())
        held = court.standing
        assert held.champion is not None
        assert held.pin is not None
        assert (held.champion.number, held.champion.rolled_back) == (int(to), False)
    for expected in reversed(states[:-1]):
        court.undo()
        assert court.dump() == expected
    with refused(court, InputError, "nothing to undo"):
        court.undo()


@pytest.mark.slow
def test_going_back_and_forth_makes_no_tag_without_end(court: Court) -> None:
    """MLflow takes 100 000 characters. Each of the reason is six in JSON, and seven in the note within a pin."""
    court.reign()
    for turn in range(2 * MAX_COVERED + 4):
        court.rollback("23"[turn % 2], reason="ü" * 1000)
    assert max(len(value) for v in court.registry.versions(NAME) for value in v.tags.values()) < 80_000
    for turn in range(2 * MAX_COVERED + 2):
        assert court.undo()["to_version"] == 2 + turn % 2
    assert court.standing.pin is None, "what was before is forgotten"


def test_what_runs_wrote_since_outlives_an_undo(court: Court) -> None:
    court.reign()
    before = court.standing
    court.rollback()
    learned = court.version("b", published=False)
    court.registry.challenge(learned)  # as a run under a pinned champion does
    court.undo()
    after = court.standing
    assert (after.champion, after.previous, after.pin) == (before.champion, before.previous, None)
    assert after.challenger == learned


def test_bands_that_are_adapted_again_and_again_stay_within_their_range(court: Court) -> None:
    champion = court.crown(court.version("a", width=1.3))
    until = court.shelf.specification.state.trained_until
    factors = np.full_like(court.shelf.specification.state.factors, 1.2)
    factors[:, 0], factors[0] = 0.9, 0.5

    def adapted() -> dict[str, Any]:
        return court.carry_out(lambda s: s.adapt(factors, until, "a test", court.tracker()))

    def state() -> State:
        assert court.standing.champion is not None
        return court.registry.model(court.standing.champion)[0].state

    assert adapted()["from_version"] == champion.number
    low, high = FACTOR_RANGE
    np.testing.assert_allclose(state().factors, np.clip(1.3 * factors, low, high))
    adapted()
    twice = state().factors
    np.testing.assert_allclose(twice, np.clip(np.clip(1.3 * factors, low, high) * factors, low, high))
    assert (twice.min(), twice.max()) == FACTOR_RANGE
    plan = court.succession().rollback(str(champion.number))
    assert plan.champion_forecast is not None
    assert (np.diff(plan.champion_forecast.quantiles, axis=1) > 0).all()
    for _ in range(3):  # until its narrowest is as narrow as it may be
        adapted()
    with refused(court, InputError, "and would keep them: none leaves 0.8 to 1.6"):
        adapted()


def test_promoting_lets_go_and_makes_the_challenger_champion(court: Court) -> None:
    court.reign()
    court.rollback()
    done = court.promote()
    assert (done["action"], done["from_version"], done["to_version"]) == ("promote", 2, 4)
    assert aliases(court) == {"champion": 4, "previous": 2}
    assert court.standing.pin is None
    assert not court.registry.version(NAME, 4).published, "it has not said anything yet"
    assert {v.number for v in court.registry.versions(NAME) if "pin" in v.tags} == set()
    assert court.rollback()["to_version"] == 2, "and version 3 stays rolled back"


def test_promoting_without_a_challenger_only_lets_go(court: Court) -> None:
    court.crown(court.version("a"))
    court.crown(court.version("b"))
    court.rollback()
    done = court.promote()
    assert (done["action"], done["to_version"], done["after"]["pin"]) == ("unpin", 1, None)
    assert aliases(court) == {"champion": 1, "previous": 1}


def test_unpinning_keeps_the_champion_though_there_is_a_challenger(court: Court) -> None:
    court.reign()
    with refused(court, InputError, "version 3 of usdclp-7d is not pinned; there is no pin to take away"):
        court.carry_out(lambda s: s.unpin())
    court.rollback()
    done = court.carry_out(lambda s: s.unpin())
    assert (done["action"], done["to_version"], done["after"]["pin"]) == ("unpin", 2, None)
    assert aliases(court) == {"champion": 2, "previous": 2, "challenger": 4}


def test_who_is_promoted_is_no_longer_rolled_back(court: Court) -> None:
    court.reign()
    court.rollback()
    court.promote("3")
    assert not court.registry.version(NAME, 3).rolled_back
    assert aliases(court) == {"champion": 3, "previous": 2, "challenger": 4}
    court.promote()
    assert court.rollback()["to_version"] == 3


# --- what is kept of it


def test_the_audit_says_who_when_from_to_and_why(court: Court) -> None:
    court.reign()
    before = court.standing.document()
    done = court.rollback(reason="too narrow", backups=court.backups)
    (run,) = court.audits()
    assert (run.info.run_id, run.info.status) == (done["audit_run"], "FINISHED")
    hidden = ("mlflow.", PROCESS_TAG)
    tags = {name: value for name, value in run.data.tags.items() if not name.startswith(hidden)}
    assert tags == {
        "action": "rollback",
        "model": NAME,
        "pair": "USDCLP",
        "horizon": "7d",
        "from_version": "3",
        "to_version": "2",
        "by": "ana@desk",
        "at": done["at"],
        "reason": "too narrow",
        "how": done["how"],
        "backup": done["backup"],
    }
    stored = Path(run.info.artifact_uri.removeprefix("file://")) / "plan.json"
    plan = json.loads(stored.read_text())
    assert plan["before"] == before
    assert plan["forecast"] == done["forecast"]
    assert done["after"]["champion"] == 2
    assert done["forecast"]["low_80"] < done["forecast"]["median"] < done["forecast"]["high_80"]


def test_the_copy_holds_the_state_of_before(court: Court, monkeypatch: pytest.MonkeyPatch) -> None:
    court.reign()
    before = court.dump(times=True)
    backup = Path(court.rollback(backups=court.backups)["backup"])
    assert list(court.backups.iterdir()) == [backup]
    assert re.fullmatch(r"mlflow_\d{8}_\d{6}_\d{6}_before_rollback_usdclp-7d\.db", backup.name)
    with closing(sqlite3.connect(backup)) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert Court(f"sqlite:///{backup}", court.shelf, court.folder).dump(times=True) == before
    assert court.dump(times=True) != before


def test_a_user_without_a_name_is_somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    assert "@" in room.current_user()
    monkeypatch.setattr(room.getpass, "getuser", nameless)
    assert room.current_user().startswith("unknown@")


class TestLatestSnapshot:
    def test_is_of_the_newest_data_that_can_be_read(
        self, court: Court, market: MarketBundle, tmp_path: Path
    ) -> None:
        def publish(rows: int | None, origin: str) -> Path:
            tracker = MLflowTracker(
                court.uri, "forecaster_7d", artifact_location=(court.folder / "mlruns").as_uri()
            )
            with tracker:
                tracker.set_tags({"pair": "USDCLP", "horizon": "7d"})
                tracker.log_params({"origin": origin})
                if rows:
                    place = tmp_path / "snapshot.parquet"
                    write_snapshot(market.until(market.instants[rows - 1]), place)
                    tracker.log_artifact(place, "reports")
            run = court.registry.client.get_run(str(tracker.run_id))
            return Path(run.info.artifact_uri.removeprefix("file://")) / "reports" / "snapshot.parquet"

        with pytest.raises(
            InputError, match="no finished 7d run of USDCLP holds its data; give them with --source"
        ):
            latest_snapshot(court.registry, USDCLP, WEEK)
        oldest = publish(500, "2016-12-01")
        newest = publish(700, "2017-09-07")
        publish(600, "2017-04-20")  # the last run, of a past day
        publish(None, "2017-12-01")
        assert len(latest_snapshot(court.registry, USDCLP, WEEK)) == 700
        for _ in range(20):
            publish(None, "2017-01-03")  # runs of past days do not hide it
        assert len(latest_snapshot(court.registry, USDCLP, WEEK)) == 700
        newest.write_bytes(newest.read_bytes()[:1000])
        assert len(latest_snapshot(court.registry, USDCLP, WEEK)) == 600
        assert oldest.is_file()
        with pytest.raises(InputError, match="no finished 7d run of EURUSD"):
            latest_snapshot(court.registry, Pair("EUR", "USD"), WEEK)


# --- killed

PROGRAM = '''
import json, os, signal, sys
from pathlib import Path

import mlflow.store.model_registry.sqlalchemy_store
import mlflow.store.tracking.sqlalchemy_store
from mlflow import MlflowClient
from sqlalchemy.engine.default import DefaultDialect
from forex_core.testing import synthetic_bundle
from forex_core.tracking import AUDIT, MLflowTracker, Registry, rollback
from forex_core.tracking.rollback import Succession
from forex_core.types import Horizon

uri, folder = sys.argv[1:]
market = synthetic_bundle(900)


def change(action, when, deadline):
    """Carry out `action`, killed just before or after the write of number `deadline`."""
    writes = 0

    def guarded(write, counts=lambda *a: True):
        def call(*arguments, **options):
            nonlocal writes
            counted = counts(*arguments)
            writes += counted
            if counted and writes == deadline and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            result = write(*arguments, **options)
            if counted and writes == deadline and when == "after":
                os.kill(os.getpid(), signal.SIGKILL)
            return result
        return call

    # Every commit that has something to commit, and the two writes that are files.
    DefaultDialect.do_commit = guarded(DefaultDialect.do_commit, lambda _, c: c.in_transaction)
    rollback.copy_database = guarded(rollback.copy_database)
    registry = Registry(uri)
    with registry.lock("usdclp-7d", 0):
        succession = Succession(registry, "usdclp-7d", Horizon(7), market)
        plan = getattr(succession, action)()
        tracker = MLflowTracker(uri, AUDIT, artifact_location=Path(folder, "mlruns").as_uri())
        tracker.log_artifact = guarded(tracker.log_artifact)
        succession.carry_out(plan, "killed", Path(folder, "backups"), tracker, by="ana@desk")
    return writes


for line in sys.stdin:
    action, when, deadline = line.split()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, str(change(action, when, int(deadline))).encode())
        os._exit(0)
    os.close(writing)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(status, os.read(reading, 100).decode() or 0, flush=True)
    os.close(reading)
'''
"""Forks a child for each change that it is told of, before anything is opened: MLflow is imported once."""


@dataclass(frozen=True)
class Seen:
    """The standing as it is read: by its alias through MLflow, by the registry, and by who looks for candidates."""

    alias: int
    champion: int
    pinned_for: int | None
    candidates: tuple[int, ...]
    code: int


def seen(court: Court) -> Seen:
    by_alias = court.registry.client.get_model_version_by_alias(NAME, "champion")
    standing = court.standing
    assert standing.champion is not None
    reigning = reigning_of(court.registry, standing)  # as the next forecast has it
    assert reigning is not None
    assert (reigning.pinned is not None) == (standing.pin is not None)
    with court.registry.lock(NAME, 0):  # which is free
        candidates = tuple(v.number for v in court.succession()._eligible(court.standing))
        assert court.standing.pin == standing.pin, "finishing it changes nothing that was to be seen before"
    replaced = standing.pin.replaced if standing.pin else None
    return Seen(int(by_alias.version), standing.champion.number, replaced, candidates, reigning.version)


BEFORE = Seen(3, 3, None, (2, 1), 3)
PINNED = Seen(2, 2, 3, (1,), 2)
PROMOTED = Seen(4, 4, None, (2, 1), 4)


BOTH = ("before", "after")


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("action", "before", "after", "moments", "followed_every"),
    [
        pytest.param("rollback", BEFORE, PINNED, BOTH, 1, marks=pytest.mark.slow),
        pytest.param("undo", PINNED, BEFORE, BOTH, 1, marks=pytest.mark.slow),
        pytest.param("promote", PINNED, PROMOTED, BOTH, 1, marks=pytest.mark.slow),
    ],
)
def test_a_kill_at_any_write_leaves_the_state_of_before_or_of_after(
    court: Court, action: str, before: Seen, after: Seen, moments: tuple[str, ...], followed_every: int
) -> None:
    court.reign()
    if before == PINNED:
        court.rollback()
    prepared = copy_database(court.uri, court.folder / "prepared.db").path

    followed: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, court.uri, str(court.folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as forking:
        assert forking.stdin is not None
        assert forking.stdout is not None

        def carry_out(when: str, deadline: int) -> tuple[int, int]:
            print(action, when, deadline, file=forking.stdin, flush=True)
            status, writes = forking.stdout.readline().split()
            return int(status), int(writes)

        court.replace_database(prepared)
        assert seen(court) == before
        court.replace_database(prepared)
        status, total = carry_out("before", 0)
        assert (status, seen(court)) == (0, after)
        assert total >= 6
        done = tags(court)
        decided = []
        for deadline in range(1, total + 1):
            for when in moments:
                court.replace_database(prepared)
                assert carry_out(when, deadline)[0] == -signal.SIGKILL
                found = seen(court)
                assert found in (before, after), (deadline, when)
                decided.append(found == after)
                if found == after:
                    assert tags(court) == done, "the next to hold the lock has finished it"
                if len(decided) % followed_every == 0:
                    followed.append(follow(court, found, len(decided)))
        assert decided == sorted(decided), "there is one write that decides"
        assert True in decided
        assert False in decided
        forking.stdin.close()
    assert followed
    assert followed_every > 1 or set(followed) == {"rollback", "undo", "promote"}


def tags(court: Court) -> list[str]:
    """Tags of all versions, without times and ids."""
    rows = court.dump()["model_version_tags"]
    return [re.sub(r"20\d\d-\d\d-\d\dT[\d:+]+|[0-9a-f]{32}", "…", repr(row)) for row in rows]


def follow(court: Court, found: Seen, turn: int) -> str:
    """Another change works after the kill, and the audit run of the one that was killed is ended as it ended."""
    left = [run.info.run_id for run in court.audits() if run.info.status == "RUNNING"]
    assert len(left) <= 1
    possible = ["rollback", *(["undo"] if found.pinned_for else [])]
    possible += ["promote"] if court.standing.challenger else []
    name = possible[turn % len(possible)]
    action: Callable[[], dict[str, Any]] = getattr(court, name)
    before = court.standing.champion
    changed = action()
    assert changed["from_version"] == (before.number if before else None)
    assert changed["after"]["champion"] == changed["to_version"]
    ended = {run.info.run_id: run for run in court.audits()}
    assert {run.info.status for run in ended.values()} <= {"FINISHED", "KILLED"}
    assert {run_id: ended[run_id].info.status for run_id in left} == dict.fromkeys(left, "KILLED")
    return name


KILLED_AFTER = """
import os, signal, sys
from pathlib import Path
from forex_core.testing import synthetic_bundle
from forex_core.tracking import AUDIT, MLflowTracker, Registry
from forex_core.tracking.rollback import Succession
from forex_core.types import Horizon
uri, folder, action = sys.argv[1:]
registry = Registry(uri)
registry._finish = lambda model: os.kill(os.getpid(), signal.SIGKILL) if registry.moved else None
registry.moved, move = False, registry._move
def moving(*arguments):
    registry.moved = True
    move(*arguments)
registry._move = moving
with registry.lock("usdclp-7d", 0):
    succession = Succession(registry, "usdclp-7d", Horizon(7), synthetic_bundle(900))
    tracker = MLflowTracker(uri, AUDIT, artifact_location=Path(folder, "mlruns").as_uri())
    succession.carry_out(getattr(succession, action)(), "killed", None, tracker, by="ana@desk")
"""


@pytest.mark.slow
@pytest.mark.parametrize("action", ["promote", "undo", "unpin"])
def test_the_audit_of_a_change_that_was_made_ends_with_it_whoever_comes_next(
    court: Court, action: str
) -> None:
    """Though the next is a forecast, after which the standing tells nothing of the change any more."""
    court.reign()
    court.rollback()
    killed = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED_AFTER, court.uri, str(court.folder), action],
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert court.audits()[0].info.status == "RUNNING"
    court.crown(court.version("d"))
    court.rollback()
    assert [run.info.status for run in court.audits()] == ["FINISHED"] * 3


def test_an_audit_that_was_killed_before_its_change_ends_with_the_next_change(court: Court) -> None:
    court.reign()
    court.rollback()
    client = court.registry.client
    experiment = client.get_experiment_by_name(AUDIT).experiment_id

    def left(model: str) -> str:
        tags = {"action": "promote", "model": model, "to_version": "2"}  # who is champion already
        return str(client.create_run(experiment, tags=tags).info.run_id)

    def status(run_id: str) -> str:
        return str(client.get_run(run_id).info.status)

    own, other = left(NAME), left("usdclp-15d")
    with court.registry.lock(NAME):
        court.succession().promote()  # a dry run, which writes nothing
    with refused(court, InputError, "has no version 9"):
        court.promote("9")
    assert status(own) == "RUNNING"
    court.promote()
    assert (status(own), status(other)) == ("KILLED", "RUNNING"), "the other is of another model"


@pytest.mark.slow
def test_a_round_on_postgresql(postgres_store: str, shelf: Shelf, tmp_path: Path) -> None:
    court = Court(postgres_store, shelf, tmp_path / "data")
    court.reign()

    def held() -> tuple[Any, ...]:
        return court.standing, court.registry.versions(NAME)

    before = held()
    done = court.rollback(backups=court.backups)
    assert (done["to_version"], done["after"]["pin"]["replaced"]) == (2, 3)
    with closing(sqlite3.connect(done["backup"])) as copy:
        found = copy.execute("SELECT alias, version FROM registered_model_aliases ORDER BY alias").fetchall()
    assert found == [("challenger", 4), ("champion", 3), ("previous", 2)]
    with (
        court.registry.lock(NAME),
        pytest.raises(TrackingError, match="another 'change-of-champion-usdclp-7d' is running"),
    ):
        court.undo()
    court.undo()
    assert held() == before
    court.rollback()
    assert court.promote()["to_version"] == 4


def test_nothing_is_left_on_versions(court: Court) -> None:
    court.reign()
    court.rollback()
    court.promote()
    known = {"recipe", "trained_until", "published", "rolled_back", FILES_TAG}
    assert all(set(v.tags) <= known for v in court.registry.versions(NAME))
