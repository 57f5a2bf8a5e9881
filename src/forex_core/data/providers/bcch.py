"""Series of the Banco Central de Chile, from its statistical web service, with a user and a password.

The client bcchapi 1.3.0 is not used: `requests.get(url, params)` without a timeout, a retry or a session, at a fixed
address, with the password in the address of its errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from pydantic import SecretStr

from forex_core.data.catalogue import BCCH
from forex_core.data.http import HttpClient
from forex_core.data.observations import Observations
from forex_core.data.providers.labelling import code_of, day_of, field_of, label, number_of
from forex_core.data.wire import shown
from forex_core.errors import SourceError
from forex_core.strangers import printable

URL = "https://si3.bcentral.cl/SieteRestWS/SieteRestWS.ashx"


@dataclass(frozen=True)
class BcchFetcher:
    """Dólar observado, policy rate, UF and monthly inflation."""

    client: HttpClient
    user: SecretStr
    password: SecretStr
    url: str = URL

    @property
    def name(self) -> str:
        return BCCH

    @property
    def _keys(self) -> Mapping[str, SecretStr]:
        return {"user": self.user, "pass": self.password}

    def fetch(self, series: str, start: date, end: date) -> Observations:
        """See `Fetcher.fetch`. One request; days without a value (`ND`, weekends among them) are no rows."""
        _, code = code_of(self.name, series)
        answer = self.client.get(
            self.url,
            {
                "function": "GetSeries",
                "timeseries": code,
                "firstdate": start.isoformat(),
                "lastdate": end.isoformat(),
            },
            secret_params=self._keys,
        )
        where = f"{shown(self.url, query=False)} {code}"
        document = answer.json()
        outcome = field_of(document, "Codigo", int, where)
        if outcome != 0:
            said = str(document.get("Descripcion", ""))
            for secret in self._keys.values():
                said = said.replace(secret.get_secret_value() or "\0", "***")
            raise SourceError(
                f"{where}: Codigo {outcome}, '{printable(said)}', expected 0. Check the user and the password of this "
                "source, and the code of the series"
            )
        found = field_of(document, "Series", dict, where)
        stated = field_of(found, "seriesId", str, where)
        if stated != code:
            raise SourceError(
                f"{where}: field 'seriesId' says '{printable(stated, 60)}', expected '{code}'. Another series"
            )
        days: list[date] = []
        values: list[float] = []
        for row in field_of(found, "Obs", list, where):
            if field_of(row, "statusCode", str, where) == "ND":
                continue
            days.append(day_of(field_of(row, "indexDateString", str, where), "%d-%m-%Y", where))
            values.append(
                number_of(field_of(row, "value", (str, int, float), where), where, missing=("NaN", ""))
            )
        return label(self.name, series, days, values, start, end, now=self.client.now(), where=where)
