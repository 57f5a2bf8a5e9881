"""One suite over every provider, then what each must say of bad input and of its own source."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from currency_converter import CurrencyConverter

from forex_core.data.bundle import load_bundle
from forex_core.data.providers import Provider, provider
from forex_core.data.providers.csv_files import CsvProvider
from forex_core.data.providers.ecb import DOLLAR_INDEX_WEIGHTS, EcbProvider, currencies
from forex_core.data.series import MarketData, Series
from forex_core.errors import ConfigError, DataQualityError, ForexError, SourceError
from forex_core.testing import TableProvider, synthetic_table, write_csv
from forex_core.types import Pair

USDCLP, USDMXN = Pair("USD", "CLP"), Pair("USD", "MXN")


def csv_of(folder: Path, content: str | bytes, name: str = "market.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(folder: Path, content: str | bytes, **columns: str) -> MarketData:
    return CsvProvider((csv_of(folder, content),), columns).load(USDCLP)


def days_of(series: Series) -> list[str]:
    return list(series.dates.strftime("%Y-%m-%d"))


# Every provider: (how it is made, a pair it holds, a pair it does not).
Made = tuple[Callable[[Path], Provider], Pair, Pair]
PROVIDERS: dict[str, Made] = {
    "ecb": (lambda _: EcbProvider(), USDMXN, USDCLP),
    "csv": (lambda folder: write_csv(synthetic_table(80), folder / "market.csv"), USDCLP, USDMXN),
    "table": (lambda _: TableProvider(synthetic_table(80)), USDCLP, USDMXN),
}


@pytest.mark.parametrize("made", PROVIDERS.values(), ids=PROVIDERS.keys())
class TestEveryProvider:
    def test_names_what_it_gives(self, tmp_path: Path, made: Made) -> None:
        make, pair, _ = made
        source = make(tmp_path)
        data = source.load(pair)
        assert source.name
        assert data.spot.name == str(pair)
        series = (data.spot, *data.drivers)
        names = [s.name for s in series]
        assert len(names) == len(set(names))
        assert set(names) <= {name for s in data.sources for name in s.series}
        for s in series:
            assert len(s.dates) == len(s.values) > 0
            assert s.values.dtype == np.float64
            assert s.dates.tz is None
            assert (s.dates == s.dates.normalize()).all()
            assert not np.isinf(s.values).any()
            assert s.definition.unit
            assert s.definition.release.rule
            assert (s.definition.release.instants(s.dates) > s.dates.tz_localize("UTC")).all()

    def test_says_how_far_it_reaches_and_under_which_licence(self, tmp_path: Path, made: Made) -> None:
        make, pair, _ = made
        for source in make(tmp_path).load(pair).sources:
            assert source.first_date < source.last_date
            assert source.rows > 0
            assert source.licence
            assert source.release
            assert source.fetched_at.tzinfo is not None

    def test_gives_the_same_again(self, tmp_path: Path, made: Made) -> None:
        make, pair, _ = made
        source = make(tmp_path)
        first, second = source.load(pair), source.load(pair)
        for a, b in zip((first.spot, *first.drivers), (second.spot, *second.drivers), strict=True):
            assert a.name == b.name
            np.testing.assert_array_equal(a.values, b.values)

    def test_makes_a_bundle(self, tmp_path: Path, made: Made) -> None:
        make, pair, _ = made
        bundle = load_bundle(make(tmp_path), pair)
        assert (bundle.spot > 0).all()
        assert len(bundle.driver_names) >= 2


@pytest.mark.parametrize("name", ["ecb", "csv"])
def test_a_pair_that_is_not_held_is_refused_with_what_is(tmp_path: Path, name: str) -> None:
    make, pair, other = PROVIDERS[name]
    with pytest.raises(SourceError) as caught:
        make(tmp_path).load(other)
    message = str(caught.value)
    assert str(other) in message
    assert (str(pair) if name == "csv" else pair.quote) in message.partition("found ")[2]


class TestByName:
    def test_is_found(self, tmp_path: Path) -> None:
        assert provider("ecb").name == "ecb"
        assert provider("csv", [tmp_path / "a.csv"], {"Close": "USDCLP"}).name == "csv"

    @pytest.mark.parametrize(
        ("source", "paths", "told"),
        [("yahoo", [], "expected ecb or csv"), ("ecb", [Path("a.csv")], "a.csv"), ("", [], "unknown source")],
    )
    def test_is_refused(self, source: str, paths: list[Path], told: str) -> None:
        with pytest.raises(ConfigError, match=told):
            provider(source, paths)


HEAD = "Date,USDCLP,Copper\n"

# What the file holds: (content, error, words that the message must hold beside the file's name).
BAD_FILES: dict[str, tuple[str | bytes, type[ForexError], tuple[str, ...]]] = {
    "empty": ("", SourceError, ("is empty",)),
    "blank lines only": ("\n\n  \n", SourceError, ("is empty",)),
    "a byte-order mark only": (b"\xef\xbb\xbf", SourceError, ("is empty",)),
    "header only": (HEAD, SourceError, ("header and no rows",)),
    "no date column": (
        "USDCLP,Copper\n700.5,2.5\n701.5,2.6\n",
        SourceError,
        ("no date column", "'USDCLP'", "'700.5'"),
    ),
    "row numbers first": ("n,USDCLP\n2020,700\n2021,701\n", SourceError, ("no date column", "'2020'")),
    "semicolons": ("Date;USDCLP\n2020-01-01;700\n", SourceError, ("separated by semicolons",)),
    "a bad date": (
        HEAD + "2020-01-01,700,2\n2020-01-02,701,2\n02/01/2020,702,2\n",
        DataQualityError,
        ("line 4", "'02/01/2020'"),
    ),
    "a day that is none": (
        HEAD + "2020-02-29,700,2\n2021-02-29,7,2\n",
        DataQualityError,
        ("line 3", "'2021-02-29'"),
    ),
    "a hole for a date": (HEAD + "2020-02-28,700,2\n,7,2\n", DataQualityError, ("line 3", "''")),
    "a date beyond reason": (
        HEAD + "2020-01-01,700,2\n9999-12-31,701,2\n",
        DataQualityError,
        ("line 3", "'9999-12-31'"),
    ),
    "a date before reason": (HEAD + "0001-01-01,700,2\n2020-01-01,701,2\n", DataQualityError, ("line 2",)),
    "text among prices": (
        HEAD + "2020-01-01,700,2\n2020-01-02,closed,2\n",
        DataQualityError,
        ("line 3", "'USDCLP'", "'closed'"),
    ),
    "text among prices after blank lines": (
        HEAD + "\n2020-01-01,700,2\n\n\n2020-01-02,closed,2\n",
        DataQualityError,
        ("line 6", "'closed'"),
    ),
    "text among prices after a cell of two lines": (
        'Date,USDCLP,Note\n2020-01-01,700,"a\nb"\n2020-01-02,closed,\n',
        DataQualityError,
        ("line 4", "'closed'"),
    ),
    "text among a driver's values": (
        HEAD + "2020-01-01,700,2\n2020-01-02,701,up\n",
        DataQualityError,
        ("line 3", "'Copper'", "'up'"),
    ),
    "all text for the pair": (HEAD + "2020-01-01,x,2\n2020-01-02,y,2\n", DataQualityError, ("line 2", "'x'")),
    "a cell of two lines": (HEAD + '2020-01-01,"70\n0",2\n', DataQualityError, ("line 2", r"'70\n0'")),
    "a very long cell": (HEAD + f"2020-01-01,{'z' * 5000},2\n", DataQualityError, ("line 2", "zzz…")),
    "a thousands separator": (HEAD + '2020-01-01,"1,700",2\n', DataQualityError, ("line 2", "'1,700'")),
    "a hexadecimal number": (HEAD + "2020-01-01,0x10,2\n", DataQualityError, ("line 2", "'0x10'")),
    "infinity": (HEAD + "2020-01-01,700,2\n2020-01-02,inf,2\n", DataQualityError, ("line 3", "'inf'")),
    "minus infinity for a driver": (
        HEAD + "2020-01-01,700,2\n2020-01-02,701,-Infinity\n",
        DataQualityError,
        ("line 3", "'-Infinity'"),
    ),
    "a number too large": (HEAD + "2020-01-01,700,2\n2020-01-02,1e999,2\n", DataQualityError, ("line 3",)),
    "no price at all": (
        HEAD + "2020-01-01,,2\n2020-01-02,n/a,2\n",
        DataQualityError,
        ("'USDCLP'", "no value"),
    ),
    "a row too long": (
        HEAD + "2020-01-01,700,2\n2020-01-02,701,2,9\n",
        SourceError,
        ("line 3", "4 cells", "3"),
    ),
    "the first row too long": (HEAD + "2020-01-01,700,2,9\n2020-01-02,701,2\n", SourceError, ("line 2",)),
    "every row too long": (HEAD + "2020-01-01,700,2,\n2020-01-02,701,2,\n", SourceError, ("line 2",)),
    "a row cut short": (HEAD + "2020-01-01,700,2\n2020-01-02,7", SourceError, ("line 3", "2 cells", "3")),
    "a quote left open": (HEAD + '2020-01-01,700,2\n2020-01-02,"701,2\n', SourceError, ("line 3",)),
    "Latin-1": (
        "Date,USDCLP,Año\n2020-01-01,700,2\n".encode("latin-1"),
        SourceError,
        ("not UTF-8", "byte 13"),
    ),
    "UTF-16": ((HEAD + "2020-01-01,700,2\n").encode("utf-16"), SourceError, ("not UTF-8",)),
    "no numeric column": ("Date,Note\n2020-01-01,quiet\n", SourceError, ("no numeric column", "USDCLP")),
    "a date alone": ("Date\n2020-01-01\n", SourceError, ("no numeric column",)),
    "no column for the pair": (
        "Date,USDMXN,Copper\n2020-01-01,20,2\n",
        SourceError,
        ("USDCLP", "USDMXN, copper", "--pair"),
    ),
    "the pair twice": ("Date,USDCLP,USDCLP\n2020-01-01,700,7\n", SourceError, ("two columns", "'USDCLP'")),
    "the pair in two spellings": ("Date,usdclp,USD/CLP\n2020-01-01,700,7\n", SourceError, ("two columns",)),
    "a driver twice": ("Date,USDCLP,Oil,oil\n2020-01-01,700,7,8\n", SourceError, ("two columns", "'oil'")),
}


class TestCsvRefuses:
    @pytest.mark.parametrize("bad", BAD_FILES.values(), ids=BAD_FILES.keys())
    def test_in_one_line_that_names_the_file(
        self, tmp_path: Path, bad: tuple[str | bytes, type[ForexError], tuple[str, ...]]
    ) -> None:
        content, error, told = bad
        path = csv_of(tmp_path, content)
        with pytest.raises(error) as caught:
            CsvProvider((path,)).load(USDCLP)
        message = str(caught.value)
        assert type(caught.value) is error
        assert str(path) in message
        assert "\n" not in message
        assert len(message) < len(str(path)) + 300
        assert all(word in message for word in told), message

    @pytest.mark.parametrize("name", ["missing.csv", "market.csv/inside.csv"])
    def test_a_missing_file(self, tmp_path: Path, name: str) -> None:
        csv_of(tmp_path, HEAD)
        with pytest.raises(SourceError, match="no such file") as caught:
            CsvProvider((tmp_path / name,)).load(USDCLP)
        assert str(tmp_path / name) in str(caught.value)

    def test_a_directory(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="is a directory") as caught:
            CsvProvider((tmp_path,)).load(USDCLP)
        assert str(tmp_path) in str(caught.value)

    def test_no_file(self) -> None:
        with pytest.raises(SourceError, match="--path"):
            CsvProvider(()).load(USDCLP)

    @pytest.mark.parametrize("heading", ["Copper", "COPPER", "USDCLP"])
    def test_the_same_series_in_two_files(self, tmp_path: Path, heading: str) -> None:
        one = csv_of(tmp_path, HEAD + "2020-01-01,700,2\n", "one.csv")
        two = csv_of(tmp_path, f"Date,{heading}\n2020-01-01,3\n", "two.csv")
        with pytest.raises(SourceError, match="already read from another file") as caught:
            CsvProvider((one, two)).load(USDCLP)
        assert str(two) in str(caught.value)
        assert f"'{heading}'".lower() in str(caught.value).lower()

    def test_the_second_file_by_its_own_name_and_line(self, tmp_path: Path) -> None:
        one = csv_of(tmp_path, HEAD + "2020-01-01,700,2\n", "one.csv")
        two = csv_of(tmp_path, "Date,Oil\n2020-01-01,50\n2020-01-02,?\n", "two.csv")
        with pytest.raises(DataQualityError) as caught:
            CsvProvider((one, two)).load(USDCLP)
        assert f"{two}, line 3, column 'Oil'" in str(caught.value)


class TestCsvReads:
    def test_a_byte_order_mark_windows_line_ends_and_spaces(self, tmp_path: Path) -> None:
        data = read(tmp_path, b"\xef\xbb\xbfDate, USDCLP \r\n 2020-01-01 , 700.5\r\n2020-01-02,701 \r\n\r\n")
        assert days_of(data.spot) == ["2020-01-01", "2020-01-02"]
        assert list(data.spot.values) == [700.5, 701.0]

    @pytest.mark.parametrize(
        "hole", ["", " ", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "-", ".", "#N/A"]
    )
    def test_holes_in_many_spellings(self, tmp_path: Path, hole: str) -> None:
        data = read(tmp_path, f"{HEAD}2020-01-01,700,{hole}\n2020-01-02,{hole},2\n2020-01-03,701,2.5\n")
        np.testing.assert_array_equal(data.spot.values, [700, np.nan, 701])
        np.testing.assert_array_equal(data.drivers[0].values, [np.nan, 2, 2.5])

    @pytest.mark.parametrize(
        "stamp",
        [
            "2020-07-01",
            "20200701",
            "2020-07-01T17:00:00",
            "2020-07-01 17:00",
            "2020-07-01T17:00:00Z",
            "2020-07-01 00:00:00+01:00",
            "2020-07-01T23:30:00-04:00",
            "2020-07-01T17:00:00.123456+00:00",
        ],
    )
    def test_the_day_as_it_is_written_whatever_the_hour_and_the_offset(
        self, tmp_path: Path, stamp: str
    ) -> None:
        assert days_of(read(tmp_path, f"Date,USDCLP\n{stamp},700\n").spot) == ["2020-07-01"]

    def test_offsets_that_change_with_the_season(self, tmp_path: Path) -> None:
        text = "Date,USDCLP\n2020-03-27 00:00:00+00:00,700\n2020-03-30 00:00:00+01:00,701\n2020-03-31,702\n"
        assert days_of(read(tmp_path, text).spot) == ["2020-03-27", "2020-03-30", "2020-03-31"]

    def test_several_files_joined_on_their_dates(self, tmp_path: Path) -> None:
        one = csv_of(tmp_path, "Date,USDCLP\n2020-01-06,700\n2020-01-07,701\n2020-01-08,702\n", "one.csv")
        two = csv_of(tmp_path, "day,Oil,VIX\n2020-01-07,50,12\n2020-01-08,51,13\n2020-01-09,52,\n", "two.csv")
        bundle = load_bundle(CsvProvider((one, two)), USDCLP)
        assert bundle.driver_names == ("oil", "vix")
        np.testing.assert_array_equal(bundle.spot, [700, 701, 702])
        np.testing.assert_array_equal(bundle.drivers, [[np.nan, np.nan], [50, 12], [51, 13]])
        assert [s.name for s in bundle.sources] == ["csv: one.csv", "csv: two.csv"]
        assert [s.rows for s in bundle.sources] == [3, 3]

    def test_dates_in_any_order_and_twice(self, tmp_path: Path) -> None:
        rows = ["2020-01-08,702", "2020-01-06,700", "2020-01-07,600", "2020-01-07,701"]
        path = csv_of(tmp_path, "Date,USDCLP\n" + "\n".join(rows) + "\n")
        source = CsvProvider((path,)).load(USDCLP).sources[0]
        assert (source.first_date, source.last_date) == (date(2020, 1, 6), date(2020, 1, 8))
        bundle = load_bundle(CsvProvider((path,)), USDCLP)
        np.testing.assert_array_equal(bundle.spot, [700, 701, 702])  # the later row of a day is used
        kinds = {r.kind: r for r in bundle.repairs}
        assert kinds["unordered"].count == 1
        assert kinds["duplicate"].day == date(2020, 1, 7)
        assert kinds["duplicate"].found == 600

    def test_columns_renamed_by_the_mapping(self, tmp_path: Path) -> None:
        text = "Date,Close,HG=F\n2020-01-01,700,2\n"
        data = read(tmp_path, text, **{"Close": "USDCLP", "HG=F": "Copper"})
        assert (data.spot.name, list(data.spot.values)) == ("USDCLP", [700])
        assert data.drivers[0].name == "copper", "one name for a series, however it is written"
        assert data.drivers[0].definition.unit == "USD per lb"

    def test_the_pair_in_other_spellings(self, tmp_path: Path) -> None:
        assert read(tmp_path, "Date,usd/clp\n2020-01-01,700\n").spot.name == "USDCLP"

    def test_columns_of_text_are_left_out(self, tmp_path: Path) -> None:
        text = "Date,Note,USDCLP,Who\n2020-01-01,quiet,700,\n2020-01-02,,701,ana\n"
        data = read(tmp_path, text)
        assert data.drivers == ()
        assert data.sources[0].series == ("USDCLP",)

    def test_the_differential_of_a_file_is_never_a_driver(self, tmp_path: Path) -> None:
        data = read(tmp_path, "Date,USDCLP,Rate_Differential\n2020-01-01,700,3\n")
        assert data.drivers == ()

    def test_negative_and_exponential_numbers(self, tmp_path: Path) -> None:
        data = read(tmp_path, "Date,USDCLP,Oil\n2020-04-20,8.5e2,-37.63\n")
        assert data.spot.values[0] == 850
        assert data.drivers[0].values[0] == -37.63


class TestEcb:
    @pytest.mark.parametrize(
        "day", [date(2008, 1, 2), date(2012, 2, 29), date(2016, 11, 9), date(2020, 3, 18), date(2024, 6, 28)]
    )
    @pytest.mark.parametrize("text", ["USDMXN", "EURUSD", "GBPJPY", "MXNEUR"])
    def test_holds_what_the_package_itself_converts(self, text: str, day: date) -> None:
        pair = Pair.parse(text)
        spot = EcbProvider().load(pair).spot
        found = spot.values[spot.dates.get_loc(pd.Timestamp(day))]
        assert found == pytest.approx(
            CurrencyConverter().convert(1, pair.base, pair.quote, date=day), rel=1e-12
        )

    def test_known_fixings(self) -> None:
        euro = EcbProvider().load(Pair("EUR", "USD")).spot
        assert euro.values[euro.dates.get_loc("2020-03-18")] == 1.0934
        assert euro.dates[0] == pd.Timestamp("1999-01-04")
        assert euro.values[0] == 1.1789

    def test_every_day_is_in_order_and_once(self) -> None:
        spot = EcbProvider().load(USDMXN).spot
        assert spot.dates.is_monotonic_increasing
        assert spot.dates.is_unique
        assert spot.dates.day_of_week.max() <= 4

    def test_the_inverse_pair_is_the_reciprocal(self) -> None:
        there, back = EcbProvider().load(USDMXN).spot, EcbProvider().load(Pair("MXN", "USD")).spot
        np.testing.assert_allclose(there.values * back.values, np.where(np.isnan(there.values), np.nan, 1.0))

    @pytest.mark.parametrize("text", ["USDCLP", "CLPEUR", "XAUXAG"])
    def test_what_it_does_not_hold_is_refused_with_what_it_does(self, text: str) -> None:
        with pytest.raises(SourceError, match="not among the ECB reference rates") as caught:
            EcbProvider().load(Pair.parse(text))
        message = str(caught.value)
        assert all(code in message for code in ("EUR", "MXN", "JPY", "--source csv"))
        assert "\n" not in message

    def test_two_currencies_that_never_met_are_refused(self) -> None:
        with pytest.raises(SourceError, match="never held CYP and MXN on the same day"):
            EcbProvider().load(Pair("CYP", "MXN"))

    def test_the_dollar_index_is_the_published_formula(self) -> None:
        """50.14348112 EURUSD^-.576 USDJPY^.136 GBPUSD^-.119 USDCAD^.091 USDSEK^.042 USDCHF^.036."""
        day = date(2024, 6, 28)

        def rate(base: str, quote: str) -> float:
            return float(CurrencyConverter().convert(1, base, quote, date=day))

        expected = (
            50.14348112
            * rate("EUR", "USD") ** -0.576
            * rate("USD", "JPY") ** 0.136
            * rate("GBP", "USD") ** -0.119
            * rate("USD", "CAD") ** 0.091
            * rate("USD", "SEK") ** 0.042
            * rate("USD", "CHF") ** 0.036
        )
        index = next(d for d in EcbProvider().load(USDMXN).drivers if d.name == "dollar_index")
        assert sum(DOLLAR_INDEX_WEIGHTS.values()) == pytest.approx(1.0)
        assert index.values[index.dates.get_loc(pd.Timestamp(day))] == pytest.approx(expected, rel=1e-12)
        assert expected == pytest.approx(105.9, abs=0.3)  # what the market showed that day

    def test_the_commodity_factor_is_a_geometric_mean(self) -> None:
        day = date(2024, 6, 28)
        codes = ("AUD", "CAD", "NZD", "NOK", "ZAR", "BRL")
        prices = [CurrencyConverter().convert(1, code, "USD", date=day) for code in codes]
        factor = next(d for d in EcbProvider().load(USDMXN).drivers if d.name == "commodity_fx")
        found = factor.values[factor.dates.get_loc(pd.Timestamp(day))]
        assert found == pytest.approx(np.prod(prices) ** (1 / 6), rel=1e-12)

    @pytest.mark.parametrize("text", ["USDMXN", "AUDCAD", "EURUSD", "EURGBP", "USDJPY", "NZDNOK"])
    def test_drivers_do_not_move_with_the_pairs_own_currencies(
        self, text: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Changing the rates of its own currencies, the dollar apart, changes no driver."""
        from forex_core.data.providers import ecb

        pair = Pair.parse(text)
        days, rates = ecb.reference_rates()
        own = {pair.base, pair.quote} - {"USD"}
        disturbed = {c: v * 1.5 if c in own else v for c, v in rates.items()}
        before = EcbProvider().load(pair)
        # The panel is inside a package and cannot be written: the rates are exchanged where they are read.
        monkeypatch.setattr(ecb, "reference_rates", lambda: (days, disturbed))
        after = EcbProvider().load(pair)
        for a, b in zip(before.drivers, after.drivers, strict=True):
            np.testing.assert_array_equal(a.values, b.values)
        quoted = ~np.isnan(before.spot.values)
        if len(own) == 1:
            assert (before.spot.values[quoted] != after.spot.values[quoted]).all()

    def test_lists_its_currencies(self) -> None:
        held = currencies()
        assert {"EUR", "USD", "MXN", "JPY"} <= set(held)
        assert "CLP" not in held
        assert list(held) == sorted(held)


FORMATTED = {
    "decimal commas": '"3,0034"',
    "thousands separators": '"4,000.00"',
    "percent signs": "12.0%",
}


@pytest.mark.parametrize("kind", FORMATTED)
def test_a_driver_of_formatted_numbers_is_refused_and_not_dropped(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "market.csv"
    path.write_text(
        f"Date,USDCLP,Copper\n2024-06-27,946.4,{FORMATTED[kind]}\n2024-06-28,954.1,{FORMATTED[kind]}\n"
    )
    with pytest.raises(DataQualityError, match=r"line 2, column 'Copper'.*decimal point"):
        CsvProvider((path,)).load(Pair("USD", "CLP"))


def test_a_column_of_text_is_named_among_the_repairs(tmp_path: Path) -> None:
    path = tmp_path / "market.csv"
    rows = "".join(f"2024-06-{day:02d},{900 + day},calm\n" for day in (24, 25, 26, 27, 28))
    path.write_text("Date,USDCLP,Mood\n" + rows)
    data = CsvProvider((path,)).load(Pair("USD", "CLP"))
    assert data.ignored == ("Mood",)
    assert data.drivers == ()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PK\x03\x04rest", "Excel workbook"),
        (b"Date;USDCLP\n2024-06-28;954,13\n", "separated by semicolons"),
        (b"Date\tUSDCLP\n2024-06-28\t954.13\n", "separated by tabs"),
    ],
)
def test_files_of_another_kind_are_named(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "export"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=said):
        CsvProvider((path,)).load(Pair("USD", "CLP"))
