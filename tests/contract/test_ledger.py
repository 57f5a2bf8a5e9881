"""What the ledger keeps to on every database: each forecast once, nothing changed unseen, scores at exact leads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from forex_core.calendars import origin_instant
from forex_core.data.store import ObservationStore
from forex_core.errors import LedgerError
from forex_core.ledger import Alarm, Entry, Ledger, content_digest, tables
from forex_core.testing import bundle_of, synthetic_table
from forex_core.types import LEVELS, Horizon, short_id
from tests.ledgers import USDCLP, entry

MONDAY = date(2026, 3, 2)
H7, H30 = Horizon(7), Horizon(30)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store' / 'forex.db'}"
    return str(request.getfixturevalue("new_postgres")())


@pytest.fixture
def ledger(url: str) -> Ledger:
    return Ledger(url)


def came(ledger: Ledger, values: dict[date, float], later: timedelta = timedelta()) -> Any:
    """As known when the last of the days was over, or later."""
    known = [origin_instant(USDCLP, day) for day in values]
    outcomes, now = np.array(list(values.values())), known[-1] + later
    return ledger.record(USDCLP, "close", list(values), outcomes, known, now=now)


@contextmanager
def unguarded(url: str) -> Iterator[sa.Connection]:
    """Somebody who may do anything with the database, and takes the guards away first."""
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            names = connection.exec_driver_sql(
                "SELECT name FROM sqlite_master WHERE type = 'trigger'"
            ).scalars()
            for name in list(names):
                connection.exec_driver_sql(f"DROP TRIGGER {name}")
        else:
            connection.exec_driver_sql("SET session_replication_role = replica")
        yield connection
    engine.dispose()


class TestPublications:
    def test_a_forecast_comes_back_as_it_was_written(self, ledger: Ledger) -> None:
        given = entry(MONDAY, H30, lean=0.003)
        written = ledger.append(given)
        path = ledger.path(written.number)
        assert path.of == written == ledger.publications()[0]
        assert (written.run_id, written.origin, written.version, written.live) == (
            given.run_id,
            MONDAY,
            1,
            True,
        )
        assert written.published_at == given.published_at
        np.testing.assert_array_equal(path.quantiles, given.quantiles)
        np.testing.assert_array_equal(path.walk, given.walk)
        np.testing.assert_array_equal(path.medians["theta"], given.medians[:, 1])
        assert path.target_dates == given.target_dates
        assert np.isnan(path.outcomes).all()

    def test_a_run_is_written_once(self, ledger: Ledger) -> None:
        first, again = ledger.append(entry(MONDAY)), ledger.append(entry(MONDAY))
        assert first == again
        assert ledger.verify().publications == 1

    def test_another_forecast_of_the_same_run_is_refused(self, ledger: Ledger) -> None:
        ledger.append(entry(MONDAY, run_id="a"))
        with pytest.raises(LedgerError, match=r"has another forecast of run a, and changes none; publish"):
            ledger.append(entry(MONDAY, run_id="a", lean=0.001))

    def test_a_row_cannot_be_changed_or_removed(self, ledger: Ledger, url: str) -> None:
        ledger.append(entry(MONDAY))
        engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
        statements = ["UPDATE predictions SET quantiles = '[]'", "DELETE FROM publications"]
        if engine.dialect.name == "sqlite":
            names = [column.name for column in tables.predictions.columns]
            other = ", ".join("'[]'" if name == "quantiles" else name for name in names)
            statements.append(f"INSERT OR REPLACE INTO predictions SELECT {other} FROM predictions")
            names = [column.name for column in tables.publications.columns]
            other = ", ".join(
                "99" if name == "number" else name for name in names
            )  # its run is unique as well
            statements.append(f"INSERT OR REPLACE INTO publications SELECT {other} FROM publications")
        for statement in statements:
            with (
                pytest.raises(sa.exc.DBAPIError, match="never changed or removed"),
                engine.begin() as connection,
            ):
                connection.exec_driver_sql(statement)
        engine.dispose()

    def test_many_write_one_chain(self, url: str) -> None:
        days = [MONDAY + timedelta(days=k) for k in range(8)]
        threads = [threading.Thread(target=lambda day=day: Ledger(url).append(entry(day))) for day in days]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        audit = Ledger(url).verify()
        assert (audit.publications, audit.faults) == (8, ())
        assert audit.head == Ledger(url).publications()[-1].digest

    def test_it_shares_a_database_with_the_observations(self, ledger: Ledger, url: str) -> None:
        ObservationStore(url).names()
        ledger.append(entry(MONDAY))
        assert ObservationStore(url).names() == ()
        assert ledger.verify().publications == 1

    def test_the_last_ones_and_those_of_a_horizon(self, ledger: Ledger) -> None:
        for k in range(4):
            ledger.append(entry(MONDAY + timedelta(days=k)))
        ledger.append(entry(MONDAY, H30))
        assert [p.origin.day for p in ledger.publications(USDCLP, H7, last=2)] == [4, 5]
        assert [p.horizon for p in ledger.publications(origin=MONDAY)] == [H7, H30]
        assert ledger.kinds() == ((USDCLP, "close"),)
        assert [(p.horizon, step) for p, step, _ in ledger.for_date(USDCLP, date(2026, 3, 4))] == [
            (H7, 2),
            (H7, 1),
            (H30, 2),
        ]


class TestScores:
    def test_each_lead_has_its_own_score(self, ledger: Ledger) -> None:
        given = entry(MONDAY, lean=0.002)
        ledger.append(given)
        assert came(ledger, {MONDAY + timedelta(days=1): 955.0, MONDAY + timedelta(days=2): 970.0}).new == 2
        one, two = ledger.score()
        assert (one.step, two.step) == (1, 2)
        assert one.error == 955.0 - given.quantiles[0, LEVELS.index(0.5)]
        assert two.walk_error == 20.0
        assert one.members == {"random_walk": 5.0, "theta": 955.0 - given.medians[0, 1]}
        # By the definition: twice the pinball loss, weighted by the room between the neighbouring levels.
        edges = [0.0, *LEVELS, 1.0]
        pinball = [
            2 * (edges[q + 2] - edges[q]) / 2 * max(a * (955.0 - x), (a - 1) * (955.0 - x))
            for q, (a, x) in enumerate(zip(LEVELS, given.quantiles[0], strict=True))
        ]
        assert one.crps == pytest.approx(sum(pinball), rel=1e-12)
        assert (one.inside_80, two.inside_80, two.inside_95, two.walk_inside_95) == (
            True,
            False,
            False,
            False,
        )
        assert ledger.score() == ()

    def test_a_revised_outcome_is_a_new_row_and_a_new_score(self, ledger: Ledger) -> None:
        ledger.append(entry(MONDAY))
        day = MONDAY + timedelta(days=1)
        came(ledger, {day: 955.0})
        ledger.score()
        same = came(ledger, {day: 955.0}, later=timedelta(hours=1))
        assert (same.new, same.revised) == (0, 0)
        revised = came(ledger, {day: 956.0}, later=timedelta(days=1))
        assert (revised.new, revised.revised) == (0, 1)
        (again,) = ledger.score()
        assert again.revised
        assert again.walk_error == 6.0
        assert ledger.track(USDCLP, "close", H7).walk_errors.tolist() == [6.0]
        assert ledger.verify().outcomes == 2
        assert ledger.path(1).outcomes[0] == 956.0

    def test_what_was_known_earlier_revises_nothing(self, ledger: Ledger) -> None:
        """As where the monitor is asked for a past day, after the rate of that day was revised."""
        ledger.append(entry(MONDAY))
        day = MONDAY + timedelta(days=1)
        known = [origin_instant(USDCLP, day)]
        now = known[0] + timedelta(days=30)
        ledger.record(USDCLP, "close", [day], np.array([956.0]), known, as_of=now, now=now)
        for earlier in (known[0], now):
            again = ledger.record(USDCLP, "close", [day], np.array([955.0]), known, as_of=earlier, now=now)
            assert (again.new, again.revised) == (0, 0)
        assert ledger.path(1).outcomes[0] == 956.0

    def test_an_outcome_that_is_withdrawn_is_scored_no_more_until_it_comes_again(
        self, ledger: Ledger
    ) -> None:
        ledger.append(entry(MONDAY))
        day, tuesday = MONDAY + timedelta(days=2), MONDAY + timedelta(days=1)
        came(ledger, {tuesday: 955.0, day: 9550.0})
        ledger.score()
        gone = came(ledger, {tuesday: 955.0, day: float("nan")}, later=timedelta(days=1))
        assert (gone.new, gone.revised) == (0, 1)
        again = came(ledger, {day: float("nan")}, later=timedelta(days=2))
        assert (again.new, again.revised) == (0, 0)
        assert ledger.score() == ()
        assert ledger.track(USDCLP, "close", H7).steps.tolist() == [1]
        np.testing.assert_array_equal(ledger.path(1).outcomes[:2], [955.0, np.nan])
        assert ledger.rates(USDCLP, "close")[0].astype(str).tolist() == [str(MONDAY), str(tuesday)]
        assert ledger.withdrawn(USDCLP, "close") == {day}
        assert ledger.withdrawn(USDCLP, "observed") == frozenset()
        audit = ledger.verify()
        assert (audit.outcomes, audit.unscored, audit.faults) == (3, 0, ())
        came(ledger, {day: 956.0}, later=timedelta(days=3))
        assert ledger.withdrawn(USDCLP, "close") == frozenset()
        (one,) = ledger.score()
        assert (one.step, one.outcome, one.revised) == (2, 956.0, True)
        assert ledger.verify().faults == ()

    def test_a_print_that_was_refuted_since_is_withdrawn(self, ledger: Ledger) -> None:
        table = synthetic_table(400, start="2024-09-02")
        days = pd.DatetimeIndex(table.iloc[:, 0])
        origin, day = days[-12].date(), days[-10].date()
        ledger.append(entry(origin, close=float(table["USDCLP"].iloc[-12])))
        assert ledger.observe(bundle_of(table)).new > 3
        scored = ledger.score()
        (target,) = (one for one in scored if one.target_date == day)
        known = target.known_at
        lacking = ledger.observe(bundle_of(table.drop(index=len(table) - 10)))
        assert (lacking.new, lacking.revised) == (0, 0), "a file that lacks a row doubts nothing"
        table.loc[len(table) - 10, "USDCLP"] /= 10
        seen = ledger.observe(bundle_of(table))
        assert (seen.new, seen.revised) == (0, 1)
        ledger.score()
        left = ledger.track(USDCLP, "close", H7)
        assert left.target_dates.tolist() == [one.target_date for one in scored if one is not target]
        # Nobody doubted it then.
        assert day in ledger.track(USDCLP, "close", H7, until=known).target_dates.tolist()

    def test_a_look_back_sees_what_was_published_known_and_raised_by_then(self, ledger: Ledger) -> None:
        days = [MONDAY + timedelta(days=k) for k in range(4)]
        given = [entry(day, lean=0.001 * k) for k, day in enumerate(days)]
        again = entry(days[0], run_id="again", after=pd.Timedelta(hours=3))
        for one in (*given, again):
            ledger.append(one)
        for day, value in zip(days[1:], (951.0, 952.0, 953.0), strict=True):
            came(ledger, {day: value})
            ledger.score()
            alarm = Alarm("no skill", 5, day, 2.0, 1.0, "worse")
            ledger.raise_alarm(USDCLP, "close", H7, alarm, now=origin_instant(USDCLP, day))
        seen = [origin_instant(USDCLP, days[3])]
        ledger.record(USDCLP, "close", [days[1]], np.array([960.0]), seen, now=seen[0])
        ledger.score()

        def track(until: pd.Timestamp | None) -> list[tuple[int, int, float]]:
            found = ledger.track(USDCLP, "close", H7, until=until)
            columns = (found.publications, found.steps, found.outcomes)
            return list(zip(*(column.tolist() for column in columns), strict=True))

        then = origin_instant(USDCLP, days[2])
        assert track(then) == [(5, 1, 951.0), (5, 2, 952.0), (2, 1, 952.0)]
        first = given[0].published_at
        assert track(first) == []
        assert [one.number for one in ledger.publications(USDCLP, H7, live=True, until=then)] == [1, 2, 5]
        assert [one.number for one in ledger.publications(USDCLP, H7, until=first)] == [1]
        assert [one.alarm.origin for one in ledger.alarms(USDCLP, until=then)] == days[1:3]
        assert (5, 1, 960.0) in track(None)
        assert len(ledger.alarms(USDCLP)) == 3

    def test_an_outcome_that_is_late_is_scored_when_it_comes(self, ledger: Ledger) -> None:
        ledger.append(entry(MONDAY))
        came(ledger, {MONDAY + timedelta(days=3): 955.0})
        assert [one.step for one in ledger.score()] == [3]
        came(ledger, {MONDAY + timedelta(days=1): 955.0})
        assert [one.step for one in ledger.score()] == [1]

    def test_what_no_forecast_is_for_is_not_kept(self, ledger: Ledger) -> None:
        ledger.append(entry(MONDAY))
        assert came(ledger, {date(2026, 5, 4): 950.0, MONDAY + timedelta(days=1): float("nan")}).new == 0

    def test_another_rate_or_pair_is_no_outcome(self, ledger: Ledger) -> None:
        ledger.append(entry(MONDAY))
        day = MONDAY + timedelta(days=1)
        assert (
            ledger.record(USDCLP, "observed", [day], np.array([950.0]), [origin_instant(USDCLP, day)]).new
            == 0
        )
        assert ledger.score() == ()

    def test_the_last_forecast_before_the_outcome_stands(self, ledger: Ledger) -> None:
        late = pd.Timedelta(days=3)
        # The one that was published first had to wait, and is written after the next.
        for n, after in enumerate((pd.Timedelta(hours=3), pd.Timedelta(minutes=1), late)):
            ledger.append(entry(MONDAY, run_id=f"{n}", lean=0.001 * n, after=after))
        ledger.append(entry(MONDAY + timedelta(days=1), run_id="hindsight", after=late))
        came(ledger, {MONDAY + timedelta(days=k): 950.0 for k in (1, 2, 3)})
        ledger.score()
        track = ledger.track(USDCLP, "close", H7)
        assert set(track.publications.tolist()) == {1}
        assert track.steps.tolist() == [1, 2, 3]
        assert [path.of.number for path in ledger.paths(USDCLP, "close", H7)] == [1, 4]

    def test_the_last_lead_is_that_of_the_horizon(self, ledger: Ledger) -> None:
        ledger.append(entry(MONDAY))
        ledger.append(entry(MONDAY + timedelta(days=1)))
        came(ledger, {MONDAY + timedelta(days=k): 950.0 + k for k in range(1, 8)})
        ledger.score()
        last = ledger.track(USDCLP, "close", H7).last_lead
        assert (last.origins.tolist(), last.steps.tolist()) == ([MONDAY], [5])
        since = ledger.track(USDCLP, "close", H7, since=MONDAY + timedelta(days=1))
        assert set(since.origins.tolist()) == {MONDAY + timedelta(days=1)}


TAMPERED = {
    "forecast 2: changed": "UPDATE predictions SET quantiles = '[1]' WHERE publication = 2 AND step = 1",
    "forecast 1: changed": "UPDATE publications SET close = 940 WHERE number = 1",
    "forecast 3: changed": "DELETE FROM predictions WHERE publication = 3 AND step = 2",
    "forecast 2: removed": "DELETE FROM publications WHERE number = 2",
    "outcome 1: changed": "UPDATE outcomes SET value = 951 WHERE number = 1",
    "score of forecast 1 at step 1: does not follow": "UPDATE scores SET error = 0 WHERE publication = 1 AND step = 1",
    "score of forecast 1 at step 2: removed": "DELETE FROM scores WHERE publication = 1 AND step = 2",
    "score of forecast 2 at step 1: removed": "DELETE FROM scores WHERE publication = 2",
    "run last recorded the digest": "DELETE FROM publications WHERE number = 4",
    "run outcomes recorded the digest": "DELETE FROM outcomes WHERE number = 3",
    "run alarms recorded the digest": "DELETE FROM alarms",
    "alarm 1: changed": "UPDATE alarms SET statistic = 0",
}


def test_an_alarm_is_untold_until_somebody_has_heard_of_it(ledger: Ledger) -> None:
    now = origin_instant(USDCLP, MONDAY)
    for k in range(3):
        alarm = Alarm("no skill", 5, MONDAY + timedelta(days=k), 2.0, 1.0, "worse")
        ledger.raise_alarm(USDCLP, "close", H7, alarm, now=now + pd.Timedelta(days=k))
    untold = ledger.alarms(USDCLP, untold_since=now + pd.Timedelta(days=1))
    assert [one.number for one in untold] == [2, 3]
    ledger.told(untold[:1])
    ledger.told(untold[:1])
    assert [one.number for one in ledger.alarms(untold_since=now)] == [1, 3]
    assert len(ledger.alarms()) == 3


class TestVerify:
    @pytest.mark.parametrize("fault", TAMPERED)
    def test_what_was_changed_is_found(self, ledger: Ledger, url: str, fault: str) -> None:
        for k in range(3):
            ledger.append(entry(MONDAY + timedelta(days=k)))
        last = ledger.append(entry(MONDAY + timedelta(days=3), run_id="last"))
        came(ledger, {MONDAY + timedelta(days=k): 955.0 for k in (1, 2, 3)})
        ledger.score()
        ledger.raise_alarm(USDCLP, "close", H7, Alarm("no skill", 5, MONDAY, 2.0, 1.0, "worse"))
        outcome, alarm = ledger.heads()
        assert outcome
        assert alarm
        anchors = [("last", last.digest), ("outcomes", outcome), ("alarms", alarm)]
        assert ledger.verify(anchors).faults == ()
        with unguarded(url) as connection:
            connection.exec_driver_sql(TAMPERED[fault])
        assert any(found.startswith(fault) for found in ledger.verify(anchors).faults)

    def test_the_score_of_an_outcome_that_was_revised_since_is_missed_too(
        self, ledger: Ledger, url: str
    ) -> None:
        day = MONDAY + timedelta(days=2)
        for k in range(2):
            ledger.append(entry(MONDAY + timedelta(days=k)))
        for later, value in enumerate((955.0, 956.0)):
            came(ledger, {day: value}, later=timedelta(days=later))
            ledger.score()
        with unguarded(url) as connection:
            connection.exec_driver_sql("DELETE FROM scores WHERE publication = 1 AND outcome = 1")
        assert ledger.verify().faults == ("score of forecast 1 at step 2: removed",)

    def test_what_is_not_scored_yet_is_no_fault(self, ledger: Ledger) -> None:
        """As after a kill between outcome and score, and of a forecast in hindsight that was written since."""
        days = [MONDAY + timedelta(days=k) for k in range(1, 5)]
        ledger.append(entry(MONDAY))
        came(ledger, {days[0]: 955.0})
        assert (ledger.verify().faults, ledger.verify().unscored) == ((), 1)
        ledger.score()
        assert (ledger.verify().faults, ledger.verify().unscored) == ((), 0)
        came(ledger, {days[0]: 956.0, days[1]: 957.0}, later=timedelta(days=1))
        came(ledger, {days[1]: 958.0}, later=timedelta(days=2))  # before the one of before was scored
        assert (ledger.verify().faults, ledger.verify().unscored) == ((), 2)
        ledger.score()
        ledger.append(entry(MONDAY, run_id="hindsight", after=pd.Timedelta(days=3)))
        assert (ledger.verify().faults, ledger.verify().unscored) == ((), 2)
        ledger.append(entry(days[1]))
        came(ledger, {days[2]: 959.0, days[3]: 960.0})
        ledger.score()
        assert (ledger.verify().faults, ledger.verify().unscored) == ((), 0)

    def test_an_outcome_that_was_rewritten_with_its_digest_is_found_by_the_next(
        self, ledger: Ledger, url: str
    ) -> None:
        ledger.append(entry(MONDAY))
        came(ledger, {MONDAY + timedelta(days=k): 955.0 for k in (1, 2)})
        with unguarded(url) as connection:
            connection.execute(
                sa.update(tables.outcomes).where(tables.outcomes.c.number == 1).values(digest="0" * 64)
            )
        assert "outcome 2: another one stood before it" in ledger.verify().faults

    def test_a_forecast_that_was_written_late_needs_a_run_that_vouches_for_it(self, ledger: Ledger) -> None:
        """A file among those that wait may say of itself that it was published long ago."""
        in_time, late, made_up = entry(MONDAY), entry(MONDAY, H30), entry(MONDAY, version=2)
        after = in_time.outcome_at + pd.Timedelta(days=1)
        ledger.append(in_time, now=in_time.published_at)
        for one in (late, made_up):
            assert ledger.append(one, now=after).live
        (fault,) = ledger.verify(vouched={content_digest(late)}).faults
        assert fault.startswith("forecast 3: written at 2026-03-04T22:00")
        assert ledger.verify(vouched=None).faults == (), "nobody records anything"

    def test_it_counts_until_its_first_outcome_is_released(self) -> None:
        """A close of Tuesday is out at 17:00 in New York, hours before the desk opens on Wednesday."""
        out = pd.Timestamp("2026-03-03 17:00", tz="America/New_York")
        spoke = origin_instant(USDCLP, MONDAY)
        assert entry(MONDAY, after=out - spoke - pd.Timedelta(seconds=1)).is_live
        assert not entry(MONDAY, after=out - spoke).is_live


def test_an_entry_outlives_its_process_as_json() -> None:
    given = entry(MONDAY, H30, lean=0.0012345678901)
    back = Entry.from_json(given.to_json())
    for name in ("quantiles", "walk", "medians"):
        np.testing.assert_array_equal(getattr(back, name), getattr(given, name))
    assert back.to_json() == given.to_json()


class TestWhatPagesRead:
    def test_the_latest_is_of_the_newest_origin_and_not_what_was_written_last(self, ledger: Ledger) -> None:
        for day in (MONDAY + timedelta(days=1), MONDAY):
            ledger.append(entry(day))
        again = ledger.append(entry(MONDAY + timedelta(days=1), version=2))
        ledger.append(entry(MONDAY - timedelta(days=30), after=pd.Timedelta(days=40)))
        ledger.append(entry(MONDAY + timedelta(days=1), version=3, after=pd.Timedelta(days=40)))
        other = ledger.append(entry(MONDAY, H30))
        assert ledger.latest() == (again, other)

    def test_up_to_a_day_are_its_forecasts_and_the_one_before(self, ledger: Ledger) -> None:
        days = [MONDAY + timedelta(days=k) for k in range(4)]
        ledger.append(entry(days[0]))
        before = ledger.append(entry(days[1], version=2))
        own = [ledger.append(entry(days[2], version=k)) for k in (3, 4)]
        late = ledger.append(entry(days[2], version=5, after=pd.Timedelta(days=30)))
        ledger.append(entry(days[1], version=6, after=pd.Timedelta(days=31)))
        ledger.append(entry(days[1], H30))
        assert ledger.up_to(USDCLP, "close", H7, days[2]) == (own[1], own[0], late, before)
        assert ledger.up_to(USDCLP, "close", H7, days[3]) == (own[1],)
        assert ledger.up_to(USDCLP, "observed", H7, days[3]) == ()

    def test_forecasts_are_found_by_what_is_shown_of_their_runs(self, ledger: Ledger) -> None:
        """In capital letters too; what stands for any character elsewhere stands for itself."""
        ids = (
            "0A1b2c3d" + 24 * "0",
            f"spooled-276F7B0C{24 * '0'}",
            f"spooled-aaaaaaaa{24 * '0'}",
            "untracked-forecast_20260302_110500-0a1b2c3e",
            "untracked-forecast_20260302_110500-bbbbbbbb",
        )
        for k, run_id in enumerate(ids):
            ledger.append(entry(MONDAY, run_id=run_id, version=k))
        for run_id in ids:
            for asked in (run_id, short_id(run_id)):
                for written in (asked, asked.upper(), asked.lower()):
                    assert [one.run_id for one in ledger.of_run(written)] == [run_id], written
        assert [one.run_id for one in ledger.of_run("0A1B2C3")] == [ids[0], ids[3]]
        assert [one.run_id for one in ledger.of_run("untracked-")] == [*ids[3:]]
        assert [one.run_id for one in ledger.of_run("276f7b0c0000")] == [ids[1]]
        for nothing in ("%", "________", "\\", "1b2c3d00", "forecast", "forecast_20260302"):
            assert ledger.of_run(nothing) == ()

    def test_the_path_of_an_origin_is_the_last_live_one_and_else_hindsight(self, ledger: Ledger) -> None:
        days = [MONDAY + timedelta(days=k) for k in range(3)]
        ledger.append(entry(days[0]))
        live = ledger.append(entry(days[0], version=2))
        ledger.append(entry(days[0], version=3, after=pd.Timedelta(days=30)))
        ledger.append(entry(days[1], after=pd.Timedelta(days=29)))
        hindsight = ledger.append(entry(days[1], version=2, after=pd.Timedelta(days=30)))
        last = ledger.append(entry(days[2]))
        came(ledger, {days[2]: 952.0})
        paths = ledger.paths(USDCLP, "close", H7)
        assert [path.of for path in paths] == [live, hindsight, last]
        assert paths[0].outcomes[:2].tolist() == pytest.approx([np.nan, 952.0], nan_ok=True)
        np.testing.assert_array_equal(paths[1].quantiles, ledger.path(hindsight.number).quantiles)
        (one,) = ledger.paths(USDCLP, "close", H7, first=days[1], last=days[1])
        assert one.of == hindsight
        assert ledger.paths(USDCLP, "observed", H7) == ()

    def test_what_is_known_of_the_rate_is_what_came_and_else_where_forecasts_began(
        self, ledger: Ledger
    ) -> None:
        ledger.append(entry(MONDAY, close=950.0))
        ledger.append(entry(MONDAY + timedelta(days=1), close=951.0))
        came(ledger, {MONDAY + timedelta(days=1): 951.5, MONDAY + timedelta(days=2): 953.0})
        days, values, is_outcome = ledger.rates(USDCLP, "close")
        assert days.astype(str).tolist() == ["2026-03-02", "2026-03-03", "2026-03-04"]
        assert values.tolist() == [950.0, 951.5, 953.0]
        assert is_outcome.tolist() == [False, True, True]
        assert ledger.rates(USDCLP, "close", MONDAY + timedelta(days=2))[1].tolist() == [953.0]
        assert ledger.rates(USDCLP, "close", until=MONDAY + timedelta(days=1))[1].tolist() == [950.0, 951.5]

    def test_what_nobody_records_is_unanswered(self, ledger: Ledger) -> None:
        ahead = entry(MONDAY).target_dates
        ledger.append(entry(MONDAY))
        ledger.append(entry(MONDAY - timedelta(days=30), after=pd.Timedelta(days=30)))
        assert ledger.unanswered(MONDAY) == (), (
            "nothing is due, and what was said in hindsight asks for nothing"
        )
        assert ledger.unanswered(ahead[1]) == ((USDCLP, "close", ahead[0]),)
        came(ledger, {ahead[1]: 951.0})
        assert ledger.unanswered(ahead[1]) == (), "on the first one there was no print"
        assert ledger.unanswered(ahead[-1]) == ((USDCLP, "close", ahead[2]),)

    def test_a_track_of_ends_alone_is_the_last_lead_of_the_whole(self, ledger: Ledger) -> None:
        days = [MONDAY + timedelta(days=k) for k in range(20) if (MONDAY + timedelta(days=k)).weekday() < 5]
        for day in days[:5]:
            ledger.append(entry(day))
        came(ledger, {day: 950.0 + k for k, day in enumerate(days)})
        ledger.score()
        whole, ends = ledger.track(USDCLP, "close", H7), ledger.track(USDCLP, "close", H7, ends=True)
        assert len(whole) > len(ends) == 5
        np.testing.assert_array_equal(ends.errors, whole.last_lead.errors)

    def test_a_file_that_is_not_there_is_not_made(self, tmp_path: Path) -> None:
        path = tmp_path / "store" / "forex.db"
        assert not Ledger(f"sqlite:///{path}").is_made
        assert not path.exists()
