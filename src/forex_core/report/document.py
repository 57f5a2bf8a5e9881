"""A run and an evaluation as plain JSON documents: the contract of `--json` and of `forecast.json`."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from forex_core.calendars import desk_zone
from forex_core.report.language import ENGLISH, Language
from forex_core.strangers import plain, web_link
from forex_core.types import (
    Evaluation,
    Event,
    Forecast,
    ForecastRun,
    Headline,
    MarketBundle,
    Publication,
    Scores,
    Source,
    Verdict,
)

if TYPE_CHECKING:
    from forex_core.panel import Panel, PanelScores, Ratio, Summary

Document = dict[str, Any]

EVENTS_LISTED, NEWS_LISTED = 100, 40
"""At most so many are told in full, the next events and the newest headlines; all are counted."""

_MODEL_FIELDS = (
    "rmse",
    "mae",
    "mape_pct",
    "crps",
    "coverage_80",
    "coverage_95",
    "coverage_80_last",
    "coverage_95_last",
    "directional_accuracy",
    "rmse_ratio_rw",
    "crps_ratio_rw",
    "dm_stat",
    "dm_pvalue",
    "hln_stat",
    "hln_pvalue",
    "rmse_ratio_next_close",
    "p_next_close",
    "weight_mean",
    "failed_origins",
)

_BESIDE = frozenset({"news", "events"})
"""What is fetched beside the series, and does not make a forecast older when it cannot be."""


def price_decimals(price: float) -> int:
    """Decimals that a price of this size is shown with.

    >>> [price_decimals(p) for p in (0.0000613, 0.0067, 1.0875, 18.6307, 954.13, 15732.5)]
    [8, 6, 4, 4, 2, 1]
    """
    size = abs(price)
    if 0 < size < 0.1:
        return 3 - math.floor(math.log10(size))
    return 4 if size < 100 else 2 if size < 10_000 else 1


def readable(text: str) -> str:
    """A sentence with its instants to the minute; what is stored keeps them exact.

    >>> readable("too narrow (ana, 2026-11-20T16:14:07+00:00)")
    'too narrow (ana, 2026-11-20 16:14 UTC)'
    """
    return re.sub(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d)[:.\d]*\+00:00", r"\1 \2 UTC", text)


def in_short(reason: str) -> str:
    """Why a member is left out, without the cure: the whole reason is in forecast.json and in the run's tags.

    >>> in_short("no weights are configured; set chronos.model to a folder")
    'no weights are configured'
    """
    return reason.partition(";")[0]


def evaluation_document(evaluation: Evaluation, bundle: MarketBundle, seconds: float) -> Document:
    """The leaderboard. RMSE, MAE and CRPS in `unit`, over the whole path of steps, pooled over origins."""
    return _evaluation(evaluation) | {"seconds": round(seconds, 3), "repairs": _repairs(bundle)}


def panel_document(panel: Panel, scores: PanelScores, seconds: float) -> Document:
    """Leaderboards of many pairs, each as `evaluation_document` has it, and the ensemble over all of them.

    `outcomes` are the closes that paths were scored against, by which coverages are pooled; `failed` says why a pair
    has no leaderboard.
    """
    summaries = {str(horizon): scores.summary(horizon) for horizon in panel.horizons}
    return {
        "source": panel.settings.source,
        "from": panel.start.isoformat(),
        "to": panel.end.isoformat() if panel.end else None,
        "every": panel.every,
        "horizons": [str(horizon) for horizon in panel.horizons],
        "seconds": round(seconds, 3),
        "summary": {horizon: _summary(found) for horizon, found in summaries.items() if found},
        "failed": {str(pair): reason for pair, reason in scores.failed.items()},
        "evaluations": [
            _evaluation(one.evaluation) | {"outcomes": one.outcomes}
            for several in scores.scored.values()
            for one in several
        ],
    }


def forecast_document(
    run: ForecastRun,
    bundle: MarketBundle,
    run_id: str,
    report: Path,
    publication: Publication | None = None,
) -> Document:
    """The published forecast. Quantiles by level, one value for each target date, in `unit`."""
    forecast = run.forecast
    weights = run.weights
    return {
        "pair": str(forecast.pair),
        "rate": bundle.rate,
        "horizon": str(run.horizon),
        "unit": forecast.pair.unit,
        "origin": forecast.origin.isoformat(),
        "origin_close": float(bundle.spot[-1]),
        "as_of": run.as_of.isoformat(),
        "fingerprint": run.fingerprint,
        "recipe": run.recipe,
        "run_id": run_id,
        "report": str(report),
        "published": _published(run, publication) if publication else None,
        "notices": [*data_notices(bundle), *publication_notices(publication)],
        "target_dates": [day.isoformat() for day in forecast.target_dates],
        "steps": list(forecast.steps),
        "quantiles": quantiles_document(forecast),
        "mean": [float(v) for v in forecast.mean],
        "std": [float(v) for v in forecast.std],
        "models": {
            name: _model(scores) | {"weight": weights.get(name)}
            for name, scores in run.evaluation.scores.items()
        },
        "evaluation": {
            "origins": len(run.evaluation.origins),
            "origins_effective": round(run.evaluation.n_effective, 1),
            "first_origin": run.evaluation.origins[0].isoformat(),
            "last_origin": run.evaluation.origins[-1].isoformat(),
            "steps": run.evaluation.steps,
            "reference": "random_walk",
        },
        "verdict": _verdict(run.verdict),
        "failures": dict(run.failures),
        "may_have_seen": list(run.evaluation.may_have_seen),
        "repairs": _repairs(bundle),
        "missing_series": affected_series(bundle, "missing"),
        "stale_series": affected_series(bundle, "stale"),
        "data_sources": [_source(source) for source in bundle.sources],
        "events": events_document(run, bundle),
        "news": news_document(bundle),
        "seconds": {name: round(seconds, 3) for name, seconds in run.timings.items()},
    }


def quantiles_document(forecast: Forecast) -> Document:
    """The quantiles of each level, one value for each target date."""
    return {str(level): forecast.quantiles[:, q].tolist() for q, level in enumerate(forecast.levels)}


def publication_notices(publication: Publication | None, language: Language = ENGLISH) -> list[str]:
    """What a reader should know of which model this is: nothing on a day like any other."""
    if publication is None:
        return []
    say = language.say
    notices = [language.told(warning) for warning in publication.warnings]
    if publication.outcome not in ("initial", "refreshed"):
        told = {
            "version": publication.version,
            "model": publication.model,
            "challenger": publication.challenger,
            "reason": language.told(readable(publication.reason)),
        }
        if publication.version is None:
            which = say("Published is this run's own model of {model}. {reason}", **told)
        elif publication.challenger is None:
            which = say("Published is version {version} of {model}. {reason}", **told)
        else:
            which = say(
                "Published is version {version} of {model}, not version {challenger}. {reason}", **told
            )
        notices.insert(0, which)
    return notices


def data_notices(bundle: MarketBundle, language: Language = ENGLISH) -> list[str]:
    """What a reader should know of the data: that newer ones could not be had, and which the models go without."""
    return [*_held(bundle, language), *_offline(bundle, language), *_missing(bundle, language)]


def affected_series(bundle: MarketBundle, kind: str) -> list[str]:
    """Names of the series that have a repair of a kind, each once."""
    return list(dict.fromkeys(r.series for r in bundle.repairs if r.kind == kind))


def events_ahead(run: ForecastRun, bundle: MarketBundle) -> tuple[Event, ...]:
    """The scheduled events from the as-of instant to the end of the last target date at the desk, in order."""
    zone, last = desk_zone(bundle.pair), run.forecast.target_dates[-1]
    inside = (e for e in bundle.events if run.as_of <= e.when and e.when.tz_convert(zone).date() <= last)
    return tuple(sorted(inside, key=lambda e: (e.when, e.currency, e.title)))


def events_document(run: ForecastRun, bundle: MarketBundle) -> Document:
    """How many events lie ahead in the horizon, and the next `EVENTS_LISTED`: in UTC, and with the desk's offset."""
    ahead, zone = events_ahead(run, bundle), desk_zone(bundle.pair)
    return {
        "count": len(ahead),
        "items": [
            {
                "when": e.when.tz_convert("UTC").isoformat(),
                "at_desk": e.when.tz_convert(zone).isoformat(),
                "currency": plain(e.currency, 8),
                "title": plain(e.title),
                "impact": plain(e.impact, 16),
            }
            for e in ahead[:EVENTS_LISTED]
        ],
    }


def news_document(bundle: MarketBundle) -> Document:
    """How many headlines were known, and the newest `NEWS_LISTED`; `link` is None where it leads to no web page."""
    newest = sorted(bundle.news, key=lambda h: h.published, reverse=True)
    return {"count": len(newest), "items": [_headline(h) for h in newest[:NEWS_LISTED]]}


def replay_record(run: ForecastRun) -> Document:
    """What turns the members' stored answers into the published numbers.

    With x the logs of `raw` and x.5 those of its median: the published log quantiles are Σ weight · x.5 plus the
    `band_factors` times the plain mean of x − x.5 over members, sorted by level. Weights sum to one, so that logs may
    be of prices. `calibrated` is for reading alone.
    """
    return {
        "levels": list(run.forecast.levels),
        "band_factors": run.band_factors.tolist(),
        "members": {
            m.name: {"weight": m.weight, "raw": m.raw.tolist(), "calibrated": m.calibrated.tolist()}
            for m in run.members
        },
    }


def _published(run: ForecastRun, publication: Publication) -> Document:
    return asdict(publication) | {
        "warnings": list(publication.warnings),
        "recipe": run.recipe,
        "trained_until": run.state.trained_until.isoformat(),
    }


def _evaluation(evaluation: Evaluation) -> Document:
    return {
        "pair": str(evaluation.pair),
        "horizon": str(evaluation.horizon),
        "steps": evaluation.steps,
        "unit": evaluation.pair.unit,
        "origins": len(evaluation.origins),
        "origins_effective": round(evaluation.n_effective, 1),
        "first_origin": evaluation.origins[0].isoformat(),
        "last_origin": evaluation.origins[-1].isoformat(),
        "every": evaluation.every,
        "origin_weekdays": _weekdays(evaluation.origins),
        "reference": "random_walk",
        "models": {name: _model(scores) for name, scores in evaluation.scores.items()},
        "verdict": _verdict(evaluation.verdict) if evaluation.verdict else None,
        "failures": dict(evaluation.failures),
        "may_have_seen": list(evaluation.may_have_seen),
    }


def _verdict(verdict: Verdict) -> Document:
    return asdict(verdict) | {"decided_on": verdict.decided_on.isoformat()}


def _summary(summary: Summary) -> Document:
    def ratio(found: Ratio) -> Document:
        return {"median": found.median, "worst": found.worst, "worst_pair": str(found.worst_pair)}

    return {
        "origins": summary.origins,
        "outcomes": summary.outcomes,
        "rmse_ratio_rw": ratio(summary.rmse),
        "crps_ratio_rw": ratio(summary.crps),
        "coverage_80": summary.coverage_80,
        "coverage_95": summary.coverage_95,
    }


def _repairs(bundle: MarketBundle) -> list[Document]:
    return [asdict(r) | {"day": r.day.isoformat() if r.day else None} for r in bundle.repairs]


def _held(bundle: MarketBundle, language: Language) -> list[str]:
    """That the newest prints of the rate are not believed, and which close is used in their place."""
    closes = np.flatnonzero(np.isfinite(bundle.truth))
    if len(closes) == 0:
        return []
    last, slug = bundle.dates[closes[-1]].date(), bundle.pair.slug
    close = float(bundle.truth[closes[-1]])
    return [
        language.say(
            "The forecast starts from the close of {last}, {close}: of {day} there is {found}, {note}.",
            last=language.day(last),
            close=language.number(close, price_decimals(close)),
            day=language.day(r.day),
            found=language.number(r.found, price_decimals(r.found)),
            note=language.told(plain(r.note)),
        )
        for r in bundle.repairs
        if r.kind == "held" and r.series.lower() in (slug, f"{slug}_{bundle.rate}")
        if r.day is not None and r.day > last and r.found is not None
    ]


def _offline(bundle: MarketBundle, language: Language) -> list[str]:
    reasons = {r.series: r.note for r in reversed(bundle.repairs) if r.kind == "offline"}
    names = affected_series(bundle, "offline")
    if not names:
        return []
    say = language.say
    series = [name for name in names if name not in _BESIDE]
    reason = language.told(plain(reasons[(series or names)[0]], 600)).rstrip(".")
    # A note about the pair itself, and not about one of its series, says all of it.
    if series == [str(bundle.pair)]:
        told = say("Offline: {reason}.", reason=reason)
    else:
        told = say("Offline: could not fetch {names} ({reason}).", names=_listed(names), reason=reason)
    closes = np.flatnonzero(np.isfinite(bundle.truth))
    if not series or len(closes) == 0:
        return [told]
    last = bundle.dates[closes[-1]].date()
    age = language.say_n(
        "The last close is of {last}, {n} day before the as-of date.",
        "The last close is of {last}, {n} days before the as-of date.",
        (bundle.as_of.date() - last).days,
        last=language.day(last),
    )
    return [f"{told} {age}"]


def _missing(bundle: MarketBundle, language: Language) -> list[str]:
    without: dict[str, list[str]] = {}
    for r in bundle.repairs:
        if r.kind == "missing":
            without.setdefault(r.note, []).append(r.series)
    return [
        language.say(
            "Without {names}: {note}.", names=_listed(names), note=language.told(plain(note).rstrip("."))
        )
        for note, names in without.items()
    ]


def _source(source: Source) -> Document:
    instants_and_days = {
        "fetched_at": source.fetched_at.isoformat(),
        "first_date": source.first_date.isoformat(),
        "last_date": source.last_date.isoformat(),
    }
    return asdict(source) | {"series": list(source.series)} | instants_and_days


def _headline(headline: Headline) -> Document:
    return {
        "published": headline.published.tz_convert("UTC").isoformat(),
        "title": plain(headline.title),
        "source": plain(headline.source, 80),
        "link": web_link(headline.link),
    }


def _listed(names: Sequence[str]) -> str:
    return ", ".join(plain(name, 80) for name in names)


def _weekdays(origins: Sequence[date]) -> dict[str, int]:
    """How many origins fall on each day of the week: scores differ by it where a close is struck early."""
    counts = Counter(day.strftime("%A") for day in sorted(origins, key=date.weekday))
    return dict(counts)


def _model(scores: Scores) -> Document:
    values = asdict(scores)
    return {name: values[name] for name in _MODEL_FIELDS}
