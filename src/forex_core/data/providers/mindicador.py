"""Chilean indicators from mindicador.cl: a public service without a key that repeats what the central bank publishes.

A year at a time, newest first. A day is written as its midnight in Santiago, in UTC: `2024-06-28T04:00:00.000Z`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from forex_core.data.catalogue import MINDICADOR
from forex_core.data.http import HttpClient
from forex_core.data.observations import Observations
from forex_core.data.providers.labelling import code_of, day_of, field_of, label, number_of
from forex_core.data.wire import shown
from forex_core.errors import SourceError
from forex_core.strangers import printable

URL = "https://mindicador.cl/api"

_UNITS: Mapping[str, str] = {
    "dolar": "Pesos",
    "uf": "Pesos",
    "tpm": "Porcentaje",
    "ipc": "Porcentaje",
    "libra_cobre": "Dólar",
}
_MIDNIGHTS = ("T03:00:00.000Z", "T04:00:00.000Z")
"""Midnight in Santiago with and without daylight saving. Either is taken on any day, since the day is the same and the
service has been months late with a change of Chile's rules (04:00 in September 2018)."""


@dataclass(frozen=True)
class MindicadorFetcher:
    """Dólar observado, UF, policy rate, monthly inflation, copper's cash price."""

    client: HttpClient
    url: str = URL

    @property
    def name(self) -> str:
        return MINDICADOR

    def fetch(self, series: str, start: date, end: date) -> Observations:
        """See `Fetcher.fetch`. One request for each calendar year.

        A year without a row is an error if an earlier one has some; before, the series had not begun.
        """
        _, code = code_of(self.name, series)
        now = self.client.now()
        where = f"{shown(self.url, query=False)}/{code}"
        days: list[date] = []
        values: list[float] = []
        for year in range(start.year, min(end.year, now.year) + 1):
            rows = self._year(code, year)
            if days:  # a hole inside a series that has begun is not passed over
                label(
                    self.name,
                    series,
                    [day for day, _ in rows],
                    [value for _, value in rows],
                    date(year, 1, 1),
                    min(end, date(year, 12, 31)),
                    now=now,
                    where=f"{where}/{year}",
                )
            days += [day for day, _ in rows]
            values += [value for _, value in rows]
        return label(self.name, series, days, values, start, end, now=now, where=where)

    def _year(self, code: str, year: int) -> list[tuple[date, float]]:
        answer = self.client.get(f"{self.url}/{code}/{year}")
        where = answer.url
        document = answer.json()
        for name, expected in (("codigo", code), ("unidad_medida", _UNITS.get(code))):
            stated = field_of(document, name, str, where)
            if stated != expected:
                raise SourceError(
                    f"{where}: field '{name}' says '{printable(stated)}', expected '{expected}'. This is another series"
                )
        return [
            (
                _day(field_of(row, "fecha", str, where), where),
                number_of(field_of(row, "valor", _NUMBER, where), where),
            )
            for row in field_of(document, "serie", list, where)
        ]


_NUMBER = (int, float, str, type(None))


def _day(text: str, where: str) -> date:
    if not text.endswith(_MIDNIGHTS):
        raise SourceError(
            f"{where}: date '{printable(text, 40)}', expected midnight in Santiago as {' or '.join(_MIDNIGHTS)}. "
            "Its time zone has changed, and days may be off by one"
        )
    return day_of(text[:10], "%Y-%m-%d", where)
