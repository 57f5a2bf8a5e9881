"""The bundle provider over the store of observations: what it held at an instant, and who had said so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from forex_core.data.catalogue import IMPORT, LICENCES, drivers_of, entry, spot_name
from forex_core.data.series import DERIVED, Definition, MarketData, Series
from forex_core.data.store import ObservationStore, Prints
from forex_core.errors import SourceError
from forex_core.types import Pair, RateKind, Source

SPOT_WINDOW_DAYS = 60
"""How long after its day a revised close can still be the last one that a row knows."""

OPENING_DAYS = 4
"""How much later than its date a row speaks, at most: over a weekend."""


@dataclass(frozen=True)
class StoredProvider:
    """Reads the store; never the network.

    Attributes:
        rate: which rate of the pair is its spot.
        drivers: names of the series beside it; None for those of the register and all imported ones that are in none.
            Of the register's, one that comes from files alone is not missed where nobody has imported it.
    """

    store: ObservationStore
    rate: RateKind = "close"
    drivers: tuple[str, ...] | None = None
    name: str = "store"

    def spot_definition(self, pair: Pair) -> Definition:
        return entry(spot_name(pair, self.rate)).definition

    def load(self, pair: Pair, instant: pd.Timestamp | None = None) -> MarketData:
        """As `Provider.load`.

        Raises:
            SourceError: the store knew no rate of the pair then.
        """
        at = instant if instant is not None else pd.Timestamp.now(tz="UTC")
        spot = spot_name(pair, self.rate)
        wanted = self._drivers(pair)
        windows = {name: entry(name).definition.max_age_days + OPENING_DAYS for name in wanted} | {
            spot: SPOT_WINDOW_DAYS
        }
        held = self.store.read((spot, *wanted), at, windows)
        if len(held[spot].dates) == 0:
            raise self._unknown(pair, spot, at)
        present = tuple(name for name in wanted if len(held[name].dates))
        return MarketData(
            _series(spot, held[spot]),
            tuple(_series(name, held[name]) for name in present),
            _sources({name: held[name] for name in (spot, *present)}),
            missing={
                name: "the store holds none of it; models go without"
                for name in wanted
                if name not in present and (self.drivers is not None or entry(name).feeds)
            },
        )

    def _drivers(self, pair: Pair) -> tuple[str, ...]:
        if self.drivers is not None:
            return self.drivers
        imported = (name for name in self.store.names() if entry(name).is_imported)
        return (*drivers_of(pair, self.rate), *(name for name in imported if name not in DERIVED))

    def _unknown(self, pair: Pair, spot: str, at: pd.Timestamp) -> SourceError:
        known = self.store.first_known(spot)
        if known is not None:
            return SourceError(
                f"the store knew no {spot} at {at:%Y-%m-%d %H:%M} UTC; its first value became known on "
                f"{known:%Y-%m-%d}: give a later --as-of"
            )
        held = [name for name in self.store.names() if name.startswith(pair.slug)]
        return SourceError(
            f"the store holds no {spot}; of {pair} it holds {', '.join(held) or 'nothing'}. Fill it with "
            f"'forex data fetch --pair {pair}' or 'forex data import FILE --pair {pair}', or choose another rate "
            "(setting data.rate)"
        )


def _series(name: str, prints: Prints) -> Series:
    return Series(name, prints.dates, prints.values, entry(name).definition, prints.known_at)


def _sources(held: Mapping[str, Prints]) -> tuple[Source, ...]:
    """One for each source, with what it gave last for each day."""
    found: dict[str, list[tuple[str, pd.DatetimeIndex]]] = {}
    for name, prints in held.items():
        for source in dict.fromkeys(prints.sources[prints.is_latest]):
            days = prints.dates[prints.is_latest & (prints.sources == source)]
            found.setdefault(str(source), []).append((name, days))
    return tuple(
        Source(
            name="imported files" if source == IMPORT else source,
            series=tuple(name for name, _ in given),
            fetched_at=max(held[name].recorded_at[source] for name, _ in given),
            first_date=min(days.min() for _, days in given).date(),
            last_date=max(days.max() for _, days in given).date(),
            rows=sum(len(days) for _, days in given),
            licence=LICENCES.get(source, LICENCES[IMPORT]),
            release="; ".join(dict.fromkeys(entry(name).definition.release.rule for name, _ in given)),
        )
        for source, given in found.items()
    )
