"""A run as one HTML file that needs nothing but itself, and what else of it goes into a run's artifacts.

Everything shown is turned into text here, in the language of the reader; the template only places it, and escapes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from forex_core.calendars import desk_zone
from forex_core.data.catalogue import LICENCES
from forex_core.report.briefing import acting, reasons
from forex_core.report.charts import Drawings, draw_charts, recent_drivers
from forex_core.report.document import (
    Document,
    data_notices,
    events_document,
    news_document,
    price_decimals,
    publication_notices,
    readable,
)
from forex_core.report.inline import json_in_script, source_hash
from forex_core.report.language import ENGLISH, Language, label_of
from forex_core.report.look import FONT, PALETTE
from forex_core.report.tables import DASH, NBSP, Column, Table, number_cell, percent_cell, unbroken
from forex_core.strangers import plain
from forex_core.types import ENSEMBLE, RANDOM_WALK, RATE_NAMES, ForecastRun, MarketBundle, Publication, Scores

OLD_AFTER_WEEKDAYS = 3
"""An origin older than this, in weekdays before the as-of date, carries a warning."""

IMPORTED = "imported files"
"""What a bundle from a store calls the source of what was put in by hand."""


@dataclass(frozen=True)
class News:
    """Headlines ready to show, each as (title, link or None, source, time); `counted` says how many there are."""

    counted: str
    items: Sequence[tuple[str, str | None, str, str]]


@dataclass(frozen=True)
class Figure:
    """A chart in the page: its words and the static picture; the script finds the rest by `name`."""

    name: str
    title: str
    caption: str
    description: str
    svg: Markup


def render_report(
    run: ForecastRun,
    bundle: MarketBundle,
    *,
    run_id: str,
    generated_at: pd.Timestamp,
    publication: Publication | None = None,
    drawings: Drawings | None = None,
    language: Language = ENGLISH,
    document: Document | None = None,
) -> str:
    """The report as one self-contained HTML file: equal arguments give equal text.

    Charts are interactive where scripts run and static pictures elsewhere (print, mail, scripts off).

    Args:
        publication: which registered model this is, where there is a registry.
        drawings: the charts, where they have been drawn already, in the same language.
        document: of the run, with the keys of `forex_core.briefing.document`, whose parts are shown.

    Raises:
        ForexError: the charts could not be drawn.
    """
    drawings = drawings or draw_charts(run, bundle, language=language)
    library, boot = drawings.script, _asset("report.js")
    for script in (library, boot):
        if "</script" in script.lower() or "<!--" in script:
            raise ValueError("a script of the report would end its own element")
    page = {
        "title": f"{run.forecast.pair.slashed} {run.horizon}, {language.day(run.forecast.origin)}",
        "summary": summary_of(run, bundle, publication, language),
        "verdict": _verdict(run, language),
        "figures": {
            name: Figure(name, p.title, p.caption, p.description, Markup(drawings.still.svg[name]))
            for name, p in drawings.charts.items()
        },
        "targets": targets_of(run, language),
        "acting": acting(document or {}, language),
        "reasons": reasons(document or {}, language),
        "models": _models(run, language),
        "sample": _sample(run, language),
        "calibration": _calibration(run, language),
        "drivers": _drivers(bundle, language),
        "events": _events(run, bundle, language),
        "news": _news(bundle, language),
        "is_told_of": bool(bundle.events or bundle.news) or _is_stored(bundle),
        "last_target": language.day(run.forecast.target_dates[-1]),
        "left_out": _left_out(run, language),
        "sources": _sources(bundle, language),
        "repairs": _repairs(bundle, language),
        "identity": _identity(run, bundle, run_id, generated_at, publication, language),
        "settings": _settings(run, language),
        "timings": _timings(run, language),
        "generated": language.instant(generated_at),
        "run_id": run_id,
        "dash": DASH,
        "font": Markup(FONT),
        "palette": PALETTE,
        "css": Markup(_asset("report.css")),
        "specs": json_in_script({name: picture.spec() for name, picture in drawings.charts.items()}),
        "scripts": [Markup(library), Markup(boot)],
        # Hashes, and not 'unsafe-inline': a script that slipped in through a name would not be run.
        "script_hashes": Markup(" ".join(map(source_hash, (library, boot)))),
    }
    return environment_of(language).get_template("report.html.j2").render(page)


@dataclass(frozen=True)
class Summary:
    """What a reader sees first, of a page and of a mail.

    Attributes:
        heading: pair and horizon.
        facts: names and values.
        notices: what the reader should know before anything else.
        verdict: a sentence.
    """

    heading: str
    facts: Sequence[tuple[str, str]]
    notices: Sequence[str]
    verdict: str


def summary_of(
    run: ForecastRun, bundle: MarketBundle, publication: Publication | None, language: Language
) -> Summary:
    notices = (
        _age_warning(run, language),
        *data_notices(bundle, language),
        *publication_notices(publication, language),
    )
    return Summary(
        heading=language.say(
            "{pair}, {days} days ahead", pair=run.forecast.pair.slashed, days=run.horizon.days
        ),
        facts=_facts(run, bundle, language),
        notices=[note for note in notices if note],
        verdict=language.told(run.verdict.sentence),
    )


def forecast_table(run: ForecastRun) -> pd.DataFrame:
    """The forecast as a table [H, 2 + Q]: `target_date`, `step`, and a price column per level, `q0.01` to `q0.99`."""
    forecast = run.forecast
    columns: dict[str, Any] = {
        "target_date": pd.to_datetime(list(forecast.target_dates)),
        "step": np.asarray(forecast.steps, dtype=np.int64),
    }
    for position, level in enumerate(forecast.levels):
        columns[f"q{level:g}"] = forecast.quantiles[:, position]
    return pd.DataFrame(columns)


# What the page says, part by part.


def _facts(run: ForecastRun, bundle: MarketBundle, language: Language) -> list[tuple[str, str]]:
    forecast, say = run.forecast, language.say
    price = _prices(run, language)
    age = (run.as_of.date() - forecast.origin).days
    low80, high80 = forecast.interval(0.8)
    last = language.day(forecast.target_dates[-1])
    band = say("{low} to {high}", low=price(float(low80[-1])), high=price(float(high80[-1])))
    return [
        (say("Origin"), language.day(forecast.origin)),
        (say("As of"), language.instant(run.as_of)),
        (say("Age of the origin"), language.say_n("{n} day", "{n} days", age)),
        (say("Close at the origin"), f"{price(float(bundle.spot[-1]))} {language.told(forecast.pair.unit)}"),
        (say("Median for {day}", day=last), price(float(forecast.median[-1]))),
        (unbroken(say("80 % band for {day}", day=last)), band),
    ]


def _age_warning(run: ForecastRun, language: Language) -> str:
    weekdays = int(np.busday_count(run.forecast.origin, run.as_of.date()))
    if weekdays <= OLD_AFTER_WEEKDAYS:
        return ""
    told = language.say(
        "Old data: the last close is {weekdays} weekdays older than the as-of date. "
        "The forecast starts from that close.",
        weekdays=language.count(weekdays),
    )
    if run.forecast.target_dates[-1] < run.as_of.date():
        told += " " + language.say("Every target date has passed.")
    return told


def _verdict(run: ForecastRun, language: Language) -> dict[str, Any]:
    verdict, ours, say = run.verdict, run.evaluation.scores[ENSEMBLE], language.say
    labels = {
        "usable": say("Usable skill"),
        "close_only": say("Skill against the close only"),
        "none": say("No directional edge"),
    }
    evidence = [
        (say("RMSE against the random walk from the origin's close"), ours.rmse_ratio_rw, verdict.p_close),
        (
            say("RMSE against the random walk from the next close"),
            ours.rmse_ratio_next_close,
            verdict.p_next_close,
        ),
    ]
    return {
        "kind": verdict.kind if verdict.kind in labels else "none",
        "heading": say("Verdict: {label}", label=labels.get(verdict.kind, verdict.kind)),
        "evidence": [
            (
                what,
                say(
                    "ratio {ratio}, adjusted p {p}",
                    ratio=number_cell(ratio, 3, language),
                    p=_pvalue(p, language),
                ),
            )
            for what, ratio, p in evidence
        ],
        "decided": say(
            "The p-values were decided on {day} from {origins} origins, "
            "after Holm's correction over the four horizons; the ratios are those of today's table below.",
            day=language.day(verdict.decided_on),
            origins=language.count(verdict.origins),
        ),
    }


def targets_of(run: ForecastRun, language: Language) -> Table:
    """Median and bands by target date: date, step, median, low and high of 80 %, low and high of 95 %."""
    forecast, price, say = run.forecast, _prices(run, language), language.say
    bands = [forecast.interval(cover) for cover in (0.8, 0.95)]
    rows = [
        [
            language.day(day),
            str(forecast.steps[h]),
            price(float(forecast.median[h])),
            *(price(float(side[h])) for band in bands for side in band),
        ]
        for h, day in enumerate(forecast.target_dates)
    ]
    columns = (
        Column(say("Target date"), words=True),
        Column(say("Step"), hint=say("weekdays after the origin")),
        Column(say("Median")),
        *(
            Column(unbroken(label))
            for label in (say("80 % low"), say("80 % high"), say("95 % low"), say("95 % high"))
        ),
    )
    caption = say("Forecast by target date, {unit}", unit=language.told(forecast.pair.unit))
    return Table(caption, columns, rows)


def _models(run: ForecastRun, language: Language) -> Table:
    scores, say = run.evaluation.scores, language.say
    others = sorted(
        (n for n in scores if n not in (ENSEMBLE, RANDOM_WALK)), key=lambda n: (scores[n].rmse, n)
    )
    names = [n for n in (ENSEMBLE, RANDOM_WALK) if n in scores] + others
    quote, price = run.forecast.pair.quote, _prices(run, language)
    columns = (
        Column(say("Model"), words=True),
        Column(say("RMSE"), hint=say("root mean squared error, {quote}", quote=quote)),
        Column(say("MAE"), hint=say("mean absolute error, {quote}", quote=quote)),
        Column(unbroken(say("MAPE %")), hint=say("mean absolute error, percent")),
        Column(say("CRPS"), hint=say("continuous ranked probability score, {quote}", quote=quote)),
        Column(say("RMSE ratio"), hint=say("to the random walk; below 1 is better")),
        Column(say("CRPS ratio"), hint=say("to the random walk; below 1 is better")),
        Column(unbroken(say("In 80 %")), hint=say("outcomes inside the 80 % band, percent")),
        Column(unbroken(say("In 95 %")), hint=say("outcomes inside the 95 % band, percent")),
        Column(unbroken(say("Direction %")), hint=say("last step on the right side of the close, percent")),
        Column(say("p-value"), hint=say("one-sided, against the random walk from the close")),
        Column(unbroken(say("Weight %")), hint=say("in this forecast")),
    )

    def row(name: str, s: Scores) -> list[str]:
        return [
            label_of(name, language),
            price(s.rmse),
            price(s.mae),
            number_cell(s.mape_pct, 2, language),
            price(s.crps),
            number_cell(s.rmse_ratio_rw, 3, language),
            number_cell(s.crps_ratio_rw, 3, language),
            percent_cell(s.coverage_80, language),
            percent_cell(s.coverage_95, language),
            percent_cell(s.directional_accuracy, language),
            _pvalue(s.dm_pvalue, language),
            percent_cell(run.weights.get(name), language),
        ]

    measured = [[s.rmse, s.mae, s.mape_pct, s.crps] for s in (scores[n] for n in names)]
    best = frozenset(
        (int(np.nanargmin(column)), k + 1)
        for k, column in enumerate(np.asarray(measured).T)
        if np.isfinite(column).any()
    )
    caption = say(
        "Out-of-sample scores over the whole path of {steps} steps; RMSE, MAE and CRPS in {quote}",
        steps=run.evaluation.steps,
        quote=quote,
    )
    return Table(caption, columns, [row(n, scores[n]) for n in names], frozenset({0, 1}), best)


def _sample(run: ForecastRun, language: Language) -> list[tuple[str, str]]:
    evaluation, say = run.evaluation, language.say
    origins = evaluation.origins
    return [
        (say("Origins"), language.count(len(origins))),
        (say("First origin"), language.day(origins[0]) if origins else DASH),
        (say("Last origin"), language.day(origins[-1]) if origins else DASH),
        (say("One origin every"), language.say_n("{n} business day", "{n} business days", evaluation.every)),
        (say("Effective number"), number_cell(evaluation.n_effective, 1, language)),
    ]


def _calibration(run: ForecastRun, language: Language) -> Table:
    evaluation, say = run.evaluation, language.say
    s = evaluation.scores[ENSEMBLE]
    rows = [
        [
            unbroken(band),
            number_cell(promised, 1, language),
            percent_cell(path, language),
            percent_cell(last, language),
        ]
        for band, promised, path, last in (
            (say("80 % band"), 80.0, s.coverage_80, s.coverage_80_last),
            (say("95 % band"), 95.0, s.coverage_95, s.coverage_95_last),
        )
    ]
    columns = (
        Column(say("Band"), words=True),
        Column(unbroken(say("Promised %"))),
        Column(unbroken(say("Whole path %")), hint=say("outcomes inside, all steps")),
        Column(unbroken(say("Last step %")), hint=say("outcomes inside, step {step}", step=evaluation.steps)),
    )
    caption = say(
        "Outcomes inside the ensemble's bands: n = {origins} origins, effective n = {effective}",
        origins=language.count(len(evaluation.origins)),
        effective=number_cell(evaluation.n_effective, 1, language),
    )
    return Table(caption, columns, rows)


def _drivers(bundle: MarketBundle, language: Language) -> Table | None:
    recent, say = {d.name: d for d in recent_drivers(bundle)}, language.say
    rows = []
    for name, unit in zip(bundle.driver_names, bundle.driver_units, strict=True):
        d = recent.get(name)
        told = [label_of(name, language), language.told(unit)]
        if d is None:
            rows.append([*told, DASH, DASH, DASH])
            continue
        first, last = float(d.values[0]), float(d.values[-1])
        change = (
            language.number(last - first, 2, "+")
            if d.level
            else f"{language.number(100 * (last / first - 1), 1, '+')}{NBSP}%"
        )
        decimals = 2 if abs(last) >= 10 or d.level else 4
        rows.append([*told, language.day(d.dates[-1]), number_cell(last, decimals, language), change])
    columns = (
        Column(say("Driver"), words=True),
        Column(say("Unit"), words=True),
        Column(say("Known on")),
        Column(say("Value")),
        Column(say("Change"), hint=say("over the rows shown; rates in percentage points")),
    )
    return Table(say("The drivers as they were known at the origin"), columns, rows) if rows else None


def _events(run: ForecastRun, bundle: MarketBundle, language: Language) -> Table | None:
    document, zone, say = events_document(run, bundle), desk_zone(bundle.pair), language.say
    rows = []
    for event in document["items"]:
        desk, utc = pd.Timestamp(event["at_desk"]), pd.Timestamp(event["when"])
        moved = "" if desk.date() == utc.date() else f" ({language.weekday(utc.date())})"
        rows.append(
            [
                f"{language.weekday(desk.date())} {language.day(desk.date(), year=False)}",
                f"{desk:%H:%M}",
                f"{utc:%H:%M}{moved}",
                event["title"],
                event["currency"] or DASH,
                language.told(event["impact"]) or DASH,
            ]
        )
    columns = (
        Column(say("Day"), words=True, hint=say("at the desk")),
        Column(say("Desk"), hint=zone.key),
        Column("UTC"),
        Column(say("Event"), words=True),
        Column(say("Currency"), words=True),
        Column(say("Impact"), words=True, hint=say("as the calendar has it")),
    )
    if not rows:
        return None
    told = {
        "day": language.day(run.forecast.target_dates[-1]),
        "count": language.count(document["count"]),
        "zone": zone.key,
    }
    if document["count"] == len(rows):
        caption = say("Scheduled events up to {day}: {count}; the desk's time is that of {zone}", **told)
    else:
        caption = say(
            "Scheduled events up to {day}: {count}, the next {shown} of them; the desk's time is that of {zone}",
            shown=len(rows),
            **told,
        )
    return Table(caption, columns, rows)


def _news(bundle: MarketBundle, language: Language) -> News | None:
    document = news_document(bundle)
    items = [
        (
            h["title"] or language.say("(without a title)"),
            h["link"],
            h["source"],
            language.instant(pd.Timestamp(h["published"])),
        )
        for h in document["items"]
    ]
    count = document["count"]
    if count == len(items):
        counted = language.say_n("{n} headline", "{n} headlines", count)
    else:
        counted = language.say(
            "{count} headlines, the newest {shown} of them", count=language.count(count), shown=len(items)
        )
    return News(counted, items) if items else None


def _is_stored(bundle: MarketBundle) -> bool:
    """Whether the data come from a store, which may hold headlines and events too."""
    return any(source.name in (*LICENCES, IMPORTED) for source in bundle.sources)


def _left_out(run: ForecastRun, language: Language) -> Table | None:
    reasons, say = {**run.evaluation.failures, **run.failures}, language.say
    rows = [[label_of(name, language), language.told(reason)] for name, reason in sorted(reasons.items())]
    for name, s in run.evaluation.scores.items():
        if s.failed_origins:
            reason = language.say_n(
                "gave no answer at {n} origin of the evaluation",
                "gave no answer at {n} origins of the evaluation",
                s.failed_origins,
            )
            rows.append([label_of(name, language), reason])
    rows += [
        [
            label_of(name, language),
            say(
                "may have seen these outcomes, and the ensemble by it: its weights do not say until when they learned"
            ),
        ]
        for name in run.evaluation.may_have_seen
    ]
    columns = (Column(say("Member"), words=True), Column(say("Reason"), words=True))
    caption = say("Members that were left out, did not answer everywhere or may know the outcomes")
    return Table(caption, columns, rows) if rows else None


def _sources(bundle: MarketBundle, language: Language) -> Table | None:
    say, told = language.say, language.told
    rows = [
        [
            told(plain(s.name)),
            ", ".join(map(plain, s.series)),
            say("{first} to {last}", first=language.day(s.first_date), last=language.day(s.last_date)),
            language.count(s.rows),
            language.instant(s.fetched_at),
            told(s.release),
            told(s.licence),
        ]
        for s in bundle.sources
    ]
    columns = (
        Column(say("Source"), words=True),
        Column(say("Series"), words=True),
        Column(say("Dates"), words=True),
        Column(say("Rows")),
        Column(say("Fetched"), words=True),
        Column(say("Known from"), words=True, hint=say("release rule")),
        Column(say("Licence"), words=True),
    )
    return Table(say("Where the data came from"), columns, rows) if rows else None


def _repairs(bundle: MarketBundle, language: Language) -> Table | None:
    say = language.say
    rows = [
        [
            plain(r.series),
            language.told(r.kind.replace("_", " ")),
            language.day(r.day) if r.day else DASH,
            DASH if r.found is None or not math.isfinite(r.found) else language.figures(r.found, 6),
            language.count(r.count),
            language.told(plain(r.note, 1000)),
        ]
        for r in bundle.repairs
    ]
    columns = (
        Column(say("Series"), words=True),
        Column(say("Kind"), words=True),
        Column(say("Day")),
        Column(say("Found")),
        Column(say("Count")),
        Column(say("Note"), words=True),
    )
    return Table(say("What the quality gate changed or noticed"), columns, rows) if rows else None


def _identity(
    run: ForecastRun,
    bundle: MarketBundle,
    run_id: str,
    generated_at: pd.Timestamp,
    publication: Publication | None,
    language: Language,
) -> list[tuple[str, str]]:
    say, model = language.say, []
    if publication and publication.version is not None:
        name = say("{model}, version {version}", model=publication.model, version=publication.version)
        model.append((say("Model"), name))
        model.append((say("Learned up to"), language.day(run.state.trained_until)))
    if publication:
        model.append((say("Decision"), language.told(readable(publication.reason))))
    return [
        (say("Run"), run_id),
        (say("Rate"), f"{language.told(RATE_NAMES[bundle.rate])}, {language.told(bundle.pair.unit)}"),
        *model,
        (say("Recipe"), run.recipe),
        (say("Data fingerprint"), run.fingerprint),
        (say("Report made"), language.instant(generated_at)),
    ]


def _settings(run: ForecastRun, language: Language) -> Table | None:
    stated = {**run.settings, "library": run.libraries}
    rows = [[key, value] for key, value in _flattened("", stated)]
    columns = (Column(language.say("Setting"), words=True), Column(language.say("Value"), words=True))
    return Table(language.say("Settings and library versions"), columns, rows) if rows else None


def _timings(run: ForecastRun, language: Language) -> Table | None:
    rows = [
        [label_of(name, language), number_cell(seconds, 2, language)] for name, seconds in run.timings.items()
    ]
    columns = (Column(language.say("Step of the work"), words=True), Column(language.say("Seconds")))
    return Table(language.say("Time taken"), columns, rows) if rows else None


def _flattened(prefix: str, values: Mapping[str, object]) -> Iterable[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flattened(f"{prefix}{key}.", value)
        elif isinstance(value, (list, tuple, set, frozenset)):
            yield (
                f"{prefix}{key}",
                ", ".join(map(str, sorted(value) if isinstance(value, (set, frozenset)) else value)),
            )
        else:
            yield f"{prefix}{key}", DASH if value is None else str(value)


# Figures as text.


def _prices(run: ForecastRun, language: Language) -> Callable[[float | None], str]:
    """Formats a price, or an error in price units, with the decimals this pair is quoted with."""
    decimals = price_decimals(float(run.forecast.median[0]))
    return lambda value: number_cell(value, decimals, language)


def _pvalue(p: float | None, language: Language) -> str:
    if p is None or not math.isfinite(p):
        return DASH
    return f"<{language.number(0.001, 3)}" if p < 0.001 else language.number(p, 3)


def _asset(name: str) -> str:
    return files("forex_core.report").joinpath("templates", name).read_text(encoding="utf-8")


@cache
def environment_of(language: Language) -> Environment:
    """What fills in templates: everything is escaped, and `say` tells it in a language."""
    environment = Environment(
        loader=PackageLoader("forex_core.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"say": language.say, "language": language.code}
    return environment
