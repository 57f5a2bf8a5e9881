"""What is logged of a forecast run: values only, no store."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from forex_core.champion import Choice
from forex_core.ledger.live import LeadScores
from forex_core.models.features import copper_features
from forex_core.tracking.base import Record
from forex_core.types import ENSEMBLE, ForecastRun, Horizon, MarketBundle, Publication


def forecast_record(
    choice: Choice,
    bundle: MarketBundle,
    publication: Publication,
    recipe: str,
    settings: Mapping[str, object] | None = None,
) -> Record:
    """The design's list for one published forecast. RMSE and MAE in quote units, MAPE in percent.

    What has no prefix describes what was published, `challenger_` what was not.

    Args:
        recipe: of the engine that made the run, which is not that of the champion while a new one is on trial.
        settings: of that engine; None for those of what was published. Only what differs is logged.
    """
    run = choice.published
    prefix = str(run.horizon)
    ours = run.evaluation.scores[ENSEMBLE]
    metrics = _scores(run)
    if choice.other is not None:
        metrics |= {f"challenger_{name}": value for name, value in _scores(choice.other).items()}
    decision = choice.decision
    if decision.comparison is not None:
        metrics |= {
            "decision_statistic": decision.comparison.difference,
            "decision_standard_error": decision.comparison.standard_error,
            "decision_origins": float(decision.comparison.origins),
            "decision_origins_effective": decision.comparison.origins_effective,
        }
    forecast = run.forecast
    params = {
        "num_sources": len(bundle.sources),
        "data_source": ",".join(source.name for source in bundle.sources),
        "num_news": len(bundle.news),
        "num_events": len(bundle.events),
        "missing_series": _names(bundle, "missing"),
        "stale_series": _names(bundle, "stale"),
        f"{bundle.pair.slug}_series_length": len(bundle),
        "copper_features_available": bool(copper_features(bundle)),
        "forecast_mean": f"{forecast.mean[-1]:.10g}",
        "forecast_std": f"{forecast.std[-1]:.10g}",
        "fingerprint": run.fingerprint,
        "known_when": bundle.known_when,
        "as_of": run.as_of.isoformat(),
        "origin": forecast.origin.isoformat(),
        "first_origin": run.evaluation.origins[0].isoformat(),
        "last_origin": run.evaluation.origins[-1].isoformat(),
        "trained_until": run.state.trained_until.isoformat(),
        "settings": json.dumps(run.settings, sort_keys=True),
        "libraries": json.dumps(run.libraries, sort_keys=True),
    }
    if recipe != run.recipe:
        params["challenger_recipe"] = recipe
        params |= {
            f"challenger_settings.{name}": value
            if isinstance(value, str)
            else json.dumps(value, sort_keys=True)
            for name, value in (settings or {}).items()
            if name not in run.settings or run.settings[name] != value
        }
    run_tags = {
        "pair": str(bundle.pair),
        "rate": bundle.rate,
        "horizon": prefix,
        "fingerprint": run.fingerprint,
        "recipe": recipe,
        "published_recipe": run.recipe,
        "published_model": publication.model,
        "published_version": str(publication.version),
        "published_digest": forecast.digest,
        "decision": publication.outcome,
        "decision_reason": publication.reason,
        "as_of_date": run.as_of.date().isoformat(),
        "git_commit": git_commit(),
        "verdict": run.verdict.kind,
        "status": "published",
        **{f"left_out.{name}": reason for name, reason in run.failures.items()},
    }
    if run.evaluation.may_have_seen:
        run_tags["may_have_seen"] = ",".join(run.evaluation.may_have_seen)
    if publication.challenger is not None:
        run_tags["challenger"] = str(publication.challenger)
    if publication.outcome == "pinned":
        run_tags["pinned"] = publication.reason
    return Record(
        params={name: str(value) for name, value in params.items()},
        metrics=metrics,
        stepped={f"{prefix}_rmse_by_step": dict(enumerate(ours.rmse_by_step, start=1))},
        tags=run_tags,
    )


def live_record(
    horizon: Horizon, leads: Sequence[LeadScores], end: LeadScores | None, alarms: Mapping[str, float]
) -> Record:
    """The live track record of a horizon: scores at each lead as stepped metrics, those of the last by themselves too.

    RMSE, MAE and CRPS in quote units, MAPE in percent. Beside the RMSE of each member stands of how many origins it is:
    only those of the same origins compare.

    Args:
        leads: of each lead that has outcomes.
        end: of the last target date.
        alarms: statistic over threshold of each alarm: above one it is raised.
    """
    metrics: dict[str, float | None] = {
        f"alarm_{name.replace(' ', '_')}": value for name, value in alarms.items()
    }
    if end is not None:
        told = {f"{horizon}_live_{name}": value for name, value in _told(end).items()}
        metrics |= told | {f"{name}_live_rmse": value for name, value in end.rmse_by_model.items()}
        metrics |= {f"{name}_live_origins": float(n) for name, n in end.origins_by_model.items()}
        metrics |= {
            f"{horizon}_live_origins": float(end.origins),
            f"{horizon}_live_origins_effective": float(end.origins_effective),
        }
    stepped: dict[str, dict[int, float]] = {}
    for one in leads:
        of_models = {f"{name}_rmse": value for name, value in one.rmse_by_model.items()}
        counts = {f"{name}_origins": float(n) for name, n in one.origins_by_model.items()}
        for name, value in (_told(one) | of_models | {"origins": float(one.origins)} | counts).items():
            if value is not None:
                stepped.setdefault(f"{name}_by_step", {})[one.step] = value
    return Record(metrics={n: value for n, value in metrics.items() if value is not None}, stepped=stepped)


def _told(scores: LeadScores) -> dict[str, float | None]:
    return {
        "rmse": scores.rmse,
        "mae": scores.mae,
        "mape": scores.mape_pct,
        "bias": scores.bias,
        "crps": scores.crps,
        "coverage_80": scores.coverage_80,
        "coverage_95": scores.coverage_95,
        "rmse_ratio_rw": scores.rmse_ratio_rw,
        "crps_ratio_rw": scores.crps_ratio_rw,
    }


def _names(bundle: MarketBundle, kind: str) -> str:
    """The series that have a repair of that kind, each once."""
    return ",".join(dict.fromkeys(r.series for r in bundle.repairs if r.kind == kind))


def _scores(run: ForecastRun) -> dict[str, float]:
    prefix = str(run.horizon)
    ours = run.evaluation.scores[ENSEMBLE]
    metrics: dict[str, float | None] = {
        f"{prefix}_rmse": ours.rmse,
        f"{prefix}_mae": ours.mae,
        f"{prefix}_mape": ours.mape_pct,
        f"{prefix}_directional_accuracy": ours.directional_accuracy,
        f"{prefix}_crps": ours.crps,
        f"{prefix}_coverage_80": ours.coverage_80,
        f"{prefix}_coverage_95": ours.coverage_95,
        f"{prefix}_rmse_ratio_rw": ours.rmse_ratio_rw,
        f"{prefix}_crps_ratio_rw": ours.crps_ratio_rw,
        f"{prefix}_dm_pvalue": ours.dm_pvalue,
        f"{prefix}_rmse_ratio_next_close": ours.rmse_ratio_next_close,
        f"{prefix}_pvalue_next_close": ours.p_next_close,
        f"{prefix}_origins": float(len(run.evaluation.origins)),
        f"{prefix}_origins_effective": run.evaluation.n_effective,
    }
    for member in run.members:
        scores = run.evaluation.scores[member.name]
        metrics[f"{member.name}_rmse"] = scores.rmse
        metrics[f"{member.name}_mape"] = scores.mape_pct
        metrics[f"{member.name}_weight"] = member.weight
    return {name: value for name, value in metrics.items() if value is not None}


@lru_cache(maxsize=1)
def git_commit() -> str:
    """Commit of the checkout that this package runs from, 'unknown' outside one."""
    try:
        found = subprocess.run(
            # An installation belongs to root and runs as somebody else, whom git would tell nothing.
            ["git", "-c", "safe.directory=*", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return found.stdout.strip() or "unknown"
