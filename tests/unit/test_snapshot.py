"""The snapshot of a run's data: the same bundle comes back, or none at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from forex_core.data.bundle import load_bundle
from forex_core.data.providers.ecb import EcbProvider
from forex_core.data.snapshot import inspect_snapshot, read_snapshot, write_snapshot
from forex_core.errors import SourceError
from forex_core.testing import bundle_of, synthetic_table
from forex_core.types import MarketBundle, Pair

ARRAYS = ("spot", "truth", "truth_known", "drivers")


def with_faults() -> MarketBundle:
    table = synthetic_table(300, seed=8)
    table.loc[[40, 41, 200], "USDCLP"] = np.nan
    table.loc[150:, "USDCLP"] *= 1.5
    table.loc[:30, "VIX"] = np.nan
    return bundle_of(table)


BUNDLES: dict[str, Callable[[], MarketBundle]] = {
    "with faults": with_faults,
    "without drivers": lambda: bundle_of(synthetic_table(200, drivers=())),
    "of one row": lambda: bundle_of(synthetic_table(1)),
    "cut in the past": lambda: with_faults().until(with_faults().instants[149]),
    "of the central bank": lambda: load_bundle(EcbProvider(), Pair("USD", "MXN")),
    "with odd zeros": lambda: replace(with_faults(), drivers=with_faults().drivers * -0.0),
}


def altered(path: Path, change: Callable[[dict[str, np.ndarray], dict[str, object]], None]) -> Path:
    """The file with its columns or its description changed, everything else as it was."""
    table = pq.read_table(path)
    columns = {name: table[name].to_numpy().copy() for name in table.column_names}
    meta = json.loads(table.schema.metadata[b"forex_bundle"])
    change(columns, meta)
    made = pa.table(columns).replace_schema_metadata({b"forex_bundle": json.dumps(meta).encode()})
    pq.write_table(made, path)
    return path


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "data.parquet"
    write_snapshot(with_faults(), path)
    return path


@pytest.mark.parametrize("make", BUNDLES.values(), ids=BUNDLES.keys())
def test_comes_back_bit_for_bit(tmp_path: Path, make: Callable[[], MarketBundle]) -> None:
    bundle = make()
    write_snapshot(bundle, tmp_path / "data.parquet")
    back = read_snapshot(tmp_path / "data.parquet")
    assert back.fingerprint == bundle.fingerprint
    for name in ARRAYS:
        one, other = getattr(bundle, name), getattr(back, name)
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert np.ascontiguousarray(one).tobytes() == np.ascontiguousarray(other).tobytes(), name
    for name in ("dates", "instants"):
        assert getattr(back, name).dtype == getattr(bundle, name).dtype
        np.testing.assert_array_equal(getattr(back, name).asi8, getattr(bundle, name).asi8)
    for name in ("pair", "rate", "driver_names", "driver_units", "as_of"):
        assert getattr(back, name) == getattr(bundle, name)


def test_of_a_snapshot_is_the_same_again(tmp_path: Path, written: Path) -> None:
    again = tmp_path / "again.parquet"
    write_snapshot(read_snapshot(written), again)
    assert again.read_bytes() == written.read_bytes()


def test_unaltered_it_is_read(written: Path) -> None:
    """The tests below change one thing; changing none is accepted."""
    assert read_snapshot(altered(written, lambda columns, meta: None)).pair == Pair("USD", "CLP")


@pytest.mark.parametrize("column", ["spot", "truth", "driver.Copper", "driver.VIX"])
def test_one_value_altered_by_its_last_bit_is_refused(written: Path, column: str) -> None:
    def change(columns: dict[str, np.ndarray], meta: dict[str, object]) -> None:
        columns[column][100] = np.nextafter(columns[column][100], np.inf)

    with pytest.raises(SourceError, match="altered") as caught:
        read_snapshot(altered(written, change))
    assert str(written) in str(caught.value)


@pytest.mark.parametrize("column", ["date", "instant", "truth_known"])
def test_one_date_or_release_altered_is_refused(written: Path, column: str) -> None:
    def change(columns: dict[str, np.ndarray], meta: dict[str, object]) -> None:
        columns[column][100] = columns[column][101]

    with pytest.raises(SourceError, match="altered"):
        read_snapshot(altered(written, change))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pair", "USDMXN"),
        ("as_of", "2020-01-01T00:00:00+00:00"),
        ("units", ["percent per year", "index points", "percent"]),
        ("fingerprint", "0" * 64),
    ],
)
def test_an_altered_description_is_refused(written: Path, key: str, value: object) -> None:
    def change(columns: dict[str, np.ndarray], meta: dict[str, object]) -> None:
        assert meta[key] != value
        meta[key] = value

    with pytest.raises(SourceError, match="altered"):
        read_snapshot(altered(written, change))


def test_altered_content_can_be_looked_at_with_what_is_wrong_with_it(written: Path) -> None:
    def another_value(columns: dict[str, np.ndarray], meta: dict[str, object]) -> None:
        columns["spot"][100] *= 2

    def known_later(columns: dict[str, np.ndarray], meta: dict[str, object]) -> None:
        columns["truth_known"][100] += 1

    original = written.read_bytes()
    bundle, fault = inspect_snapshot(written)
    assert fault is None
    assert bundle.fingerprint == with_faults().fingerprint
    found, fault = inspect_snapshot(altered(written, another_value))
    assert fault is not None
    assert bundle.fingerprint[:12] in fault
    assert found.fingerprint[:12] in fault
    assert found.spot[100] == 2 * bundle.spot[100]
    written.write_bytes(original)
    found, fault = inspect_snapshot(altered(written, known_later))
    assert fault == "does not match its record of when each row was known"
    assert found.fingerprint == bundle.fingerprint


def test_a_column_of_another_kind_is_refused_by_name(written: Path) -> None:
    def text(columns: dict[str, np.ndarray], meta: dict[str, object]) -> None:
        columns["spot"] = np.array([str(v) for v in columns["spot"]])

    with pytest.raises(SourceError, match="not a data snapshot of a run"):
        inspect_snapshot(altered(written, text))


def test_a_row_or_a_column_less_is_refused(written: Path) -> None:
    def fewer_rows(columns: dict[str, np.ndarray], meta: dict[str, object]) -> None:
        for name in columns:
            columns[name] = columns[name][:-1]

    def no_spot(columns: dict[str, np.ndarray], meta: dict[str, object]) -> None:
        del columns["spot"]

    with pytest.raises(SourceError, match="altered"):
        read_snapshot(altered(written, fewer_rows))
    with pytest.raises(SourceError, match="not a data snapshot"):
        read_snapshot(altered(written, no_spot))


def _foreign_parquet(path: Path) -> None:
    pd.DataFrame({"spot": [1.0, 2.0]}).to_parquet(path)


def _description_of_another_kind(path: Path) -> None:
    table = pa.table({"spot": [1.0]}).replace_schema_metadata({b"forex_bundle": b'{"pair": 3'})
    pq.write_table(table, path)


FOREIGN: dict[str, Callable[[Path], object]] = {
    "another Parquet file": _foreign_parquet,
    "a broken description": _description_of_another_kind,
    "text": lambda path: path.write_text("Date,USDCLP\n2020-01-01,700\n"),
    "an empty file": lambda path: path.write_bytes(b""),
    "no file": lambda path: None,
}


@pytest.mark.parametrize("make", FOREIGN.values(), ids=FOREIGN.keys())
def test_a_foreign_file_is_refused_by_name(tmp_path: Path, make: Callable[[Path], object]) -> None:
    path = tmp_path / "other.parquet"
    make(path)
    with pytest.raises(SourceError, match="not a data snapshot of a run") as caught:
        read_snapshot(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_cut_short_is_refused(written: Path) -> None:
    content = written.read_bytes()
    for length in (4, len(content) // 2, len(content) - 1):
        written.write_bytes(content[:length])
        with pytest.raises(SourceError, match="not a data snapshot"):
            read_snapshot(written)
