"""The mark of what was published, twins of the champion, challengers under a pin, and what a run says of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forex_core.champion import Choice, Decision, Reigning, choose
from forex_core.config import ChronosConfig, EngineConfig
from forex_core.engine import Engine, build_members
from forex_core.errors import InputError, TrackingError
from forex_core.evaluation import Comparison
from forex_core.report.text import succession_markdown
from forex_core.specification import Specification, frame_of
from forex_core.tracking import (
    AUDIT,
    MLflowTracker,
    Registry,
    Standing,
    Version,
    open_store,
    replay_spool,
)
from forex_core.tracking.candidacy import Candidacy
from forex_core.tracking.packaging import save_model
from forex_core.tracking.records import forecast_record
from forex_core.tracking.registry import Pin
from forex_core.tracking.rollback import Succession
from forex_core.types import ForecastRun, Horizon, MarketBundle, Pair, Publication

NAME = "usdclp-7d"
WEEK = Horizon(7)
OURS = EngineConfig(members=("random_walk",), min_members=1, grid_origins=60, warmup_origins=8)
THEIRS = OURS.model_copy(update={"weight_rate": 0.5})


@dataclass(frozen=True)
class Learned:
    """A state of each recipe, learned from the same data, and the run that it was learned in."""

    run: ForecastRun
    specification: Specification


def learn(config: EngineConfig, bundle: MarketBundle) -> Learned:
    run = Engine(config, build_members(config, ChronosConfig())).forecast(bundle, WEEK)
    return Learned(run, Specification.of(run, bundle, config, ChronosConfig()))


@pytest.fixture(scope="module")
def ours(bundle: MarketBundle) -> Learned:
    return learn(OURS, bundle)


@pytest.fixture(scope="module")
def theirs(bundle: MarketBundle) -> Learned:
    return learn(THEIRS, bundle)


class Court:
    """A registry whose versions are states of real models."""

    def __init__(self, uri: str, bundle: MarketBundle, folder: Path) -> None:
        self.uri, self.bundle, self.folder = uri, bundle, folder
        self.registry = Registry(uri)
        self._made = 0

    @property
    def standing(self) -> Standing:
        return self.registry.standing(NAME)

    @property
    def candidacy(self) -> Candidacy:
        return Candidacy(self.registry, Pair("USD", "CLP"), WEEK)

    def version(
        self, learned: Learned, width: float = 1.0, *, until: date | None = None, published: bool = True
    ) -> Version:
        self._made += 1
        found = learned.specification.state
        factors = np.full_like(found.factors, width)
        state = replace(found, factors=factors, trained_until=until or found.trained_until)
        folder = self.folder / str(self._made)
        save_model(replace(learned.specification, state=state), frame_of(self.bundle), folder)
        tags = {"recipe": learned.run.recipe, "trained_until": state.trained_until}
        made = self.registry.register_model(NAME, folder.as_uri(), tags=tags)
        if published:
            self.registry.mark_published(made)
        return self.registry.version(NAME, made.number)

    def crown(self, version: Version) -> Version:
        with self.registry.lock(NAME):
            self.registry.succeed(self.standing, version)
        return version

    def succession(self) -> Succession:
        return Succession(self.registry, NAME, WEEK, self.bundle)

    def tracker(self, **options: Any) -> MLflowTracker:
        return MLflowTracker(
            self.uri, AUDIT, artifact_location=(self.folder / "mlruns").as_uri(), below=self.folder, **options
        )

    def carry_out(self, find: Callable[[Succession], Any], reason: str = "") -> dict[str, Any]:
        with self.registry.lock(NAME, 0):
            succession = self.succession()
            return succession.carry_out(find(succession), reason, None, self.tracker(), by="ana@desk")


@pytest.fixture
def court(sqlite_store: str, bundle: MarketBundle, tmp_path: Path) -> Court:
    return Court(sqlite_store, bundle, tmp_path / "data")


# --- the mark of what was published


def test_a_mark_that_the_store_did_not_take_comes_with_the_replay(court: Court, ours: Learned) -> None:
    first = court.version(ours, published=False)
    database = Path(court.uri.removeprefix("sqlite:///"))
    spool = court.folder / "spool"
    with court.tracker(spool=spool) as tracker:
        database.rename(database.with_name("away"))
        candidacy = court.candidacy
        candidacy.mark_published(Choice(Decision("initial", "first"), ours.run), first, tracker)
        assert candidacy.warnings == [], "the run is spooled, which is said elsewhere"
        assert tracker.degraded
        begun = tracker.run_id
        database.with_name("away").rename(database)
    assert not court.registry.version(NAME, 1).published
    (replayed,) = replay_spool(spool, court.uri)
    assert (replayed.run_id, replayed.outcome) == (begun, "logged")
    assert court.registry.version(NAME, 1).published


def test_a_mark_is_written_at_once_where_the_store_takes_it(court: Court, ours: Learned) -> None:
    first = court.version(ours, published=False)
    with court.tracker() as tracker:
        court.candidacy.mark_published(Choice(Decision("initial", "first"), ours.run), first, tracker)
        assert court.registry.version(NAME, 1).published


def test_a_mark_of_a_version_that_was_deleted_since_keeps_no_run_back(court: Court, ours: Learned) -> None:
    court.version(ours)
    database, spool = Path(court.uri.removeprefix("sqlite:///")), court.folder / "spool"
    with court.tracker(spool=spool) as tracker:
        database.rename(database.with_name("away"))
        tracker.set_version_tag(NAME, 1, "published", "true")
        tracker.log_metrics({"a": 1})
        database.with_name("away").rename(database)
    court.registry.client.delete_model_version(NAME, "1")
    (replayed,) = replay_spool(spool, court.uri)
    assert replayed.outcome == "logged"
    assert court.registry.client.get_run(str(replayed.run_id)).data.metrics == {"a": 1.0}


# --- the name of a spooled run


def test_every_replayed_run_carries_the_name_of_its_entry(court: Court) -> None:
    database, spool = Path(court.uri.removeprefix("sqlite:///")), court.folder / "spool"
    with court.tracker(spool=spool) as tracker:  # begun in the store
        database.rename(database.with_name("away"))
        tracker.log_metrics({"a": 1})
    database.write_bytes(b"not a database" * 1000)
    with court.tracker(spool=spool) as other:  # begun nowhere
        given = str(other.run_id)
    database.with_name("away").replace(database)
    assert given.startswith("spooled-")
    done = {one.spool_id: one.run_id for one in replay_spool(spool, court.uri)}
    client = open_store(court.uri)
    assert {client.get_run(str(run)).data.tags["spool_id"]: run for run in done.values()} == done
    assert done[given] not in (None, given)
    assert tracker.run_id in done.values()


# --- twins


def test_the_champions_state_over_again_is_no_candidate(court: Court, ours: Learned) -> None:
    court.crown(court.version(ours, 1.2))
    court.crown(court.version(ours))
    court.crown(court.version(ours))  # as by --force
    assert court.succession().rollback().target.number == 1
    assert court.succession().rollback("2").target.number == 2, "unless it is named"


def test_without_another_state_a_rollback_says_so(court: Court, ours: Learned) -> None:
    day = date(2017, 1, 2)
    court.crown(court.version(ours, until=day))  # learned another day, and says the same of any data
    court.crown(court.version(ours))
    reason = (
        r"no previous version to go back to: version 1 is the champion's state over again \(recipe, weights and "
        r"bands are those of version 2\), and would change nothing"
    )
    with pytest.raises(InputError, match=reason):
        court.succession().rollback()
    court.crown(court.version(ours, 1.1))
    assert court.succession().rollback().target.number == 2


def test_a_metric_does_not_rank_a_twin(court: Court, ours: Learned, monkeypatch: pytest.MonkeyPatch) -> None:
    for width in (1.3, 1.0, 1.0):
        court.crown(court.version(ours, width))
    figures = {1: 9.0, 2: 1.0, 3: 5.0}
    monkeypatch.setattr(court.registry, "metric_of", lambda version, _: figures[version.number])
    assert court.succession().rollback(metric="7d_rmse").target.number == 1


def test_the_champion_is_shown_beside_the_version_to_come(
    court: Court, ours: Learned, theirs: Learned
) -> None:
    court.crown(court.version(theirs, 1.5))
    court.crown(court.version(ours))
    document = court.succession().rollback().document
    run = ours.run
    wide, narrow = document["forecast"], document["champion_says"]
    assert document["champion_fault"] is None
    # With one member the two recipes differ in their bands alone, by the 1.5 that was put in.
    assert narrow["median"] == pytest.approx(wide["median"], rel=1e-12)
    median = run.forecast.median[-1]
    assert np.log(wide["high_80"] / median) == pytest.approx(1.5 * np.log(narrow["high_80"] / median))
    told = succession_markdown(document | {"dry_run": True})
    assert (
        f"Version 2, champion so far, says {narrow['median']:,.2f}, 80 % band {narrow['low_80']:,.2f}" in told
    )


def test_a_champion_that_says_nothing_is_left_all_the_same(
    court: Court, ours: Learned, theirs: Learned
) -> None:
    court.crown(court.version(theirs))
    broken = court.crown(court.version(ours))
    (court.registry.folder(broken) / "artifacts" / "specification.json").unlink()
    document = court.succession().rollback().document
    assert (document["to_version"], document["champion_says"]) == (1, None)
    assert "Version 2, champion so far, says nothing there: " in succession_markdown(
        document | {"dry_run": True}
    )


# --- marks of rollbacks, reasons


def test_who_is_promoted_by_hand_is_rolled_back_from_no_longer_and_nobody_else_is(
    court: Court, ours: Learned, theirs: Learned
) -> None:
    court.crown(court.version(theirs))
    court.crown(court.version(ours))

    def marked() -> list[int]:
        return sorted(v.number for v in court.registry.versions(NAME) if v.rolled_back)

    court.carry_out(lambda s: s.rollback())
    court.carry_out(lambda s: s.unpin())
    assert marked() == [2], "that it was left still holds: it is no candidate until someone promotes it"
    court.carry_out(lambda s: s.promote("2"))
    assert marked() == []
    court.carry_out(lambda s: s.rollback())
    assert marked() == [2]
    court.carry_out(lambda s: s.undo())
    assert marked() == []
    assert court.standing.pin is None


@pytest.mark.parametrize("reason", ["", " \n"])
def test_a_rollback_without_a_reason_says_that_there_is_none(
    court: Court, ours: Learned, theirs: Learned, reason: str
) -> None:
    court.crown(court.version(theirs))
    court.crown(court.version(ours))
    done = court.carry_out(lambda s: s.rollback(), reason)
    assert str(court.standing.pin).startswith("no reason given (ana@desk, ")
    audit = court.registry.client.get_run(done["audit_run"])
    assert audit.data.tags["mlflow.note.content"].endswith("version 2 to 1. No reason given.")
    said = succession_markdown(done | {"dry_run": False, "horizon": "7d", "pair": "USDCLP"})
    assert "pinned (no reason given)" in said


# --- challengers under a pin


def pinned(court: Court, champion: Version, rival: Version | None) -> Candidacy:
    court.crown(champion)
    with court.registry.lock(NAME):
        court.registry.enthrone(champion, Pin("ana", "2026-11-20", "hold"))
        if rival is not None:
            court.registry.challenge(rival)
    candidacy = court.candidacy
    candidacy.standing = court.standing
    return candidacy


def test_a_champions_own_next_state_displaces_no_challenger_of_another_recipe(
    court: Court, ours: Learned, theirs: Learned
) -> None:
    candidacy = pinned(court, court.version(ours), court.version(theirs, published=False))
    made = court.version(ours, 1.1, published=False)
    for outcome in ("pinned", "unsound"):
        choice = Choice(Decision(outcome, "Why."), ours.run, ours.run)  # type: ignore[arg-type]
        settled = candidacy.settle(choice, made, ours.run.forecast.origin)
        assert court.standing.challenger is not None
        assert court.standing.challenger.number == 2
        assert settled.decision.reason == (
            "Why. Version 3 is not on trial against it, so version 2 stays the challenger."
        )
        told = candidacy.publication(settled, made)
        assert (told.version, told.challenger) == (1, None)


def test_a_challenger_of_the_champions_own_recipe_gives_way(
    court: Court, ours: Learned, theirs: Learned
) -> None:
    candidacy = pinned(court, court.version(ours), court.version(ours, 1.1, published=False))
    made = court.version(ours, 1.2, published=False)
    choice = Choice(Decision("pinned", "Why."), ours.run, ours.run)
    assert candidacy.settle(choice, made, ours.run.forecast.origin) == choice
    assert candidacy.publication(choice, made).challenger == 3
    rival = court.version(theirs, published=False)
    candidacy.standing = court.standing
    candidacy.settle(choice, rival, ours.run.forecast.origin)
    assert court.standing.challenger is not None
    assert court.standing.challenger.number == 4, "and so does it to a challenger of another recipe"


def test_the_cure_for_a_champion_that_does_not_work_is_what_there_is(
    court: Court, ours: Learned, theirs: Learned
) -> None:
    back = "'forex rollback 7d --pair USDCLP' goes back to another version"
    assert pinned(court, court.version(ours), None).cure == back
    candidacy = pinned(court, court.version(ours), court.version(theirs))
    assert candidacy.cure == f"{back}, 'forex promote 7d --pair USDCLP' puts the challenger in its place"


# --- what of a decision is written, and when

LEAD = Comparison(-0.02, 0.005, 120, 120.0)


def on_trial(court: Court, ours: Learned, theirs: Learned) -> tuple[Candidacy, Version]:
    """A champion of another recipe, and the state that has just won against it."""
    court.crown(court.version(ours))
    candidacy = court.candidacy
    candidacy.standing = court.standing
    return candidacy, court.version(theirs, published=False)


def won(ours: Learned, theirs: Learned) -> Choice:
    return Choice(Decision("promoted", "The challenger is no worse.", LEAD), theirs.run, ours.run)


def test_a_contest_is_noted_with_its_outcome(court: Court, ours: Learned, theirs: Learned) -> None:
    candidacy, made = on_trial(court, ours, theirs)
    origin = theirs.run.forecast.origin
    assert candidacy.settle(won(ours, theirs), None, origin).decision.outcome == "withheld"
    assert court.standing.decided_on is None, "its winner could not be registered, and may win again"
    lost = Choice(Decision("kept", "It has not shown it.", LEAD), theirs.run, ours.run)
    assert candidacy.settle(lost, None, origin).decision.outcome == "kept"
    assert court.standing.decided_on == origin, "a lost one is lost, registered or not"
    court.registry.note_contest(NAME, date(2001, 1, 1))
    assert candidacy.settle(won(ours, theirs), made, origin).decision.outcome == "promoted"
    assert (court.standing.champion_number, court.standing.decided_on) == (2, origin)


@pytest.mark.parametrize("wrote", [False, True], ids=["before its write", "after its write"])
def test_what_is_told_is_what_the_registry_says_where_the_deciding_write_fails(
    court: Court, ours: Learned, theirs: Learned, monkeypatch: pytest.MonkeyPatch, wrote: bool
) -> None:
    """A winner is champion where the alias was written, whatever was said of that; its contest may be held again."""
    candidacy, made = on_trial(court, ours, theirs)
    point = court.registry._point

    def failing(*arguments: Any) -> None:
        if wrote:
            point(*arguments)
        raise TrackingError(
            "the connection was reset"
        )  # between a write and its answer, which no store does on demand

    monkeypatch.setattr(court.registry, "_point", failing)
    settled = candidacy.settle(won(ours, theirs), made, theirs.run.forecast.origin)
    told = candidacy.publication(settled, made)
    assert candidacy.warnings == ["The registry could not be written: the connection was reset."]
    assert (settled.decision.outcome, told.version) == (("promoted", 2) if wrote else ("withheld", 1))
    assert (court.standing.champion_number, court.standing.decided_on) == (told.version, None)
    assert settled.published is (theirs.run if wrote else ours.run)


# --- what a run says of itself


def test_a_run_records_the_settings_of_its_own_engine(
    bundle: MarketBundle, ours: Learned, theirs: Learned
) -> None:
    def params(decision: Decision, new: Learned, settings: EngineConfig) -> dict[str, str]:
        record = forecast_record(
            Choice(decision, new.run, ours.run),
            bundle,
            Publication(NAME, 1, decision.outcome, decision.reason),
            new.run.recipe,
            settings.model_dump(mode="json"),
        )
        assert record.params["settings"] == json.dumps(
            (theirs if decision.succeeds else ours).run.settings, sort_keys=True
        )
        return {name: value for name, value in record.params.items() if name.startswith("challenger")}

    tried = params(Decision("kept", "It did not win."), theirs, THEIRS)
    assert tried == {"challenger_recipe": theirs.run.recipe, "challenger_settings.weight_rate": "0.5"}
    assert params(Decision("promoted", "It won."), theirs, THEIRS) == {}, "it is what was published"
    assert params(Decision("pinned", "Held."), ours, OURS) == {}


def test_why_a_state_is_withheld_is_one_readable_sentence_after_another(ours: Learned) -> None:
    choice = Choice(
        Decision("refreshed", "It is the next state of the same recipe, and sound."), ours.run, ours.run
    )
    assert choice.withheld().decision.reason == (
        "The new state could not be made champion, so the one of before is published. Else it would have been: it is "
        "the next state of the same recipe, and sound."
    )


def test_when_the_next_contest_is_possible(bundle: MarketBundle, theirs: Learned, tmp_path: Path) -> None:
    year = bundle.origin.year + 1
    engine = Engine(OURS, build_members(OURS, ChronosConfig()))
    for decided, following in (
        (date(year, 12, 31), date(year + 1, 1, 1)),
        (date(year, 1, 1), date(year, 2, 1)),
    ):
        reigning = Reigning(1, theirs.specification, tmp_path, decided_on=decided)
        assert choose(engine, bundle, WEEK, reigning).decision.reason == (
            f"The last decision was on {decided}, as data go, and there is one a calendar month at most: the next is "
            f"possible on data that reach {following}."
        )
