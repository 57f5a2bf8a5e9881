"""What is written of a forecast that is published, and what stands of it later. Values only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from forex_core.types import Array, ForecastRun, Horizon, MarketBundle, Pair, Publication


@dataclass(frozen=True)
class Entry:
    """One published forecast. H target dates, Q levels, M members.

    Attributes:
        published_at: before `outcome_at`, when its first outcome is released, or it was made in hindsight.
        close: of the origin, in quote units as all that follows.
        version: of the registered model, None where none was registered.
        verdict: its kind.
        quantiles: [H, Q] as published.
        walk: [H, Q] of the random walk from the origin's close.
        medians: [H, M] of the members after calibration.
    """

    run_id: str
    pair: Pair
    rate: str
    horizon: Horizon
    origin: date
    as_of: pd.Timestamp
    published_at: pd.Timestamp
    outcome_at: pd.Timestamp
    close: float
    model: str
    version: int | None
    recipe: str
    fingerprint: str
    verdict: str
    levels: tuple[float, ...]
    members: tuple[str, ...]
    weights: tuple[float, ...]
    steps: tuple[int, ...]
    target_dates: tuple[date, ...]
    quantiles: Array
    walk: Array
    medians: Array

    @classmethod
    def of(
        cls,
        run: ForecastRun,
        bundle: MarketBundle,
        publication: Publication,
        run_id: str,
        published_at: pd.Timestamp,
    ) -> Entry:
        """Of a run as it is published."""
        forecast, walk = run.forecast, next(m for m in run.members if m.name == "random_walk")
        middle = forecast.levels.index(0.5)
        return cls(
            run_id=run_id,
            pair=forecast.pair,
            rate=bundle.rate,
            horizon=run.horizon,
            origin=forecast.origin,
            as_of=run.as_of.tz_convert("UTC").floor("us"),
            published_at=published_at.tz_convert("UTC").floor("us"),
            # Of an outcome that comes nobody knows when, it is not known that it came later.
            outcome_at=(bundle.outcome_at or run.as_of).tz_convert("UTC").floor("us"),
            close=float(bundle.spot[-1]),
            model=publication.model,
            version=publication.version,
            recipe=run.recipe,
            fingerprint=run.fingerprint,
            verdict=run.verdict.kind,
            levels=forecast.levels,
            members=tuple(m.name for m in run.members),
            weights=tuple(float(m.weight) for m in run.members),
            steps=forecast.steps,
            target_dates=forecast.target_dates,
            quantiles=forecast.quantiles,
            walk=walk.raw,
            medians=np.stack([m.calibrated[:, middle] for m in run.members], axis=1),
        )

    @property
    def is_live(self) -> bool:
        """Whether it was published before the first of its outcomes was released: anything later is hindsight."""
        return bool(self.published_at < self.outcome_at)

    def to_json(self) -> str:
        """For a file that outlives the process."""
        content = asdict(self) | {
            "pair": str(self.pair),
            "horizon": str(self.horizon),
            "origin": self.origin.isoformat(),
            "as_of": self.as_of.isoformat(),
            "published_at": self.published_at.isoformat(),
            "outcome_at": self.outcome_at.isoformat(),
            "target_dates": [day.isoformat() for day in self.target_dates],
            **{name: getattr(self, name).tolist() for name in ("quantiles", "walk", "medians")},
        }
        return json.dumps(content)

    @classmethod
    def from_json(cls, text: str) -> Entry:
        """
        Raises:
            ValueError, KeyError, TypeError: when the text is no entry.
        """
        content: dict[str, Any] = json.loads(text)
        return cls(
            **content
            | {
                "pair": Pair.parse(content["pair"]),
                "horizon": Horizon.parse(content["horizon"]),
                "origin": date.fromisoformat(content["origin"]),
                "as_of": pd.Timestamp(content["as_of"]),
                "published_at": pd.Timestamp(content["published_at"]),
                "outcome_at": pd.Timestamp(content["outcome_at"]),
                "target_dates": tuple(date.fromisoformat(day) for day in content["target_dates"]),
                **{name: tuple(content[name]) for name in ("levels", "members", "weights", "steps")},
                **{name: np.array(content[name], dtype=float) for name in ("quantiles", "walk", "medians")},
            }
        )


@dataclass(frozen=True)
class Published:
    """A forecast of the ledger without its path.

    Attributes:
        recorded_at: when it was written here: later than it was published where it had to wait.
        live: as `Entry.is_live`.
        digest: of the chain up to it.
    """

    number: int
    run_id: str
    pair: Pair
    rate: str
    horizon: Horizon
    origin: date
    as_of: pd.Timestamp
    published_at: pd.Timestamp
    recorded_at: pd.Timestamp
    live: bool
    close: float
    model: str
    version: int | None
    recipe: str
    fingerprint: str
    verdict: str
    weights: Mapping[str, float]
    digest: str
