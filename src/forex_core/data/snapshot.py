"""The data behind a run as one Parquet file, from which the bundle comes back bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from forex_core.errors import SourceError
from forex_core.types import MarketBundle, Pair

_META = b"forex_bundle"


def write_snapshot(bundle: MarketBundle, path: Path) -> None:
    """Rows, values and release rows of a bundle; its sources and repairs are in the report, not here."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "date": bundle.dates.to_numpy(),
        "instant": bundle.instants.asi8,
        "spot": bundle.spot,
        "truth": bundle.truth,
        "truth_known": bundle.truth_known,
        **{f"driver.{name}": bundle.drivers[:, k] for k, name in enumerate(bundle.driver_names)},
    }
    meta = {
        "pair": str(bundle.pair),
        "rate": bundle.rate,
        "units": list(bundle.driver_units),
        "as_of": bundle.as_of.isoformat(),
        "date_unit": bundle.dates.unit,
        "instant_unit": bundle.instants.unit,
        "fingerprint": bundle.fingerprint,
        "known_when": bundle.known_when,
    }
    table = pa.table(columns)
    table = table.replace_schema_metadata({_META: json.dumps(meta).encode()})
    pq.write_table(table, path, compression="zstd")


def read_snapshot(path: Path) -> MarketBundle:
    """The bundle that `write_snapshot` wrote.

    Raises:
        SourceError: when the file is none of ours or its content does not match its fingerprint.
    """
    bundle, fault = inspect_snapshot(path)
    if fault:
        raise SourceError(f"the content of {path} {fault}; it was altered")
    return bundle


def inspect_snapshot(path: Path) -> tuple[MarketBundle, str | None]:
    """The rows of a snapshot as they are, altered or not, and in what they are not those that were written, or None.

    Raises:
        SourceError: when the file is none of ours.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        meta = json.loads((table.schema.metadata or {})[_META])
        drivers = [name for name in table.column_names if name.startswith("driver.")]
        bundle = MarketBundle(
            pair=Pair.parse(meta["pair"]),
            dates=pd.DatetimeIndex(table["date"].to_numpy()).as_unit(meta["date_unit"]),
            instants=pd.DatetimeIndex(
                table["instant"].to_numpy().view(f"datetime64[{meta['instant_unit']}]"), tz="UTC"
            ),
            spot=table["spot"].to_numpy(),
            truth=table["truth"].to_numpy(),
            truth_known=table["truth_known"].to_numpy(),
            drivers=np.column_stack([table[name].to_numpy() for name in drivers])
            if drivers
            else np.empty((table.num_rows, 0)),
            driver_names=tuple(name.removeprefix("driver.") for name in drivers),
            driver_units=tuple(meta["units"]),
            as_of=pd.Timestamp(meta["as_of"]),
            rate=meta.get("rate", "close"),
        )
        written = str(meta["fingerprint"]), str(meta["known_when"])
        found = bundle.fingerprint, bundle.known_when
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise SourceError(
            f"{path} is not a data snapshot of a run ({reason}); expected the Parquet file that a run wrote"
        ) from error
    if found[0] != written[0]:
        return bundle, f"does not match its fingerprint {written[0][:12]}, it makes {found[0][:12]}"
    if found[1] != written[1]:
        return bundle, "does not match its record of when each row was known"
    return bundle, None
