"""Questions to a tracking store, answered with frozen rows. Nothing here writes to it or makes one."""

from __future__ import annotations

import difflib
import json
import math
import posixpath
import re
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forex_core.databases import is_postgres, postgres, sqlite_path
from forex_core.errors import InputError, TrackingError
from forex_core.secrecy import without_password
from forex_core.tracking.store import open_existing, translated
from forex_core.types import ENSEMBLE, HORIZONS, SPOOLED, Horizon, Pair, short_id

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, LoggedModel, Run
    from mlflow.entities.model_registry import RegisteredModel

SCORES = ("rmse", "mae", "mape", "crps", "rmse_ratio_rw", "crps_ratio_rw", "coverage_80", "coverage_95")
"""The scores of a run at its own horizon, logged as `7d_rmse` and so on."""

STATUSES = ("FINISHED", "FAILED", "KILLED", "RUNNING", "SCHEDULED")
MARKS = ("challenger", "pinned", "spooled")
"""Tags of a run that a listing points out: it has a challenger's version, or the reason of a pin or of a spool."""

MIN_PREFIX = 4
"""Characters of a run id that are enough to ask for it: `90d` is a horizon and never a run."""

AUDIT = "operations"
"""The experiment that every change of champion, by hand or by the monitor, is logged in."""

SPOOL_ID_TAG = "spool_id"
"""Tag of a run that was logged from the spool: the id that it had there."""

LEDGER_TAG, ENTRY_TAG = "ledger_digest", "ledger_entry"
"""Tags of a published run: the ledger's digest when its forecast was written, and the digest of the forecast alone."""
OUTCOME_TAG, ALARM_TAG = "ledger_outcome", "ledger_alarm"
"""Tags of a run of the monitor: the ledger's digests of the last outcome and of the last alarm."""

_CHALLENGER = "challenger_"
_PAGE = 500
_CANDIDATES = 20
_INFINITE = 1e308
"""MLflow stores an infinite metric as 1.8e308, and sorts it like any other number."""


@dataclass(frozen=True)
class ExperimentSummary:
    """An experiment and how its runs ended; `last_run` is when the newest one started.

    Of a deleted experiment, whose runs were deleted with it, all runs count; else those that were not deleted.
    """

    name: str
    id: str
    finished: int
    failed: int
    other: int
    last_run: datetime | None
    artifact_location: str
    tags: Mapping[str, str]
    deleted: bool = False


@dataclass(frozen=True)
class Artifact:
    """A file attached to a run; `path` is relative to the run's artifacts."""

    path: str
    bytes: int | None


@dataclass(frozen=True)
class RunRow:
    """A run.

    `scores` has every name of `SCORES`, None where the run has no finite value: RMSE, MAE and CRPS in quote units,
    MAPE in percent. `published_version` of the pair's registered model is what the run published, `version` what it
    learned. `aliases` point now at the published one (the learned one of a run that does not say what it published),
    `version_aliases` at the learned one. `artifacts` is None where they were not asked for.
    """

    id: str
    name: str
    experiment: str
    status: str
    started: datetime
    ended: datetime | None
    pair: str | None
    horizon: str | None
    environment: str | None
    as_of: str | None
    origin: str | None
    scores: Mapping[str, float | None]
    published_version: int | None
    version: int | None
    aliases: tuple[str, ...]
    error: str | None
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    artifacts: tuple[Artifact, ...] | None = None
    version_aliases: tuple[str, ...] = ()

    @property
    def marks(self) -> tuple[str, ...]:
        """What is out of the ordinary about the run, by its tags."""
        return tuple(
            name for name in MARKS if self.tags.get(name, "false").lower() not in ("false", "no", "")
        )

    @property
    def window(self) -> str | None:
        """The origins that the run's scores are over, as text: scores of other windows do not compare with them.

        None for a run without scores and origin, such as an audit run.
        """
        count = self.metrics.get(f"{self.horizon}_origins")
        if count is None and self.origin is None and all(value is None for value in self.scores.values()):
            return None
        origins = "origins" if count is None else f"{count:.0f} origins"
        if {"first_origin", "last_origin"} <= set(self.params):
            return f"{origins} from {self.params['first_origin']} to {self.params['last_origin']}"
        return f"{origins} known at {self.origin or self.started.date()}"

    @property
    def models(self) -> Mapping[str, ModelScore]:
        """What it logged of every model: the ensemble that was published, its members, then a challenger's."""
        return {name: score for name, (score,) in _models_of([self]).items() if score}

    @property
    def single_params(self) -> Mapping[str, str]:
        """Its params, JSON objects among them taken apart with dots."""
        return dict(_flat(self.params))


@dataclass(frozen=True)
class ModelScore:
    """What one run logged of one model. RMSE in quote units, MAPE in percent; the ensemble has no weight."""

    rmse: float | None
    mape: float | None
    weight: float | None


@dataclass(frozen=True)
class RunComparison:
    """Runs side by side: under each name one entry a run, in the order of `runs`, None where a run lacks it.

    `params` holds those that differ, JSON objects taken apart with dots. `remarks` say why scores do not compare.
    """

    runs: tuple[RunRow, ...]
    models: Mapping[str, tuple[ModelScore | None, ...]]
    params: Mapping[str, tuple[str | None, ...]]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class ModelRow:
    """A version of a registered model. `recipe` to `rolled_back` are its tags, None where it does not have them."""

    name: str
    version: int
    aliases: tuple[str, ...]
    status: str
    run_id: str | None
    created: datetime
    recipe: str | None
    trained_until: str | None
    published: str | None
    pin: str | None
    rolled_back: str | None
    tags: Mapping[str, str]


@dataclass(frozen=True)
class AuditRow:
    """What was done to a champion by hand or by the monitor, as its audit run tells it; None where it does not.

    `action` is rollback, undo, promote, unpin (the champion stays) or adapt (it gets other bands). A FAILED or KILLED
    run changed nothing.
    """

    run_id: str
    at: datetime
    action: str | None
    model: str | None
    from_version: int | None
    to_version: int | None
    by: str | None
    reason: str | None
    how: str | None
    backup: str | None
    status: str
    error: str | None


@contextmanager
def existing_store(uri: str) -> Iterator[MlflowClient | None]:
    """A client of the store at `uri`, or None where a database has no tables of MLflow yet; it stays as it is.

    Raises:
        TrackingError: when the store cannot be opened or read, also within the context.
    """
    with translated(uri):
        yield open_existing(uri)


class StoredRuns:
    """The runs of the store at an address, for whoever shows them; the store stays as it is.

    Raises, from every method:
        TrackingError: when the store cannot be opened or read.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def newest(self, pair: Pair | None, horizon: Horizon, last: int) -> list[RunRow]:
        """The newest runs, newest first; none where there is no store yet."""
        with existing_store(self._uri) as client:
            return runs(client, pair, horizon, last) if client else []

    def changes(self, last: int) -> list[AuditRow]:
        """What was done to champions last, the newest first."""
        with existing_store(self._uri) as client:
            return audits(client, AUDIT, None, last) if client else []


def experiments(client: MlflowClient) -> list[ExperimentSummary]:
    """Every experiment that has a run or a tag, by name, deleted ones among them; MLflow's empty `Default` is not."""
    from mlflow.entities import ViewType

    searched = pages(client.search_experiments, view_type=ViewType.ALL)
    found = {str(experiment.experiment_id): experiment for experiment in searched}
    ends: dict[str, dict[str, tuple[int, int]]] = {}
    deleted = {name for name, experiment in found.items() if experiment.lifecycle_stage != "active"}
    for experiment_id, status, count, newest in _ends(client, list(found), deleted):
        ends.setdefault(experiment_id, {})[status] = (count, newest)
    rows = []
    for experiment_id, experiment in found.items():
        ended = ends.get(experiment_id, {})
        if not ended and not experiment.tags:
            continue
        counts = {status: count for status, (count, _) in ended.items()}
        finished, failed = counts.get("FINISHED", 0), counts.get("FAILED", 0)
        rows.append(
            ExperimentSummary(
                name=experiment.name,
                id=experiment_id,
                finished=finished,
                failed=failed,
                other=sum(counts.values()) - finished - failed,
                last_run=_instant(max(newest for _, newest in ended.values())) if ended else None,
                artifact_location=experiment.artifact_location,
                tags=dict(experiment.tags),
                deleted=experiment_id in deleted,
            )
        )
    # 7d before 15d.
    return sorted(rows, key=lambda row: (re.sub(r"\d+", lambda n: f"{int(n[0]):09}", row.name), row.id))


def runs(
    client: MlflowClient, pair: Pair | None, horizon: Horizon, last: int = 20, status: str | None = None
) -> list[RunRow]:
    """The newest runs of a horizon, newest first; of one pair, or of all with None.

    Raises:
        InputError: `last` is below 1, or `status` is none that a run can have.
        TrackingError: the horizon's experiment was deleted.
    """
    if last < 1:
        raise InputError(f"found {last} runs to list; expected 1 or more")
    conditions = _of_pair(pair)
    if status is not None:
        conditions.append(f"attributes.status = '{_status(status)}'")
    experiment = _experiment_id(client, f"forecaster_{horizon}")
    if experiment is None:
        return []
    found = _search(client, [experiment], conditions, ["attributes.start_time DESC"], limit=last)
    standing = _Standing(client)
    return [_row(run, f"forecaster_{horizon}", standing) for run in found]


def audits(
    client: MlflowClient, experiment_name: str, pair: Pair | None = None, last: int = 20
) -> list[AuditRow]:
    """What was done to champions last, the newest first; of one pair, or of all with None.

    A run that only logged the model with other bands is left out.

    Raises:
        TrackingError: the experiment, that of the audit runs, was deleted.
    """
    experiment = _experiment_id(client, experiment_name)
    if experiment is None:
        return []
    newest = ["attributes.start_time DESC"]
    conditions = [*_of_pair(pair), "tags.action != ''"]
    return [_audit(run) for run in _search(client, [experiment], conditions, newest, limit=last)]


def _audit(run: Run) -> AuditRow:
    tags = run.data.tags
    return AuditRow(
        run_id=run.info.run_id,
        at=_instant(run.info.start_time),
        action=tags.get("action"),
        model=tags.get("model"),
        from_version=_version_number(tags.get("from_version")),
        to_version=_version_number(tags.get("to_version")),
        by=tags.get("by"),
        reason=tags.get("reason") or None,
        how=tags.get("how"),
        backup=tags.get("backup"),
        status=run.info.status,
        error=_error(tags),
    )


def ledger_digests(client: MlflowClient, tag: str) -> dict[str, str]:
    """The digests of the ledger that runs of forecasts and of the monitor recorded under a tag, by run."""
    names = [f"{flow}_{horizon}" for flow in ("forecaster", "monitor") for horizon in HORIZONS]
    known = [found for name in names if (found := _experiment_id(client, name)) is not None]
    return {run.info.run_id: run.data.tags[tag] for run in _search(client, known, [f"tags.{tag} != ''"])}


def runs_by_data(
    client: MlflowClient, pair: Pair, horizon: Horizon, rate: str | None = None
) -> Iterator[str]:
    """Ids of the finished runs of a pair and horizon, those over the newest data first, of these the newest.

    With `rate` of those over that rate of the pair, and of those that do not say of which they are.
    """
    experiment = _experiment_id(client, f"forecaster_{horizon}")
    if experiment is not None:
        conditions = [*_of_pair(pair), "attributes.status = 'FINISHED'"]
        order = ["params.origin DESC", "attributes.start_time DESC"]
        for found in _search(client, [experiment], conditions, order, page=_CANDIDATES):
            if rate is None or found.data.tags.get("rate", rate) == rate:
                yield found.info.run_id


def run(client: MlflowClient, id_or_prefix: str) -> RunRow:
    """One run with its artifacts, by its id or the beginning of it (8 characters, as they are shown).

    A run that was logged from the spool is also found by the id that it had there, under which the ledger knows it.

    Raises:
        InputError: no run has that id, several have it, or the run was deleted.
        TrackingError: its experiment was deleted.
    """
    from mlflow.entities import ViewType

    wanted = id_or_prefix.strip().lower().removeprefix(f"{SPOOLED}-")
    if not re.fullmatch(rf"[0-9a-f]{{{MIN_PREFIX},32}}", wanted):
        raise InputError(
            f"'{id_or_prefix}' is not the id of a run; expected the 32 characters 0-9 and a-f, or the first 8 of them, "
            "as forex runs list shows them"
        )
    found_in = {str(e.experiment_id): e for e in pages(client.search_experiments, view_type=ViewType.ALL)}
    names = {one: e.name for one, e in found_in.items()}
    known = [f"attributes.run_id LIKE '{wanted}%'", f"tags.{SPOOL_ID_TAG} LIKE '{SPOOLED}-{wanted}%'"]

    def search(limit: int, view: int = ViewType.ACTIVE_ONLY) -> list[Run]:
        found = (list(_search(client, list(names), [by], limit=limit, view=view)) for by in known)
        return next(filter(None, found), [])

    found = search(6)
    if len(found) > 1:
        some = ", ".join(one.info.run_id for one in found[:5]) + (" and more" if len(found) > 5 else "")
        raise InputError(
            f"several runs begin with {wanted}: {some}; give more characters of the one you mean"
        )
    if not found:
        deleted = search(1, ViewType.DELETED_ONLY)
        if deleted:
            whole = deleted[0].info.run_id
            _refuse_deleted(client, found_in[str(deleted[0].info.experiment_id)])
            raise InputError(
                f"run {whole} was deleted; bring it back with 'mlflow runs restore --run-id {whole}' first"
            )
        raise InputError(f"no run begins with {wanted}; forex runs list HORIZON shows those there are")
    row = _row(found[0], names[str(found[0].info.experiment_id)], _Standing(client))
    return replace(row, artifacts=tuple(_artifacts(client, row.id)))


def best_run(
    client: MlflowClient,
    experiment_name: str,
    metric: str,
    mode: str = "min",
    pair: Pair | None = None,
    loadable: bool = False,
) -> RunRow | None:
    """The finished run with the lowest or highest finite `metric`, the newest of equal ones; None without any.

    With `loadable` it must also have a logged model that is ready and whose files can be read, and that its metrics
    are of: a run that published another version than the one it learned does not count. Scores of other weeks do not
    compare: this ranks what was logged, as it was logged.

    Raises:
        InputError: no metric can have that name, or `mode` is neither min nor max.
        TrackingError: the experiment was deleted.
    """
    name = _metric_name(metric)
    if mode not in ("min", "max"):
        raise InputError(f"mode '{mode}' is unknown; expected min or max")
    experiment = _experiment_id(client, experiment_name)
    if experiment is None:
        return None
    conditions = [
        *_of_pair(pair),
        "attributes.status = 'FINISHED'",
        f"metrics.`{name}` < 1e308",  # MLflow's search reads no 1e+308
        f"metrics.`{name}` > -1e308",
    ]
    order = [f"metrics.`{name}` {'ASC' if mode == 'min' else 'DESC'}", "attributes.start_time DESC"]
    standing = _Standing(client)
    for candidate in _search(client, [experiment], conditions, order, page=_CANDIDATES):
        if _finite(candidate.data.metrics.get(name)) is None:  # a server of MLflow 3.6 compares a NaN as 0
            continue
        if not loadable or (standing.is_of_own(candidate) and has_loadable_model(client, candidate)):
            return _row(candidate, experiment_name, standing)
    return None


def refuse_unknown_metric(client: MlflowClient, experiment_name: str, name: str) -> None:
    """Refuse a metric that no run of the experiment has, though they have others: it is mistyped.

    Raises:
        InputError: so it is; names near it are told.
        TrackingError: the experiment was deleted.
    """
    experiment = _experiment_id(client, experiment_name)
    known = _metric_names(client, experiment) if experiment else set()
    if not known or name in known:
        return
    near = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.5)
    raise InputError(
        f"no run of {experiment_name} has a metric '{name}'; "
        + (f"near it are {', '.join(near)}" if near else "'forex runs show RUN_ID' lists what a run has")
    )


def _metric_names(client: MlflowClient, experiment: str) -> set[str]:
    """The metrics that any run of the experiment has."""
    rows = _from_database(
        client.tracking_uri,
        "SELECT DISTINCT key FROM latest_metrics WHERE run_uuid IN (SELECT run_uuid FROM runs "
        f"WHERE experiment_id = {int(experiment)} AND lifecycle_stage = 'active')",
    )
    if rows is None:
        return {name for one in _search(client, [experiment]) for name in one.data.metrics}
    return {str(name) for (name,) in rows}


def compare(client: MlflowClient, ids: Sequence[str]) -> RunComparison:
    """Every model's scores and weight over runs, and the params in which the runs differ.

    Raises:
        InputError: fewer than two different runs, or one that `run` would refuse.
    """
    chosen = {row.id: row for row in (run(client, one) for one in ids)}
    if len(chosen) < 2:
        raise InputError(f"found {len(chosen)} run to compare; expected two different ones or more")
    rows = tuple(chosen.values())
    return RunComparison(
        runs=rows, models=_models_of(rows), params=_differing_params(rows), remarks=tuple(_remarks(rows))
    )


def models(client: MlflowClient, pair: Pair | None = None) -> list[ModelRow]:
    """Every version of the registered models, of one pair or of all; newest version first."""
    found = {
        model.name: _aliases(model) for model in pages(client.search_registered_models, max_results=_PAGE)
    }
    wanted = f"name LIKE '{pair.slug}-%'" if pair else None
    rows = []
    for version in pages(client.search_model_versions, filter_string=wanted, max_results=_PAGE):
        tags, number = dict(version.tags), int(version.version)
        rows.append(
            ModelRow(
                name=version.name,
                version=number,
                aliases=found.get(version.name, {}).get(number, ()),
                status=str(version.status),
                run_id=version.run_id or None,
                created=_instant(version.creation_timestamp),
                recipe=tags.get("recipe"),
                trained_until=tags.get("trained_until"),
                published=tags.get("published"),
                pin=tags.get("pin"),
                rolled_back=tags.get("rolled_back"),
                tags=tags,
            )
        )
    return sorted(rows, key=lambda row: (row.name, -row.version))


def has_loadable_model(client: MlflowClient, candidate: Run) -> bool:
    """Whether a run has a logged model that is ready, with an MLmodel and a JSON specification that can be read."""
    from mlflow.exceptions import MlflowException

    outputs = candidate.outputs.model_outputs if candidate.outputs else []
    for output in outputs:
        try:
            model = client.get_logged_model(output.model_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # deleted; there may be another
                raise
            continue
        if str(model.status) == "READY" and _can_be_read(client, model):
            return True
    return False


def _can_be_read(client: MlflowClient, model: LoggedModel) -> bool:
    from mlflow.exceptions import MlflowException

    from forex_core.tracking.packaging import DOCUMENT

    # A remote file that is not there is told from a place out of reach by the list alone, which raises for the latter.
    document = f"artifacts/{DOCUMENT}"
    files = [client.list_logged_model_artifacts(model.model_id, folder) for folder in (None, "artifacts")]
    if not {"MLmodel", document} <= {file.path for listed in files for file in listed}:
        return False
    try:
        json.loads(_text(client, model, document))
        return re.search(r"^flavors:", _text(client, model, "MLmodel"), re.MULTILINE) is not None
    except (MlflowException, OSError, ValueError):
        return False


def _text(client: MlflowClient, model: LoggedModel, path: str) -> str:
    from mlflow.artifacts import download_artifacts

    with tempfile.TemporaryDirectory() as folder:
        local = download_artifacts(
            artifact_uri=f"{model.artifact_location}/{path}",
            dst_path=folder,
            tracking_uri=client.tracking_uri,
        )
        return Path(local).read_text(encoding="utf-8")


class _Standing:
    """What is registered of a run, and the aliases that versions have now; asked of the store run by run.

    To read every version of a store of years takes seconds.
    """

    def __init__(self, client: MlflowClient) -> None:
        self._client = client
        found = pages(client.search_registered_models, max_results=_PAGE)
        self._aliases = {model.name: _aliases(model) for model in found}

    def made_by(self, run_id: str) -> tuple[str, int] | None:
        """Name and number of the version that a run registered, the newest of several."""
        found = self._versions_of(run_id)
        return found[0] if found else None

    def aliases(self, model: str | None, number: int | None) -> tuple[str, ...]:
        return self._aliases.get(model or "", {}).get(number or 0, ())

    def is_of_own(self, run: Run) -> bool:
        """Whether what a run published is what it learned, as is that of a run that does not say."""
        number = _version_number(run.data.tags.get("published_version"))
        published = (run.data.tags.get("published_model", ""), number)
        return number is None or published in self._versions_of(run.info.run_id)

    def _versions_of(self, run_id: str) -> list[tuple[str, int]]:
        found = pages(
            self._client.search_model_versions, filter_string=f"run_id = '{run_id}'", max_results=_PAGE
        )
        versions = [(version.name, int(version.version)) for version in found]
        return sorted(versions, key=lambda one: (one[0], -one[1]))


def _row(run: Run, experiment: str, standing: _Standing) -> RunRow:
    params, metrics, tags = run.data.params, run.data.metrics, run.data.tags
    made = standing.made_by(run.info.run_id)
    made_model, made_number = made or (None, None)
    published = _version_number(tags.get("published_version"))
    learned = standing.aliases(made_model, made_number)
    horizon = tags.get("horizon")
    return RunRow(
        id=run.info.run_id,
        name=run.info.run_name or "",
        experiment=experiment,
        status=run.info.status,
        started=_instant(run.info.start_time),
        ended=_instant(run.info.end_time) if run.info.end_time else None,
        pair=tags.get("pair"),
        horizon=horizon,
        environment=tags.get("environment"),
        as_of=params.get("as_of"),
        origin=params.get("origin"),
        scores={name: _finite(metrics.get(f"{horizon}_{name}")) for name in SCORES},
        published_version=published,
        version=made_number,
        aliases=standing.aliases(tags.get("published_model"), published)
        if tags.get("published_version")
        else learned,
        version_aliases=learned,
        error=_error(tags),
        params=dict(sorted(params.items())),
        metrics={name: _logged(value) for name, value in sorted(metrics.items())},
        tags=dict(sorted(tags.items())),
    )


def _version_number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None


def _error(tags: Mapping[str, str]) -> str | None:
    """Kind and message of the error that a run ended with."""
    return ": ".join(tags[name] for name in ("error_type", "error_message") if tags.get(name)) or None


def _models_of(rows: Sequence[RunRow]) -> dict[str, tuple[ModelScore | None, ...]]:
    """The ensemble that was published, its members, then the challenger's where a run had one."""
    weighted = {
        name.removesuffix("_weight") for row in rows for name in row.metrics if name.endswith("_weight")
    }
    members = sorted(name for name in weighted if not name.startswith(_CHALLENGER))
    rivals = sorted(weighted - set(members))
    table = {}
    for name in (ENSEMBLE, *members, _CHALLENGER + ENSEMBLE, *rivals):
        scores = tuple(_score(row, name) for row in rows)
        if any(scores):
            table[name] = scores
    return table


def _score(row: RunRow, model: str) -> ModelScore | None:
    own = f"{model.removesuffix(ENSEMBLE)}{row.horizon}" if model.endswith(ENSEMBLE) else model
    values = [_finite(row.metrics.get(f"{own}_{name}")) for name in ("rmse", "mape", "weight")]
    return None if all(value is None for value in values) else ModelScore(*values)


def _differing_params(rows: Sequence[RunRow]) -> dict[str, tuple[str | None, ...]]:
    taken_apart = [dict(_flat(row.params)) for row in rows]
    names = sorted({name for params in taken_apart for name in params})
    table = {name: tuple(params.get(name) for params in taken_apart) for name in names}
    return {name: values for name, values in table.items() if len(set(values)) > 1}


def _flat(params: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Params with JSON objects taken apart: {"settings": '{"engine": {"rate": 2}}'} is settings.engine.rate: 2."""
    for name, value in params.items():
        try:
            content = json.loads(value) if value.startswith("{") else value
        except ValueError:  # cut off at the length that MLflow stores
            content = value
        yield from _leaves(name, content)


def _leaves(name: str, content: Any) -> Iterator[tuple[str, str]]:
    if isinstance(content, dict):
        for key, inner in content.items():
            yield from _leaves(f"{name}.{key}", inner)
    else:
        yield name, content if isinstance(content, str) else json.dumps(content)


def _remarks(rows: Sequence[RunRow]) -> Iterator[str]:
    markets = sorted({f"{row.pair} {row.horizon}" for row in rows})
    windows = list(dict.fromkeys(row.window for row in rows))
    if len(markets) > 1:
        yield f"These runs are of different markets or horizons ({', '.join(markets)}): their scores do not compare."
    if len(windows) > 1:
        each = "; ".join(f"{short_id(row.id)}: {row.window or 'none'}" for row in rows)
        yield f"These runs were scored over different windows ({each}): scores of different weeks do not compare."
    for row in rows:
        if row.status != "FINISHED":
            yield f"Run {short_id(row.id)} is {row.status}" + (f" ({row.error})." if row.error else ".")


def _search(
    client: MlflowClient,
    experiment_ids: list[str],
    conditions: Sequence[str] = (),
    order_by: list[str] | None = None,
    *,
    limit: int | None = None,
    page: int = _PAGE,
    view: int = 1,
) -> Iterator[Run]:
    """Runs that satisfy all conditions, page after page as far as they are asked for; active ones with view 1."""
    if not experiment_ids:  # which MLflow takes for an error
        return
    found = pages(
        client.search_runs,
        experiment_ids=experiment_ids,
        filter_string=" and ".join(conditions),
        run_view_type=view,
        max_results=min(limit or page, page),
        order_by=order_by,
    )
    for count, one in enumerate(found, start=1):
        yield one
        if count == limit:
            return


def _ends(
    client: MlflowClient, experiment_ids: list[str], deleted: set[str]
) -> list[tuple[str, str, int, int]]:
    """Experiment, status, number of runs with it, start of the newest one in milliseconds.

    Counted by the database, where this process has one: MLflow itself reads every metric and param of every run,
    which takes seconds for a thousand runs.
    """
    rows = _from_database(
        client.tracking_uri,
        "SELECT experiment_id, status, COUNT(*), MAX(start_time) FROM runs WHERE lifecycle_stage = 'active' OR "
        "experiment_id IN (SELECT experiment_id FROM experiments WHERE lifecycle_stage <> 'active') "
        "GROUP BY experiment_id, status",
    )
    if rows is None:
        from mlflow.entities import ViewType

        starts: dict[tuple[str, str], list[int]] = {}
        active = [one for one in experiment_ids if one not in deleted]
        for ids, view in ((active, ViewType.ACTIVE_ONLY), (sorted(deleted), ViewType.ALL)):
            for one in _search(client, ids, view=view):
                starts.setdefault((one.info.experiment_id, one.info.status), []).append(one.info.start_time)
        rows = [(*key, len(values), max(values)) for key, values in starts.items()]
    return [(str(row[0]), str(row[1]), int(row[2]), int(row[3])) for row in rows]


def _from_database(uri: str, query: str) -> list[Any] | None:
    """Answer of the database to a query; None where the store is a server."""
    path = sqlite_path(uri)
    if path is not None:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=20)) as database:
            return database.execute(query).fetchall()
    if is_postgres(uri):
        with postgres(uri) as database:
            return list(database.execute(query.encode()).fetchall())
    return None


def pages(search: Callable[..., Any], **arguments: Any) -> Iterator[Any]:
    """Every item of a search that answers in pages."""
    token = None
    while True:
        page = search(**arguments, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _experiment_id(client: MlflowClient, name: str) -> str | None:
    """Id of an experiment, None where there is none.

    Raises:
        TrackingError: it was deleted.
    """
    found = client.get_experiment_by_name(name)
    if found is None:
        return None
    _refuse_deleted(client, found)
    return str(found.experiment_id)


def _refuse_deleted(client: MlflowClient, found: Experiment) -> None:
    if found.lifecycle_stage != "active":
        raise TrackingError(
            f"experiment {found.name} was deleted in {without_password(client.tracking_uri)}; restore it with "
            f"'mlflow experiments restore -x {found.experiment_id}'"
        )


def _artifacts(client: MlflowClient, run_id: str, folder: str | None = None) -> Iterator[Artifact]:
    for file in client.list_artifacts(run_id, folder):
        if file.is_dir:
            yield from _artifacts(client, run_id, file.path)
        else:
            yield Artifact(file.path, file.file_size)


def _aliases(model: RegisteredModel) -> dict[int, tuple[str, ...]]:
    """The aliases of each version. Versions as they are searched for do not carry them."""
    by_version: dict[int, tuple[str, ...]] = {}
    for alias, version in sorted(model.aliases.items()):
        by_version[int(version)] = (*by_version.get(int(version), ()), alias)
    return by_version


def _of_pair(pair: Pair | None) -> list[str]:
    return [] if pair is None else [f"tags.pair = '{pair}'"]


def _status(text: str) -> str:
    if text.upper() not in STATUSES:
        raise InputError(f"status '{text}' is unknown; expected one of {', '.join(STATUSES).lower()}")
    return text.upper()


def _metric_name(text: str) -> str:
    """The name, when MLflow would let a metric have it: checked here, as its search takes some for syntax."""
    relative = posixpath.normpath(text) == text and not text.startswith(("/", ".."))
    if not (re.fullmatch(r"[\w./ :-]{1,250}", text) and relative and text != "."):
        raise InputError(
            f"'{text[:60]}' cannot be the name of a metric; expected letters, digits and _ - . / : such as 7d_rmse"
        )
    return text


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) and abs(value) < _INFINITE else None


def _logged(value: float) -> float:
    """A metric as it was logged, infinite ones among them."""
    return math.copysign(math.inf, value) if abs(value) >= _INFINITE else value


def _instant(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
