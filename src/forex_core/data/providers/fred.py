"""Series of FRED, of the Federal Reserve Bank of St. Louis.

With a key each value comes with the days on which it was published and revised (ALFRED's vintages). Without one the
table that the site's charts offer for download is read: latest values alone, so that the declared release tells when
a day was known, and what was revised stands there since then.

The client fredapi 0.5.2 is not used: `urlopen` without a timeout, the key in its errors' addresses, and no way around
the limit of 2000 vintages, which every daily series exceeds.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd
from pydantic import SecretStr

from forex_core.data.catalogue import FRED
from forex_core.data.http import HttpClient
from forex_core.data.observations import Observations
from forex_core.data.providers.labelling import code_of, day_of, field_of, label, number_of
from forex_core.data.wire import shown
from forex_core.errors import SourceError
from forex_core.strangers import printable

URL = "https://api.stlouisfed.org/fred/series/observations"
TABLE_URL = "https://fred.stlouisfed.org/graph/fredgraph.csv"

_WINDOW = timedelta(days=5 * 365)
"""Of real time asked for at once: a series that is published every day stays below 2000 vintages."""
_PAGE = 100_000
_NO_VINTAGES = "does not exist in ALFRED"


@dataclass(frozen=True)
class FredFetcher:
    """US rates and indices; with `key` from the API, without from the public table."""

    client: HttpClient
    key: SecretStr | None = None
    url: str = URL
    table_url: str = TABLE_URL

    @property
    def name(self) -> str:
        return FRED

    def fetch(self, series: str, start: date, end: date) -> Observations:
        """See `Fetcher.fetch`. With a key a day may come several times: as first published, and as revised."""
        _, code = code_of(self.name, series)
        if self.key is None:
            return self._table(series, code, start, end)
        return self._vintages(series, code, start, end, self.key)

    def _table(self, series: str, code: str, start: date, end: date) -> Observations:
        answer = self.client.get(
            self.table_url, {"id": code, "cosd": start.isoformat(), "coed": end.isoformat()}, expect="csv"
        )
        where = answer.url
        rows = list(csv.reader(answer.text.splitlines()))
        header = [name.strip() for name in rows[0]]
        if header not in (["observation_date", code], ["DATE", code]):
            raise SourceError(
                f"{where}: found the columns {printable(', '.join(header))}, expected observation_date, {code}. "
                "The service has changed its answer"
            )
        days: list[date] = []
        values: list[float] = []
        for row in filter(None, rows[1:]):
            if len(row) != 2:
                raise SourceError(
                    f"{where}: found a row of {len(row)} cells, expected 2. The answer breaks off"
                )
            if row[1].strip() not in ("", "."):
                days.append(day_of(row[0], "%Y-%m-%d", where))
                values.append(number_of(row[1], where))
        return label(self.name, series, days, values, start, end, now=self.client.now(), where=where)

    def _vintages(self, series: str, code: str, start: date, end: date, key: SecretStr) -> Observations:
        """What was said of each day, and since when.

        A window of real time shows what stood at its beginning as if published then. Nothing of a day can be
        published before it, so the first window begins with the first day; in later ones a value that only stood on
        is told by its being the one before.
        """
        where = f"{shown(self.url, query=False)} {code}"
        today = (
            self.client.now().tz_convert("America/Chicago").date()
        )  # it refuses days that have not begun there
        tomorrow = today + timedelta(days=1)  # whatever is dated later is not taken either
        said: list[tuple[date, date, float]] = []
        since = start
        while since <= today:
            until = min(since + _WINDOW, today)
            said += self._window(code, start, end, since, until, key)
            since = until + timedelta(days=1)
        said.sort(key=lambda row: row[:2])
        prints: list[tuple[date, date, float]] = []
        for row in said:
            before = prints[-1] if prints and prints[-1][0] == row[0] else None
            if before is None and np.isnan(row[2]):
                continue  # a day that was announced without a value
            if before is None or (before[2] != row[2] and not np.isnan(row[2])):
                prints.append(row)
        published = pd.DatetimeIndex(pd.to_datetime([min(row[1], tomorrow) for row in prints])).as_unit("s")
        ends = (published + pd.Timedelta(days=1)).tz_localize("America/New_York").tz_convert("UTC")
        return label(
            self.name,
            series,
            [row[0] for row in prints],
            [row[2] for row in prints],
            start,
            end,
            now=self.client.now(),
            where=where,
            known_at=ends,
        )

    def _window(
        self, code: str, start: date, end: date, since: date, until: date, key: SecretStr
    ) -> list[tuple[date, date, float]]:
        """Rows (day, published, value) of the days from `start` to `end`, of what was published between two days."""
        rows: list[tuple[date, date, float]] = []
        while True:
            answer = self.client.get(
                self.url,
                {
                    "series_id": code,
                    "file_type": "json",
                    "output_type": "1",
                    "observation_start": start.isoformat(),
                    "observation_end": end.isoformat(),
                    "realtime_start": since.isoformat(),
                    "realtime_end": until.isoformat(),
                    "limit": str(_PAGE),
                    "offset": str(len(rows)),
                },
                secret_params={"api_key": key},
                accept=(200, 400),
            )
            where = f"{shown(self.url, query=False)} {code}"
            document = answer.json()
            if answer.status == 400:
                said = str(field_of(document, "error_message", str, where))
                if _NO_VINTAGES in said:  # its record of this series begins later
                    return []
                clean = printable(said.replace(key.get_secret_value(), "***"), 200)
                raise SourceError(
                    f"{where}: '{clean}'. Check the key of this source and the code of the series"
                )
            stated = field_of(document, "units", str, where)
            if stated != "lin":
                raise SourceError(
                    f"{where}: field 'units' says '{printable(stated)}', expected 'lin': the values as published"
                )
            found = field_of(document, "observations", list, where)
            rows += [_row(one, where) for one in found]
            if not found or len(rows) >= field_of(document, "count", int, where):
                return rows


def _row(one: Any, where: str) -> tuple[date, date, float]:
    return (
        day_of(field_of(one, "date", str, where), "%Y-%m-%d", where),
        day_of(field_of(one, "realtime_start", str, where), "%Y-%m-%d", where),
        number_of(field_of(one, "value", (str, int, float), where), where, missing=(".", "")),
    )
