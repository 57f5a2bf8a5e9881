"""The European Central Bank's euro reference rates from its own server: the file of all days, in the form of the copy
that `ecb` reads.

The two are never mixed. Crosses and drivers are computed by the same functions.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass
from datetime import date

import numpy as np

from forex_core.data.catalogue import ECB
from forex_core.data.http import HttpClient
from forex_core.data.observations import Observations
from forex_core.data.providers.ecb import COMMODITY_CURRENCIES, DOLLAR_INDEX_WEIGHTS, factors, panel_of
from forex_core.data.providers.labelling import code_of, label
from forex_core.errors import SourceError
from forex_core.strangers import printable
from forex_core.types import Pair

URL = "https://www.ecb.europa.eu/stats/eurofxref/eurofxref-hist.zip"

# What zipfile and the reader of tables raise of archives and tables that are damaged.
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
    IndexError,
    OverflowError,
    RuntimeError,
)
_LARGEST_BYTES = 64 * 2**20
"""Of the table inside the archive; it has about 2 MB."""


@dataclass(frozen=True)
class EcbFetcher:
    """Reference rates of any pair that the bank quotes, and its two drivers."""

    client: HttpClient
    url: str = URL

    @property
    def name(self) -> str:
        return ECB

    def fetch(self, series: str, start: date, end: date) -> Observations:
        """See `Fetcher.fetch`. One file holds all series and days; the client's cache saves fetching it twice."""
        _, code = code_of(self.name, series)
        pair = Pair(series[:3].upper(), series[3:6].upper())
        answer = self.client.get(self.url, expect="zip")
        where = answer.url
        try:
            with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
                if archive.infolist()[0].file_size > _LARGEST_BYTES:
                    raise SourceError(f"{where}: a table of more than 64 MB, expected about 2 MB")
                days, rates = panel_of(archive)
        except _UNREADABLE as error:
            raise SourceError(
                f"{where}: not the table of reference rates ({printable(error)}). The service has changed its answer"
            ) from error
        if days.tz is not None or (days != days.normalize()).any():
            raise SourceError(f"{where}: dates with a time of day, such as {days[0]}; expected days alone")
        drivers = () if code == "reference" else (*DOLLAR_INDEX_WEIGHTS, *COMMODITY_CURRENCIES)
        missing = sorted({pair.base, pair.quote, *drivers} - rates.keys())
        if missing:
            raise SourceError(
                f"{where}: found no {' and no '.join(missing)}, expected all currencies of {series}. The bank does not "
                "quote them"
            )
        with np.errstate(divide="ignore", invalid="ignore"):  # what a rate of zero does is left out below
            values = rates[pair.quote] / rates[pair.base]
            if code != "reference":
                values = next(found for name, _, _, found in factors(rates, pair) if name == code)
        quoted = ~np.isnan(values)
        return label(
            self.name,
            series,
            list(days[quoted].date),
            values[quoted],
            start,
            end,
            now=self.client.now(),
            where=where,
        )
