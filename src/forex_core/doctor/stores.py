"""Checks of what the system keeps and whom it tells: tracking store, runs and files, spool, data, archives, targets."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from forex_core.config import Settings
from forex_core.data.catalogue import NEEDS, entry
from forex_core.databases import is_database, sqlite_path
from forex_core.doctor.base import Finding, Patient
from forex_core.errors import ForexError, SourceError
from forex_core.secrecy import without_password
from forex_core.types import HORIZONS, Horizon, MarketBundle, Pair, short_id

if TYPE_CHECKING:
    from forex_core.tracking.queries import RunRow

SHOWN = 3
"""Of a long list."""
LATE_AFTER_DAYS = 10
"""A forecast that is made once a week, and a holiday."""
ARCHIVED_WITHIN = timedelta(days=2)
"""Of archives that are made every night, one may fail."""
KEPT_SOURCES = ("store", "live", "auto")
_OFF = Finding("skipped", "tracking is off (tracking.enabled, tracking.backend)")


def tracking_store(patient: Patient) -> Finding:
    """The store can be opened, is of this MLflow, keeps its files where they belong, and is sound."""
    from forex_core.tracking.health import store_state

    if not patient.settings.tracking.is_on:
        return _OFF
    address = without_password(patient.settings.mlflow_uri)
    state = store_state(patient.settings)
    if state is None:
        return Finding("ok", f"none at {address} yet; the first forecast makes it")
    if state.damage:
        return Finding(
            "failed", f"{address} is damaged: {state.damage}", "restore it from a backup (docs/operations.md)"
        )
    told = f"{address}: {state.experiments} experiments"
    if state.journal is None:
        return Finding("ok", told)
    told = f"{told}, {state.megabytes:.1f} MB, journal mode {state.journal}"
    if state.journal != "wal":
        path = sqlite_path(patient.settings.mlflow_uri)
        return Finding("warning", told, f"sqlite3 {path} 'PRAGMA journal_mode=WAL'")
    return Finding("ok", told)


def run_files(patient: Patient) -> Finding:
    """The files that the store names are there, and the champions' are those that were registered."""
    from forex_core.tracking.health import missing_files

    if not patient.settings.tracking.is_on:
        return _OFF
    if not _has_store(patient.settings):
        return Finding("ok", "no runs yet")
    files = missing_files(patient.settings)
    if files.lacking:
        todo = "restore them from a backup (docs/operations.md)"
        return Finding("failed", f"{len(files.lacking)} lack files: {_some(files.lacking)}", todo)
    return Finding("ok", f"{files.runs} published runs and {files.champions} champions have theirs")


def orphaned_runs(patient: Patient) -> Finding:
    """No run is RUNNING whose process is gone."""
    from forex_core.tracking.orphans import running_runs
    from forex_core.tracking.queries import existing_store

    chosen = patient.settings
    if not chosen.tracking.is_on:
        return _OFF
    with existing_store(chosen.mlflow_uri) as client:
        limit = timedelta(hours=chosen.tracking.orphaned_after_h)
        found = running_runs(client, chosen.spool_dir, limit) if client else []
    orphaned = [
        f"{short_id(one.run_id)} of {one.experiment}: {one.why}" for one in found if one.state == "orphaned"
    ]
    if orphaned:
        return Finding(
            "warning", f"{len(orphaned)}, such as {_some(orphaned)}", "forex tracking sweep ends them"
        )
    return Finding("ok", f"none; {len(found)} running" if found else "none")


def spool(patient: Patient) -> Finding:
    """Nothing waits to be logged."""
    from forex_core.tracking.spool import waiting

    found = waiting(patient.settings.spool_dir)
    if not found:
        return Finding("ok", "nothing waits")
    known = [header for header in found.values() if header]
    told = f"{len(found)} runs wait in {patient.settings.spool_dir}"
    if known:
        since = datetime.fromtimestamp(min(header.start_time for header in known) / 1000, UTC)
        told += f", since {since:%Y-%m-%d %H:%M} UTC: {known[0].reason}"
    return Finding("warning", told, "when the tracking store can be reached: forex tracking replay")


def forecasts(patient: Patient) -> Finding:
    """When each horizon was last published, and not after now."""
    from forex_core.tracking import begun_ahead, queries

    chosen = patient.settings
    if not chosen.tracking.is_on:
        return _OFF
    pair, now = Pair.parse(chosen.pair), datetime.now(UTC)
    if wrong := begun_ahead(chosen):
        return Finding("failed", wrong)
    with queries.existing_store(chosen.mlflow_uri) as client:
        last = (
            {ahead: _published(queries.runs(client, pair, ahead, 1, "finished")) for ahead in HORIZONS}
            if client
            else {}
        )
    made = {ahead: run for ahead, run in last.items() if run}
    if not made:
        return Finding("ok", f"none of {pair} yet")
    told = ", ".join(f"{ahead} {run.started:%Y-%m-%d}" for ahead, run in made.items())
    late = [str(ahead) for ahead, run in made.items() if (now - run.started).days > _late_after_days(ahead)]
    if late:
        todo = "see why none was made since: forex runs list " + late[0]
        return Finding("warning", f"{pair}: {told}; late: {', '.join(late)}", todo)
    return Finding("ok", f"{pair}: {told}")


def _published(rows: list[RunRow]) -> RunRow | None:
    return rows[0] if rows else None


def _late_after_days(ahead: Horizon) -> int:
    return min(ahead.days, LATE_AFTER_DAYS)


def observation_store(patient: Patient) -> Finding:
    """The store of observations can be read and is sound."""
    from forex_core.data.loading import store_of
    from forex_core.tracking.health import damage_of

    chosen = patient.settings
    path, store = sqlite_path(chosen.store_url), store_of(chosen)
    if path is not None and not path.is_file():
        if chosen.source in KEPT_SOURCES:
            return Finding(
                "warning", f"none at {store.address} yet", f"forex data fetch --pair {chosen.pair}"
            )
        return Finding("skipped", f"none, and source {chosen.source} needs none")
    if path is None and chosen.source not in KEPT_SOURCES and chosen.data.store_url is None:
        return Finding("skipped", f"source {chosen.source} needs none")
    damage = damage_of(path) if path else None
    if damage:
        return Finding(
            "failed", f"{store.address} is damaged: {damage}", "restore it from a backup (docs/operations.md)"
        )
    series = len(store.names()) if store.is_made else 0
    return Finding("ok", f"{store.address}: {series} series")


def ledger(patient: Patient) -> Finding:
    """Published forecasts are in the ledger, none waits for it, and what came of them is recorded."""
    from forex_core.ledger import Ledger, Pending

    chosen = patient.settings
    due = datetime.now(UTC).date() - timedelta(days=chosen.monitor.unscored_after_days)
    book, waiting = Ledger(chosen.store_url, chosen.root), len(Pending(chosen.pending_dir))
    last = book.publications(last=1) if book.is_made else ()
    told = (
        f"the last of {last[0].number} forecasts was of {last[0].pair} {last[0].horizon}"
        if last
        else "none yet"
    )
    if waiting:
        return Finding(
            "warning", f"{told}; {waiting} wait in {chosen.pending_dir}", "write them: forex monitor"
        )
    unanswered = book.unanswered(due) if last else ()
    if unanswered:
        told += "; nothing was recorded of what came of " + _some(
            [f"{pair} ({rate}) from {since} on" for pair, rate, since in unanswered]
        )
        todo = f"forex monitor --pair {unanswered[0][0]}; see why the flow monitor does not: prefect deployment ls"
        return Finding("warning", told, todo)
    return Finding("ok", told)


def data_sources(patient: Patient) -> Finding:
    """A forecast of today would find its data, and they are fresh; whoever can be asked has the key that he needs."""
    from forex_core.data.loading import bundle_of, stored_bundle

    chosen = patient.settings
    pair = Pair.parse(chosen.pair)
    try:
        bundle = stored_bundle(chosen, pair, None) if chosen.source in KEPT_SOURCES else bundle_of(chosen)
    except ForexError as error:
        if not chosen.is_fetched:
            raise
        return _told(
            patient,
            pair,
            f"the store has nothing fresh, and a forecast asks the network first ({error})",
            True,
        )
    notes = _notes(bundle)
    told = f"{pair} from {chosen.source}: {len(bundle)} rows up to {bundle.origin}"
    return _told(patient, pair, "; ".join([told, *notes]), bool(notes))


def _notes(bundle: MarketBundle) -> list[str]:
    """What a forecast would go without."""
    names = {kind: [r.series for r in bundle.repairs if r.kind == kind] for kind in ("missing", "stale")}
    return [f"{kind}: {', '.join(dict.fromkeys(found))}" for kind, found in names.items() if found]


def _told(patient: Patient, pair: Pair, found: str, is_poor: bool) -> Finding:
    """With what is missing of keys and, where the network may be asked, who does not answer."""
    problems = []
    if patient.settings.source in KEPT_SOURCES:
        problems = [
            *_keys_missing(patient.settings, pair),
            *(_unreachable(patient, pair) if patient.online else ()),
        ]
    source = patient.settings.source
    fetch = f"forex data fetch --pair {pair}" if source in KEPT_SOURCES else ""
    fetch = "bring newer files" if source == "csv" and is_poor else fetch
    if problems or is_poor:
        return Finding("warning", "; ".join([found, *problems]), fetch)
    return Finding("ok", found)


def _keys_missing(settings: Settings, pair: Pair) -> list[str]:
    """Series of the pair that nobody can be asked for, for want of a key."""
    from forex_core.data.loading import sources_of, wanted_series

    with sources_of(settings) as sources:
        lost = [
            (name, [feed.source for feed in entry(name).feeds])
            for name in wanted_series(settings, pair)
            if entry(name).feeds and not any(feed.source in sources.fetchers for feed in entry(name).feeds)
        ]
    return [f"{name} needs {' or '.join(NEEDS.get(one, one) for one in feeds)}" for name, feeds in lost]


def _unreachable(patient: Patient, pair: Pair) -> list[str]:
    """Sources that do not answer, each asked for the last days of one series; nothing is kept of what they say."""
    from forex_core.data.loading import sources_of, wanted_series

    asked: dict[str, str] = {}
    for name in wanted_series(patient.settings, pair):
        for feed in entry(name).feeds:
            asked.setdefault(feed.source, name)
    today, problems = date.today(), []
    with sources_of(patient.settings) as sources:
        for source, name in asked.items():
            if source not in sources.fetchers:
                continue
            try:
                sources.fetchers[source].fetch(name, today - timedelta(days=10), today)
            except (ForexError, SourceError) as error:
                problems.append(f"{source}: {error}")
    return problems


def backups(patient: Patient) -> Finding:
    """An archive was made not long ago, and says what is in it; whether that can be used, a restore drill shows."""
    from forex_core.backup import Backups
    from forex_core.tracking.archived import ArchivedStore

    chosen = patient.settings
    if not is_database(chosen.mlflow_uri):
        return Finding("skipped", "the tracking store is a server, which keeps its own archives")
    databases = [sqlite_path(uri) for uri in (chosen.mlflow_uri, chosen.store_url)]
    if all(path is not None and not path.is_file() for path in databases):
        return Finding("ok", "there is nothing to keep yet")
    archives = Backups(chosen, ArchivedStore())
    place, found = archives.place(), archives.newest()
    faults = [f"{one.address} cannot be used ({one.fault})" for one in found if one.fault]
    mend = "look into it, remove what cannot be mended, and see that the next verifies: forex backup verify latest"
    if not found or found[-1].header is None:
        if faults:
            return Finding(
                "failed", f"no archive of {chosen.root} is left that can be used: {_some(faults)}", mend
            )
        absent = "" if _is_there(place) else ", which is not there"
        return Finding(
            "warning",
            f"no archive of {chosen.root} in {place}{absent}",
            "forex backup create makes one; the flow backup makes one a day",
        )
    newest = found[-1].header
    told = f"the newest of {newest.created:%Y-%m-%d %H:%M} UTC, {newest.files} files, in {place}"
    if newest.missing:
        told += f"; {len(newest.missing) + newest.missing_more} are missing in it"
    if _is_on_one_disk(place, chosen.root):
        told += "; on the disk of the data, with which it would be lost"
    if faults:
        return Finding("warning", f"{_some(faults)}; {told}", mend)
    if _is_on_one_disk(place, chosen.root) and not Path(place).is_relative_to(chosen.root):
        todo = "FOREX_BACKUP__TO names a folder elsewhere: mount its disk, if it has one (findmnt)"
        return Finding("warning", told, todo)
    if datetime.now(UTC) - newest.created > ARCHIVED_WITHIN:
        todo = "forex backup create makes one; see why the flow backup does not: prefect flow-run ls --flow-name backup"
        return Finding("warning", f"none for {(datetime.now(UTC) - newest.created).days} days: {told}", todo)
    return Finding("ok", told)


def _is_there(place: str) -> bool:
    return "://" in place or Path(place).is_dir()


def _is_on_one_disk(place: str, root: Path) -> bool:
    return "://" not in place and root.exists() and Path(place).stat().st_dev == root.stat().st_dev


def notification(patient: Patient) -> Finding:
    """Somebody is told, and sent reports, at addresses that are understood. Nothing is sent."""
    from forex_core.notify import Notifier

    chosen, report = patient.settings.notify, patient.settings.report
    targets = Notifier(chosen).targets
    readers = Notifier(chosen.model_copy(update={"urls": report.urls})).targets
    for variable, named in (("FOREX_NOTIFY__URLS", targets), ("FOREX_REPORT__URLS", readers)):
        if unknown := [target.name for target in named if target.plugin is None]:
            todo = f"correct {variable} (https://appriseit.com/services/)"
            return Finding("failed", _some(unknown), todo)
    names = [target.name for target in targets]
    if chosen.prefect_block:
        names.append(f"those of the Prefect block '{chosen.prefect_block}'")
    if not names:
        return Finding("skipped", "nobody is told of a failure", "name somebody in FOREX_NOTIFY__URLS")
    return Finding("ok", f"{_some(names)}; forex notify test sends them a message")


def _has_store(settings: Settings) -> bool:
    from forex_core.tracking.queries import existing_store

    with existing_store(settings.mlflow_uri) as client:
        return client is not None


def _some(texts: list[str] | tuple[str, ...]) -> str:
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return "; ".join(texts[:SHOWN]) + more
