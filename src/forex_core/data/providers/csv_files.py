"""Market data from CSV files: the first column a date, one column named like the pair, the rest drivers."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from forex_core.data.series import DEFINITIONS, DERIVED, Definition, MarketData, Series, definition_of
from forex_core.errors import DataQualityError, SourceError, SourceUnavailable
from forex_core.types import Array, Pair, RateKind, Source

HOLES = frozenset({"", "na", "n/a", "nan", "null", "none", "-", ".", "#n/a"})
"""Cell texts, in lower case, that mean: no value."""

_YEARS = (1900, 2200)


_FORMATTED_NUMBER = r"[-+$€]?[\d.,'\s]*\d[\d.,'\s]*%?"


@dataclass(frozen=True)
class CsvProvider:
    """Reads one or more CSV files and joins them on their dates.

    Attributes:
        paths: the files.
        columns: optional mapping of a column's name in a file, in any case, to the series it is, or to the pair.
    """

    paths: Sequence[Path]
    columns: Mapping[str, str] = field(default_factory=dict)
    name: str = "csv"
    rate: RateKind = "close"

    def spot_definition(self, pair: Pair) -> Definition:
        return definition_of(str(pair))

    def load(self, pair: Pair, instant: pd.Timestamp | None = None) -> MarketData:
        if not self.paths:
            raise SourceError(
                "no file was given for source csv; name at least one with --path FILE, or in FOREX_PATHS"
            )
        read, sources, ignored = read_files(self.paths, pair, self.columns)
        spot = read.pop(str(pair), None)
        if spot is None:
            raise no_column(pair, self.paths, read)
        return MarketData(spot, tuple(read.values()), sources, ignored)


def read_files(
    paths: Sequence[Path], pair: Pair, columns: Mapping[str, str]
) -> tuple[dict[str, Series], tuple[Source, ...], tuple[str, ...]]:
    """The series of files by name, that of the pair under its own; their sources; columns of text, which are not read.

    Raises:
        SourceError, SourceUnavailable, DataQualityError: as `Provider.load`.
    """
    read: dict[str, Series] = {}
    sources = []
    ignored: list[str] = []
    for path in map(Path, paths):
        held, text_columns = _read(path, pair, columns)
        ignored += text_columns
        already = {name.lower() for name in read}
        twice = [s.name for s in held if s.name.lower() in already]
        if twice:
            raise SourceError(
                f"column {twice[0]!r} of {path} was already read from another file; "
                "expected each series once: remove it from one of them"
            )
        read |= {s.name: s for s in held}
        sources.append(_source(path, held))
    kept = {name: series for name, series in read.items() if name.lower() not in DERIVED}
    return kept, tuple(sources), tuple(ignored)


def no_column(pair: Pair, paths: Sequence[Path], read: Mapping[str, Series]) -> SourceError:
    return SourceError(
        f"no column for {pair} in {', '.join(str(p) for p in paths)}; found "
        f"{', '.join(sorted(read)) or 'no numeric column'}. Name the column {pair}, or give the pair "
        f'that the file holds with --pair, or map a column: FOREX_COLUMNS=\'{{"Close": "{pair}"}}\''
    )


def _source(path: Path, held: Sequence[Series]) -> Source:
    rules = [s.definition.release.rule for s in held if s.name.lower() not in DERIVED]
    days = held[0].dates if held else pd.DatetimeIndex([pd.NaT])
    return Source(
        name=f"csv: {path.name}",
        series=tuple(s.name for s in held),
        fetched_at=pd.Timestamp.now(tz="UTC").floor("s"),
        first_date=days.min().date(),
        last_date=days.max().date(),
        rows=len(days),
        licence="as stated by whoever supplied the file",
        release="; ".join(dict.fromkeys(rules)),
    )


def _read(path: Path, pair: Pair, columns: Mapping[str, str]) -> tuple[list[Series], list[str]]:
    """Every numeric column of one file, the pair's under the pair's own name; and the names of the others."""
    table = read_table(path)
    days = read_dates(path, table.iloc[:, 0])
    renamed = {name.lower(): series for name, series in columns.items()}
    series: list[Series] = []
    ignored: list[str] = []
    for position, column in enumerate(table.columns[1:], start=1):
        name = renamed.get(column.lower(), column).strip()
        if name.upper().replace("/", "") == str(pair):
            name = str(pair)
        elif name.lower() in DEFINITIONS:  # one name for a series, from whatever source it comes
            name = name.lower()
        values = read_numbers(path, column, table.iloc[:, position], required=name == str(pair))
        if values is None:
            ignored.append(name)
            continue
        if name.lower() in {s.name.lower() for s in series}:
            raise SourceError(
                f"{path} has two columns for the series {name!r}; expected each series once: remove one of them"
            )
        series.append(Series(name, days, values, definition_of(name)))
    if not series:
        raise SourceError(f"{path} has no numeric column besides its date; expected one named {pair}")
    return series, ignored


def read_table(path: Path) -> pd.DataFrame:
    """A CSV file as text, cell by cell; the index holds the line of the file on which each row starts.

    Raises:
        SourceError, SourceUnavailable: it cannot be read, or is no table of one header and rows of its length.
    """
    rows, lines, after = [], [], 1
    try:
        content = path.read_bytes()
        _refuse_other_formats(path, content)
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append(cells)
                lines.append(after)
            after = reader.line_num + 1
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SourceError(
            f"no such file: {path}; expected a CSV file with a column of dates and one of numbers"
        ) from error
    except IsADirectoryError as error:
        raise SourceError(
            f"{path} is a directory; expected a CSV file (files are named one by one)"
        ) from error
    except UnicodeDecodeError as error:
        raise SourceError(
            f"{path} is not UTF-8 text (byte {error.start}); expected a CSV file in UTF-8: convert it first"
        ) from error
    except csv.Error as error:
        raise SourceError(
            f"{path}, line {after}: not a CSV table ({error}); expected cells between commas, quotes closed"
        ) from error
    except PermissionError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}; check its permissions") from error
    except OSError as error:
        raise SourceUnavailable(f"{path} could not be read ({error.strerror}); check the disk") from error
    if not rows:
        raise SourceError(f"{path} is empty; expected a header line and one row per day")
    if len(rows) == 1:
        raise SourceError(f"{path} has a header and no rows; expected one row per day")
    for cells, line in zip(rows[1:], lines[1:], strict=True):
        if len(cells) != len(rows[0]):
            raise SourceError(
                f"{path}, line {line}: found {len(cells)} cells where the header has {len(rows[0])}; "
                "expected the same columns on each line"
            )
    names = [" ".join(name.split()) or f"column {k}" for k, name in enumerate(rows[0], start=1)]
    return pd.DataFrame(rows[1:], columns=names, index=lines[1:], dtype=str)


def read_dates(path: Path, cells: pd.Series) -> pd.DatetimeIndex:
    """The day of each row as it is written: an hour and an offset behind it move it to no other day.

    Args:
        path: of the file, for errors.
        cells: a column of `read_table`.

    Raises:
        SourceError, DataQualityError: none of the cells is a date, or some are not.
    """
    text = cells.str.strip()
    instants = pd.to_datetime(text, format="ISO8601", errors="coerce", utc=True)
    written = text.str.extract(r"^(\d{4}-?\d{2}-?\d{2})(?:[T ].*)?$", expand=False).where(instants.notna())
    days = pd.to_datetime(written, format="ISO8601", errors="coerce")
    bad = np.flatnonzero(~days.dt.year.between(*_YEARS).to_numpy())
    if len(bad) == len(cells):
        raise SourceError(
            f"{path} has no date column: its column {cells.name!r} starts with {_shown(text.iloc[0])}; expected "
            "dates such as 2024-06-28"
        )
    if len(bad):
        raise DataQualityError(
            f"{path}, line {cells.index[bad[0]]}: {_shown(text.iloc[bad[0]])} is not a date from 1900 to "
            "2200; expected one such as 2024-06-28"
        )
    return pd.DatetimeIndex(days)


def read_numbers(path: Path, column: str, cells: pd.Series, *, required: bool) -> Array | None:
    """The column as numbers, NaN for holes; None for a column of text that is not required.

    Raises:
        DataQualityError: a cell is no number, or a required column has none.
    """
    text = cells.str.strip()
    hole = text.str.lower().isin(HOLES).to_numpy()
    values = pd.to_numeric(text, errors="coerce").to_numpy(dtype=np.float64, copy=True)
    bad = np.flatnonzero(~hole & ~np.isfinite(values))
    wrong = text.iloc[bad]
    formatted = wrong.str.fullmatch(_FORMATTED_NUMBER)
    if len(bad) and len(bad) == int((~hole).sum()) and not required and formatted.mean() < 0.5:
        return None
    if len(bad):
        cure = (
            "write numbers with a decimal point and without thousands separators or signs, such as 1234.56"
            if formatted.iloc[0]
            else "correct the cell, or leave it empty if there was no value that day"
        )
        raise DataQualityError(
            f"{path}, line {cells.index[bad[0]]}, column {column!r}: found {_shown(wrong.iloc[0])} where a "
            f"number was expected; {cure}"
        )
    if required and hole.all():
        raise DataQualityError(
            f"{path}, column {column!r}: found no value in {len(hole)} rows; expected at least one"
        )
    values[hole] = np.nan
    return values


def _refuse_other_formats(path: Path, content: bytes) -> None:
    """Say it where a file is of another kind that people export by mistake."""
    if content.startswith(b"PK\x03\x04"):
        raise SourceError(
            f"{path} is an Excel workbook; save the sheet as CSV UTF-8 (comma delimited) and give that"
        )
    header = content.partition(b"\n")[0]
    for separator, called in ((b";", "semicolons"), (b"\t", "tabs")):
        if separator in header and b"," not in header:
            raise SourceError(
                f"the columns of {path} are separated by {called}; expected commas between columns and a point as "
                "decimal sign: save it as CSV UTF-8 (comma delimited)"
            )


def _shown(cell: str) -> str:
    """A cell on one line, quoted and not too long for a message."""
    return repr(cell if len(cell) <= 40 else cell[:40] + "…")
