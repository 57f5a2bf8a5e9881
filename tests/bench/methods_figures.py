"""The figures and tables of docs/methods.md: calibration, coverage by step and by year, years lost, joint paths.

Every weekday from --from to --to is an origin, so that no day of the week is favoured; weights and bands learn on the
fixed grid as in a published forecast. Joint paths are drawn at every fifth. Writes docs/figures/*.svg and prints the
tables as Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np

from forex_core.briefing.sample_paths import sample_paths
from forex_core.config import ChronosConfig, EngineConfig
from forex_core.data.bundle import load_bundle
from forex_core.data.providers.csv_files import CsvProvider
from forex_core.engine import Engine, Paths, build_members
from forex_core.evaluation import Judged, score
from forex_core.models.random_walk import reference_sigma
from forex_core.report.charts import CONFIG, FORECAST, MUTED, WALK
from forex_core.report.drawing import draw
from forex_core.types import ENSEMBLE, HORIZONS, LEVELS, PATH_STEPS, Forecast, Horizon, Mask, Pair, Scores

FIGURES = Path(__file__).parents[2] / "docs" / "figures"
LEARNING_ROWS = 1400
"""Rows before the first scored origin, which hold the 260 grid origins that it learns from."""

BARRIERS = (0.3, 0.8, 1.3)
"""Distance of a rate that is to be touched from the close, in σ√H."""

COLOURS = ("#0b2f52", FORECAST, "#6fa8dc", WALK)
Row = dict[str, Any]


@dataclass(frozen=True)
class Scored:
    """One pass over every weekday, and the mask [N] of origins that are scored."""

    paths: Paths
    among: Mask

    def judged(self, horizon: Horizon, keep: Mask) -> tuple[Judged, Judged]:
        """The ensemble and the random walk on those origins."""
        spot = self.paths.bundle.spot[self.paths.rows][keep]
        path = slice(horizon.evaluation_steps)
        truth = self.paths.truth[keep][:, path]
        ensemble, walk = (q[keep][:, path] for q in (self.paths.quantiles[ENSEMBLE], self.paths.walk))
        return Judged(ensemble, truth, spot, LEVELS), Judged(walk, truth, spot, LEVELS)

    def scores(self, horizon: Horizon, year: int | None = None) -> tuple[Scores, int]:
        """Scores of the ensemble, on the origins of one year or on all, and how many they are."""
        years = self.paths.bundle.dates[self.paths.rows].year.to_numpy()
        keep = self.paths.scored(horizon, self.among & (True if year is None else years == year))
        return score(*self.judged(horizon, keep), every=1), int(keep.sum())


def run(path: Path, pair: Pair, start: date, end: date) -> Scored:
    bundle = load_bundle(CsvProvider((path,)), pair, None)
    config = EngineConfig(members=tuple(m for m in EngineConfig().members if m != "chronos"))
    first = int(bundle.dates.searchsorted(np.datetime64(start)))
    last = int(bundle.dates.searchsorted(np.datetime64(end), side="right"))
    rows = np.arange(max(config.min_history_rows, first - LEARNING_ROWS), last)
    paths = Engine(config, build_members(config, ChronosConfig())).paths(bundle, rows)
    return Scored(paths, paths.rows >= first)


def calibration(scored: Scored) -> Row:
    """Share of outcomes below each quantile against its level."""
    rows = []
    for horizon in HORIZONS:
        model, _ = scored.judged(horizon, scored.paths.scored(horizon, scored.among))
        seen = ~np.isnan(model.truth)
        below = (model.truth[:, :, None] <= model.quantiles)[seen].mean(axis=0)
        rows += [
            {"level": level, "share": float(share), "horizon": str(horizon)}
            for level, share in zip(LEVELS, below, strict=True)
        ]
    axis = alt.Scale(domain=[0, 1])
    dots = (
        alt.Chart(alt.Data(values=rows))
        .mark_line(point=alt.OverlayMarkDef(size=28), strokeWidth=1.2)
        .encode(
            x=alt.X("level:Q", title="quantile level", scale=axis),
            y=alt.Y("share:Q", title="share of outcomes below", scale=axis),
            color=_by_horizon(),
        )
    )
    ideal = (
        alt.Chart(alt.Data(values=[{"x": 0, "y": 0}, {"x": 1, "y": 1}]))
        .mark_line(color=MUTED, strokeDash=[4, 4])
        .encode(x="x:Q", y="y:Q")
    )
    return _spec(ideal + dots, 360, 360)


def coverage_by_step(scored: Scored) -> Row:
    scores, _ = scored.scores(Horizon(90))
    bands = ((80, scores.coverage_80_by_step), (95, scores.coverage_95_by_step))
    rows = [
        {"step": h + 1, "share": value, "band": f"{band} %"}
        for band, by_step in bands
        for h, value in enumerate(by_step)
    ]
    lines = (
        alt.Chart(alt.Data(values=rows))
        .mark_line(strokeWidth=2)
        .encode(
            x=alt.X("step:Q", title="step (weekdays ahead)", scale=alt.Scale(domain=[1, PATH_STEPS])),
            y=alt.Y("share:Q", title="outcomes inside", axis=alt.Axis(format="%"), scale=_coverage_scale()),
            color=alt.Color("band:N", title="band", scale=alt.Scale(range=[FORECAST, "#0b2f52"])),
        )
    )
    return _spec(_nominal() + lines, 620, 240)


def by_year(table: list[Row]) -> Row:
    """RMSE and CRPS over those of the random walk, and coverage, by year of the origin."""
    ratio = alt.Scale(zero=False, padding=12)
    panels = [
        _year_panel(table, "rmse", "RMSE / random walk", ratio, [1.0]),
        _year_panel(table, "crps", "CRPS / random walk", ratio, [1.0]),
        _year_panel(table, "coverage_80", "inside the 80 % band", _coverage_scale(), [0.8]),
        _year_panel(table, "coverage_95", "inside the 95 % band", _coverage_scale(), [0.95]),
    ]
    chart = alt.vconcat(alt.hconcat(*panels[:2]), alt.hconcat(*panels[2:]))
    return chart.configure(**{**CONFIG, "padding": 16}).to_dict()


def years(scored: Scored) -> list[Row]:
    found = sorted(set(scored.paths.bundle.dates[scored.paths.rows[scored.among]].year))
    return [
        _row(str(year), horizon, *scored.scores(horizon, int(year))) for year in found for horizon in HORIZONS
    ]


def markdown(table: list[Row], scored: Scored) -> str:
    """RMSE/CRPS ratio, coverage 80/95, and (in brackets) RMSE ratio from the next close; ratios above 1 in bold."""
    head = ["origins of", "n", *(f"{h}" for h in HORIZONS)]
    lines = [head, ["---"] * len(head)]
    whole = [_row("all", horizon, *scored.scores(horizon)) for horizon in HORIZONS]
    for year in dict.fromkeys(row["year"] for row in [*table, *whole]):
        mine = [row for row in [*table, *whole] if row["year"] == year]
        lines.append([year, str(mine[0]["n"]), *(_cell(row) for row in mine)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def joint(scored: Scored) -> str:
    """Probabilities of touch beside how often they came true; how often the mean rate of a path lay in its bands."""
    sides = [(side, barrier) for barrier in BARRIERS for side in (1, -1)]
    names = [f"{'above' if side > 0 else 'below'} {barrier} σ√H" for side, barrier in sides]
    head = ["ahead", "n", *names, "mean rate in 80 %", "below its worst 5 %", "above"]
    lines = [head, ["---"] * len(head)]
    bundle, sigma = scored.paths.bundle, reference_sigma(scored.paths.bundle)
    for horizon in HORIZONS:
        steps = horizon.evaluation_steps
        told, happened, place = [], [], []
        for n in np.flatnonzero(scored.paths.scored(horizon, scored.among))[::5]:
            row = int(scored.paths.rows[n])
            days = tuple(day.date() for day in bundle.dates[row + 1 : row + 1 + steps])
            quantiles = scored.paths.quantiles[ENSEMBLE][n, :steps]
            origin = bundle.dates[row].date()
            forecast = Forecast(bundle.pair, origin, days, tuple(range(1, steps + 1)), LEVELS, quantiles)
            prices = sample_paths(forecast, bundle).prices
            truth = bundle.spot[row + 1 : row + 1 + steps]
            at = [
                side * bundle.spot[row] * np.exp(side * b * sigma[row] * np.sqrt(steps)) for side, b in sides
            ]
            told.append(
                [(side * prices > b).any(axis=1).mean() for (side, _), b in zip(sides, at, strict=True)]
            )
            happened.append([(side * truth > b).any() for (side, _), b in zip(sides, at, strict=True)])
            place.append((prices.mean(axis=1) < truth.mean()).mean())
        pairs = zip(np.mean(told, axis=0), np.mean(happened, axis=0), strict=True)
        shares = np.array(place)
        inside = [(shares > 0.1) & (shares < 0.9), shares < 0.05, shares > 0.95]
        cells = [f"{100 * a:.0f} ({100 * b:.0f})" for a, b in pairs] + [
            f"{100 * i.mean():.0f}" for i in inside
        ]
        lines.append([str(horizon), str(len(place)), *cells])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _row(year: str, horizon: Horizon, scores: Scores, count: int) -> Row:
    return {
        "year": year,
        "horizon": str(horizon),
        "n": count,
        "rmse": scores.rmse_ratio_rw,
        "crps": scores.crps_ratio_rw,
        "coverage_80": scores.coverage_80,
        "coverage_95": scores.coverage_95,
        "next_close": scores.rmse_ratio_next_close,
    }


def _cell(row: Mapping[str, Any]) -> str:
    ratios = "/".join(_ratio(row[name]) for name in ("rmse", "crps"))
    covered = f"{100 * row['coverage_80']:.0f}/{100 * row['coverage_95']:.0f}"
    return f"{ratios} {covered} ({_ratio(row['next_close'])})"


def _ratio(value: float) -> str:
    text = f"{value:.3f}".removeprefix("0")
    return f"**{text}**" if value > 1 else text


def _year_panel(
    table: list[Row], field: str, title: str, scale: alt.Scale, rule: list[float]
) -> alt.LayerChart:
    reference = (
        alt.Chart(alt.Data(values=[{"y": y} for y in rule]))
        .mark_rule(color=MUTED, strokeDash=[4, 4])
        .encode(y=alt.Y("y:Q", scale=scale))
    )
    points = (
        alt.Chart(alt.Data(values=table))
        .mark_point(filled=True, size=60)
        .encode(
            x=alt.X("year:O", title=None, axis=alt.Axis(labelAngle=0)),
            y=alt.Y(f"{field}:Q", title=title, scale=scale),
            color=_by_horizon(),
            xOffset=alt.XOffset("horizon:N", sort=[str(h) for h in HORIZONS]),
        )
    )
    return (reference + points).properties(width=320, height=200)


def _by_horizon() -> alt.Color:
    names = [str(h) for h in HORIZONS]
    return alt.Color(
        "horizon:N", title="ahead", sort=names, scale=alt.Scale(domain=names, range=list(COLOURS))
    )


def _coverage_scale() -> alt.Scale:
    return alt.Scale(domain=[0.6, 1.0], zero=False, nice=False)


def _nominal() -> alt.Chart:
    data = alt.Data(values=[{"y": 0.8}, {"y": 0.95}])
    return (
        alt.Chart(data)
        .mark_rule(color=MUTED, strokeDash=[4, 4])
        .encode(y=alt.Y("y:Q", scale=_coverage_scale()))
    )


def _spec(chart: alt.LayerChart, width: int, height: int) -> Row:
    found: Row = chart.properties(width=width, height=height).configure(**{**CONFIG, "padding": 16}).to_dict()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--path", type=Path, required=True, help="CSV file of the market")
    parser.add_argument("--pair", default="USDCLP")
    parser.add_argument("--from", dest="start", type=date.fromisoformat, default=date(2018, 1, 1))
    parser.add_argument("--to", dest="end", type=date.fromisoformat, default=date(2024, 6, 28))
    arguments = parser.parse_args()
    scored = run(arguments.path, Pair.parse(arguments.pair), arguments.start, arguments.end)
    table = years(scored)
    specs = {
        "calibration": calibration(scored),
        "coverage_by_step": coverage_by_step(scored),
        "by_year": by_year(table),
    }
    FIGURES.mkdir(parents=True, exist_ok=True)
    for name, svg in draw(specs).svg.items():
        (FIGURES / f"{name}.svg").write_text(svg, encoding="utf-8")
    print(markdown(table, scored))
    print()
    print(joint(scored))


if __name__ == "__main__":
    main()
