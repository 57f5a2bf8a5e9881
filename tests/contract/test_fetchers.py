"""One suite over every fetcher, against a real server with answers of the recorded shape; then each one's own."""

from __future__ import annotations

import io
import json
import logging
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from currency_converter import CURRENCY_FILE
from loguru import logger
from pydantic import SecretStr

from forex_core.data.catalogue import entry
from forex_core.data.http import HttpClient
from forex_core.data.observations import Fetcher, Observations
from forex_core.data.providers.bcch import BcchFetcher
from forex_core.data.providers.ecb import COMMODITY_CURRENCIES, DOLLAR_INDEX_WEIGHTS, EcbProvider
from forex_core.data.providers.ecb_live import EcbFetcher
from forex_core.data.providers.fred import FredFetcher
from forex_core.data.providers.labelling import (
    CONTRADICTORY,
    FUTURE,
    NO_VALUE,
    NOT_POSITIVE,
    NOT_RELEASED,
    REPEATED,
)
from forex_core.data.providers.mindicador import MindicadorFetcher
from forex_core.errors import SourceError, SourceUnavailable
from forex_core.types import Pair
from tests.contract.bad_days import (
    NOW,
    Behaviour,
    Handler,
    Server,
    drip,
    drop,
    good,
    half,
    hang,
    html,
    junk,
    patience,
    quick_client,
    redirect,
    status,
    unchanged_after_first,
    unused_address,
)

Rows = Sequence[tuple[str, Any]]

FROM, TO = date(2024, 6, 3), date(2024, 7, 1)
ROWS: Rows = (("2024-06-26", 948.9), ("2024-06-27", 946.5), ("2024-06-28", 944.34))
USER, PASSWORD, KEY = (
    SecretStr("ana@example.org"),
    SecretStr("pa$$ w/rd"),
    SecretStr("0123456789abcdef0123456789abcdef"),
)


def mindicador(rows: Rows, zone: str = "T04:00:00.000Z", **changed: Any) -> bytes:
    document = {
        "version": "1.7.0",
        "autor": "mindicador.cl",
        "codigo": "dolar",
        "nombre": "Dólar observado",
        "unidad_medida": "Pesos",
        "serie": [{"fecha": day + zone, "valor": value} for day, value in reversed(rows)],
        **changed,
    }
    return json.dumps(document).encode()


def bcch(rows: Rows, form: str = "%d-%m-%Y", code: str = "F073.TCO.PRE.Z.D") -> bytes:
    observed = [
        {"indexDateString": date.fromisoformat(day).strftime(form), "value": str(value), "statusCode": "OK"}
        for day, value in rows
    ]
    names = {"descripEsp": "Dólar observado", "descripIng": "Observed dollar", "seriesId": code}
    document = {
        "Codigo": 0,
        "Descripcion": "Success",
        "Series": {**names, "Obs": observed},
        "SeriesInfos": [],
    }
    return json.dumps(document).encode()


def vintages(rows: Sequence[tuple[str, str, Any]], count: int | None = None, **changed: Any) -> bytes:
    """Rows (day, published, value) as FRED's API gives them."""
    document = {
        "realtime_start": "2024-06-03",
        "realtime_end": "2024-07-01",
        "units": "lin",
        "output_type": 1,
        "file_type": "json",
        "count": len(rows) if count is None else count,
        "offset": 0,
        "limit": 100000,
        "observations": [
            {"realtime_start": since, "realtime_end": "9999-12-31", "date": day, "value": str(value)}
            for day, since, value in rows
        ],
        **changed,
    }
    return json.dumps(document).encode()


def fred_table(rows: Rows, header: str = "observation_date,VIXCLS", zone: str = "") -> bytes:
    return "\n".join([header, *(f"{day}{zone},{value}" for day, value in rows), ""]).encode()


def ecb(rows: Rows, zone: str = "", first: str = "Date", without: str = "") -> bytes:
    """The bank's archive with a dollar at one euro, so that the rate of the peso is the cross."""
    others = sorted({*DOLLAR_INDEX_WEIGHTS, *COMMODITY_CURRENCIES} - {"EUR", without})
    lines = [",".join([first, "USD", "MXN", *others, "CYP", ""])]
    lines += [
        ",".join([f"{day}{zone}", "1.0", str(value), *["2.0"] * len(others), "N/A", ""])
        for day, value in rows[::-1]
    ]
    return zipped("\n".join(lines).encode())


def zipped(table: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("eurofxref-hist.csv", table)
    return packed.getvalue()


@dataclass(frozen=True)
class Case:
    """A fetcher, and what its source would answer.

    Attributes:
        body: the answer that holds these rows.
        changed: an answer in which `expected` is called otherwise.
        other: an answer that holds another series than asked, where the source says which it holds.
        shifted: an answer whose days are written in another time zone.
    """

    make: Callable[[HttpClient, str], Fetcher]
    series: str
    body: Callable[[Rows], bytes]
    changed: bytes
    expected: str
    shifted: bytes
    other: bytes | None = None
    secrets: tuple[str, ...] = ()
    comma: bool = True


CASES: dict[str, Case] = {
    "mindicador": Case(
        lambda client, url: MindicadorFetcher(client, url),
        "usdclp_observed",
        mindicador,
        changed=mindicador(ROWS).replace(b'"valor"', b'"value"'),
        expected="valor",
        shifted=mindicador(ROWS, "T00:00:00.000Z"),
        other=mindicador(ROWS, codigo="euro"),
    ),
    "bcch": Case(
        lambda client, url: BcchFetcher(client, USER, PASSWORD, url),
        "usdclp_observed",
        bcch,
        changed=bcch(ROWS).replace(b'"indexDateString"', b'"date"'),
        expected="indexDateString",
        shifted=bcch(ROWS, "%Y-%m-%dT04:00:00Z"),
        other=bcch(ROWS, code="F072.CLP.EUR.N.O.D"),
        secrets=("ana@", "ana%40", "pa$$", "pa%24", "w/rd", "w%2frd"),
    ),
    "fred with a key": Case(
        lambda client, url: FredFetcher(client, KEY, url, url),
        "vix",
        lambda rows: vintages([(day, day, value) for day, value in rows]),
        changed=vintages([(day, day, value) for day, value in ROWS]).replace(
            b'"realtime_start"', b'"vintage"'
        ),
        expected="realtime_start",
        shifted=vintages([(day + "T00:00:00-05:00", day, value) for day, value in ROWS]),
        secrets=("0123456789abcdef",),
    ),
    "fred without a key": Case(
        lambda client, url: FredFetcher(client, None, url, url),
        "vix",
        fred_table,
        changed=fred_table(ROWS, "when,VIXCLS"),
        expected="observation_date",
        shifted=fred_table(ROWS, zone="T00:00:00-05:00"),
        other=fred_table(ROWS, "observation_date,SP500"),
        comma=False,
    ),
    "ecb": Case(
        lambda client, url: EcbFetcher(client, url),
        "usdmxn_reference",
        ecb,
        changed=ecb(ROWS, first="Day"),
        expected="Date",
        shifted=ecb(ROWS, zone="T00:00:00+02:00"),
        comma=False,
    ),
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request: pytest.FixtureRequest) -> Case:
    return request.param  # type: ignore[no-any-return]


def fetch(
    case: Case,
    server: Server,
    folder: Path,
    *behaviours: Behaviour,
    now: pd.Timestamp = NOW,
    attempts: int = 3,
) -> Observations:
    """What a fetcher makes of a server's behaviours over the four weeks from `FROM` to `TO`."""
    server.play(*behaviours)
    with quick_client(folder, now=now, attempts=attempts, timeouts=patience(behaviours[0])) as client:
        return case.make(client, server.url).fetch(case.series, FROM, TO)


class TestEveryFetcher:
    def test_good_answer(self, case: Case, server: Server, tmp_path: Path) -> None:
        found = fetch(case, server, tmp_path, good(case.body(ROWS)))
        assert found.series == case.series
        assert found.source in [feed.source for feed in entry(case.series).feeds]
        assert list(found.dates.strftime("%Y-%m-%d")) == [day for day, _ in ROWS]
        np.testing.assert_allclose(found.values, [value for _, value in ROWS], rtol=1e-12)
        assert found.dropped == {}
        assert found.stated == ("api_key" in server.asked[0].params)
        if found.stated:
            ends = ["2024-06-27 04:00", "2024-06-28 04:00", "2024-06-29 04:00"]
            assert list(found.available_at) == [pd.Timestamp(end, tz="UTC") for end in ends]
        else:
            assert (found.available_at == entry(case.series).definition.release.instants(found.dates)).all()
        assert len(server.asked) == 1
        assert server.asked[0].headers["User-Agent"].startswith("forex-core/")

    def test_another_series_is_not_asked_for(self, case: Case, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="does not give nothing_of_ours"):
            case.make(quick_client(tmp_path), "http://127.0.0.1:1").fetch("nothing_of_ours", FROM, TO)

    @pytest.mark.parametrize(
        "bad",
        [status(429, Retry_After="3"), status(500), half(b'{"a": [' + b" " * 5000 + b"]}"), drop],
        ids=["429", "500", "half", "dropped"],
    )
    def test_a_bad_moment_passes(self, case: Case, server: Server, tmp_path: Path, bad: Behaviour) -> None:
        assert len(fetch(case, server, tmp_path, bad, good(case.body(ROWS)))) == 3
        assert len(server.asked) == 2

    @pytest.mark.parametrize(
        "bad",
        [status(429, Retry_After="3600"), status(500), hang, drip, drop],
        ids=["429", "500", "hang", "drip", "dropped"],
    )
    def test_a_bad_day_is_unavailable(
        self, case: Case, server: Server, tmp_path: Path, bad: Behaviour
    ) -> None:
        began = time.monotonic()
        with pytest.raises(SourceUnavailable, match="try again"):
            fetch(case, server, tmp_path, bad, attempts=2)
        assert time.monotonic() - began < 60

    def test_half_a_body_for_ever(self, case: Case, server: Server, tmp_path: Path) -> None:
        with pytest.raises(SourceUnavailable, match="breaks off"):
            fetch(case, server, tmp_path, half(case.body(ROWS)))

    def test_nobody_there(self, case: Case, server: Server, tmp_path: Path) -> None:
        with quick_client(tmp_path) as client, pytest.raises(SourceUnavailable, match="Connection refused"):
            case.make(client, unused_address()).fetch(case.series, FROM, TO)

    @pytest.mark.parametrize(
        ("bad", "told"),
        [(html, "HTML"), (junk(30), "16 MB"), (redirect("/again"), "redirects"), (status(404), "404")],
        ids=["html", "junk", "loop", "404"],
    )
    def test_another_answer(
        self, case: Case, server: Server, tmp_path: Path, bad: Behaviour, told: str
    ) -> None:
        with pytest.raises(SourceError, match=told):
            fetch(case, server, tmp_path, bad)
        assert len(server.asked) in (1, 6)
        assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"]

    def test_an_empty_list_where_data_were_due(self, case: Case, server: Server, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match=f"no row of {case.series} from 2024-06-03 to 2024-07-01"):
            fetch(case, server, tmp_path, good(case.body([])))

    def test_an_empty_list_over_a_few_days_is_believed(
        self, case: Case, server: Server, tmp_path: Path
    ) -> None:
        server.play(good(case.body([])))
        with quick_client(tmp_path) as client:
            found = case.make(client, server.url).fetch(case.series, date(2024, 6, 29), date(2024, 6, 30))
        assert (len(found), found.dropped) == (0, {})

    def test_rows_of_another_period_alone(self, case: Case, server: Server, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="no row of"):
            fetch(case, server, tmp_path, good(case.body([("2024-01-04", 900.0)])))

    def test_changed_field_name(self, case: Case, server: Server, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match=f"found .*expected .*{case.expected}"):
            fetch(case, server, tmp_path, good(case.changed))

    @pytest.mark.parametrize("name", [name for name, one in CASES.items() if one.other is not None])
    def test_another_series(self, name: str, server: Server, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="expected"):
            fetch(CASES[name], server, tmp_path, good(CASES[name].other or b""))

    def test_wrong_time_zone(self, case: Case, server: Server, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="expected"):
            fetch(case, server, tmp_path, good(case.shifted))

    @pytest.mark.parametrize("price", [0, 0.0, -944.34])
    def test_price_of_zero_or_below(self, case: Case, server: Server, tmp_path: Path, price: float) -> None:
        found = fetch(case, server, tmp_path, good(case.body([*ROWS[:2], ("2024-06-28", price)])))
        assert (len(found), found.dropped) == (2, {NOT_POSITIVE: 1})

    def test_date_in_the_future(self, case: Case, server: Server, tmp_path: Path) -> None:
        found = fetch(
            case, server, tmp_path, good(case.body([*ROWS, ("2031-01-02", 944.0), ("9999-12-31", 1.0)]))
        )
        assert (len(found), found.dropped) == (3, {FUTURE: 2})

    def test_what_is_not_yet_released_is_a_quote(self, case: Case, server: Server, tmp_path: Path) -> None:
        morning = pd.Timestamp("2024-07-01T13:00:00Z")
        body = case.body([*ROWS, ("2024-07-01", 941.0)])
        found = fetch(case, server, tmp_path, good(body), now=morning)
        assert (len(found), found.dropped) == (3, {NOT_RELEASED: 1})
        late = fetch(case, server, tmp_path, good(body), now=pd.Timestamp("2024-07-02T06:00:00Z"))
        assert (len(late), late.dropped) == (4, {})

    def test_days_outside_the_period_are_left_out(self, case: Case, server: Server, tmp_path: Path) -> None:
        found = fetch(case, server, tmp_path, good(case.body([("2024-05-31", 1.0), *ROWS])))
        assert (len(found), found.dropped) == (3, {})

    def test_rows_twice(self, case: Case, server: Server, tmp_path: Path) -> None:
        found = fetch(case, server, tmp_path, good(case.body([*ROWS, ROWS[0], ("2024-06-27", 900.0)])))
        assert set(found.dropped) <= {REPEATED, CONTRADICTORY}
        # There a second value of a day stands for itself, one line above.
        if case.expected != "realtime_start":
            assert found.dropped == {REPEATED: 1, CONTRADICTORY: 2}
        assert not found.dates.duplicated().any()

    def test_a_decimal_comma_is_not_guessed_at(self, case: Case, server: Server, tmp_path: Path) -> None:
        if case.comma:
            with pytest.raises(SourceError, match="'944,34', expected a number"):
                fetch(case, server, tmp_path, good(case.body([("2024-06-28", "944,34")])))
        else:
            with pytest.raises(SourceError, match="944,34"):
                fetch(case, server, tmp_path, good(case.body([*ROWS[:2], ("2024-06-28", '"944,34"')])))

    def test_text_for_a_value(self, case: Case, server: Server, tmp_path: Path) -> None:
        with pytest.raises(SourceError):
            fetch(case, server, tmp_path, good(case.body([*ROWS[:2], ("2024-06-28", "about 944")])))

    def test_what_a_terminal_would_obey_is_not_repeated(
        self, case: Case, server: Server, tmp_path: Path
    ) -> None:
        for body in (case.body([*ROWS, ("2024-06-25", "1\x1b[2J")]), case.changed.replace(b"e", b"e\x1b[2J")):
            with pytest.raises((SourceError, SourceUnavailable)) as failed:
                fetch(case, server, tmp_path, good(body))
            assert str(failed.value).isprintable()

    def test_too_large_to_be_a_number(self, case: Case, server: Server, tmp_path: Path) -> None:
        found = fetch(case, server, tmp_path, good(case.body([*ROWS, ("2024-06-25", int("9" * 400))])))
        assert (len(found), found.dropped) == (3, {NO_VALUE: 1})

    def test_unchanged_is_not_sent_twice(self, case: Case, server: Server, tmp_path: Path) -> None:
        first = fetch(case, server, tmp_path, unchanged_after_first(case.body(ROWS)))
        sent = server.sent
        again = fetch(case, server, tmp_path, unchanged_after_first(case.body(ROWS)))
        assert server.sent == sent
        assert len(server.asked) == 2
        assert (again.dates == first.dates).all()
        np.testing.assert_array_equal(again.values, first.values)

    def test_keys_are_told_to_nobody_else(
        self, case: Case, server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        told: list[str] = []
        sink = logger.add(told.append, level=0, diagnose=True)
        caplog.set_level(logging.DEBUG)

        def echo(code: int) -> Behaviour:
            def behave(handler: Handler) -> None:
                said = {
                    "error_message": f"Bad {handler.path}",
                    "Codigo": -5,
                    "Descripcion": str(handler.asked.params),
                }
                handler.answer(code, json.dumps(said).encode(), {"ETag": '"e"'})

            return behave

        for bad in (
            unchanged_after_first(case.body(ROWS)),
            echo(200),
            echo(400),
            echo(403),
            status(500),
            html,
            drop,
        ):
            try:
                fetch(case, server, tmp_path, bad)
            except (SourceError, SourceUnavailable) as error:
                logger.exception("failed")
                told.append(f"{error!r} {error.__cause__!r} {error.__context__!r}")
        logger.remove(sink)
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        everything = "\n".join(
            [*told, caplog.text, *map(str, files), *(str(path.read_bytes()) for path in files)]
        )
        assert "urllib3" in caplog.text
        assert case.series not in case.secrets
        for form in case.secrets:
            assert form not in everything.lower()
        sent = " ".join(server.asked[0].params.values()).lower()
        assert all(form in sent for form in case.secrets if "%" not in form)


class TestMindicador:
    def serve(self, server: Server, by_year: dict[int, Rows], **changed: Any) -> None:
        def behave(handler: Handler) -> None:
            year = int(handler.asked.path.rsplit("/", 1)[1])
            handler.answer(200, mindicador(by_year.get(year, []), **changed), {})

        server.play(behave)

    def fetch(
        self, server: Server, folder: Path, start: date, end: date, series: str = "usdclp_observed"
    ) -> Observations:
        with quick_client(folder) as client:
            return MindicadorFetcher(client, server.url).fetch(series, start, end)

    def test_years_are_put_together(self, server: Server, tmp_path: Path) -> None:
        self.serve(
            server, {2022: [("2022-12-30", 1.0)], 2023: [("2023-01-03", 2.0)], 2024: [("2024-06-28", 3.0)]}
        )
        found = self.fetch(server, tmp_path, date(2022, 12, 30), date(2026, 1, 1))
        assert list(found.values) == [1.0, 2.0, 3.0]
        assert [one.path for one in server.asked] == ["/dolar/2022", "/dolar/2023", "/dolar/2024"]

    def test_years_before_a_series_began_are_empty(self, server: Server, tmp_path: Path) -> None:
        self.serve(server, {2024: ROWS})
        assert len(self.fetch(server, tmp_path, date(2022, 1, 1), TO)) == 3

    def test_an_empty_year_inside_a_series_is_an_error(self, server: Server, tmp_path: Path) -> None:
        self.serve(server, {2022: [("2022-12-30", 1.0)], 2024: ROWS})
        with pytest.raises(SourceError, match="dolar/2023: no row"):
            self.fetch(server, tmp_path, date(2022, 1, 1), TO)

    @pytest.mark.parametrize(
        ("day", "zone"),
        [
            ("2024-01-05", "T03:00:00.000Z"),
            ("2024-06-05", "T04:00:00.000Z"),
            ("2024-04-07", "T04:00:00.000Z"),  # clocks go back at midnight
            ("2023-09-03", "T04:00:00.000Z"),  # clocks go forward at midnight: there is none
            (
                "2018-09-28",
                "T04:00:00.000Z",
            ),  # recorded while the service was late with a change of the rules
            ("2024-02-29", "T03:00:00.000Z"),
            ("2023-12-31", "T03:00:00.000Z"),
        ],
    )
    def test_midnight_in_santiago(self, server: Server, tmp_path: Path, day: str, zone: str) -> None:
        at = date.fromisoformat(day)
        server.play(good(mindicador([(day, 900.0)], zone)))
        found = self.fetch(server, tmp_path, at, at)
        assert list(found.dates) == [pd.Timestamp(day)]

    @pytest.mark.parametrize(
        "zone",
        ["T00:00:00.000Z", "T23:00:00.000Z", "T05:00:00.000Z", "T00:00:00.000-04:00", "", "T04:00:00.000"],
    )
    def test_no_midnight_in_santiago(self, server: Server, tmp_path: Path, zone: str) -> None:
        server.play(good(mindicador(ROWS, zone)))
        with pytest.raises(SourceError, match="expected midnight in Santiago"):
            self.fetch(server, tmp_path, FROM, TO)

    def test_another_unit(self, server: Server, tmp_path: Path) -> None:
        server.play(good(mindicador(ROWS, unidad_medida="Dólar")))
        with pytest.raises(SourceError, match="'unidad_medida' says 'Dólar', expected 'Pesos'"):
            self.fetch(server, tmp_path, FROM, TO)

    def test_rates_may_be_negative_and_the_month_is_told_later(self, server: Server, tmp_path: Path) -> None:
        body = mindicador(
            [("2023-12-01", -0.5), ("2024-05-01", 0.3), ("2024-06-01", 0.0)],
            codigo="ipc",
            unidad_medida="Porcentaje",
        )
        server.play(good(body))
        found = self.fetch(server, tmp_path, date(2024, 1, 1), TO, "ipc")
        assert list(found.values) == [0.3]
        assert found.dropped == {NOT_RELEASED: 1}
        assert list(found.available_at) == [pd.Timestamp("2024-06-10T13:00:00Z")]  # the 9th is a Sunday

    def test_no_value(self, server: Server, tmp_path: Path) -> None:
        server.play(good(mindicador([*ROWS, ("2024-06-25", None), ("2024-06-24", float("nan"))])))
        assert self.fetch(server, tmp_path, FROM, TO).dropped == {NO_VALUE: 2}

    @pytest.mark.parametrize("document", [[], {}, {"codigo": "dolar"}, {"codigo": None}, "text", 3])
    def test_another_document(self, server: Server, tmp_path: Path, document: Any) -> None:
        server.play(good(json.dumps(document)))
        with pytest.raises(SourceError, match="expected"):
            self.fetch(server, tmp_path, FROM, TO)


class TestBcch:
    def test_what_is_asked(self, server: Server, tmp_path: Path) -> None:
        fetch(CASES["bcch"], server, tmp_path, good(bcch(ROWS)))
        assert server.asked[0].params == {
            "function": "GetSeries",
            "timeseries": "F073.TCO.PRE.Z.D",
            "firstdate": "2024-06-03",
            "lastdate": "2024-07-01",
            "user": "ana@example.org",
            "pass": "pa$$ w/rd",
        }

    def test_weekends_are_no_rows(self, server: Server, tmp_path: Path) -> None:
        document = json.loads(bcch(ROWS))
        document["Series"]["Obs"].append(
            {"indexDateString": "29-06-2024", "value": "NaN", "statusCode": "ND"}
        )
        found = fetch(CASES["bcch"], server, tmp_path, good(document))
        assert (len(found), found.dropped) == (3, {})
        document["Series"]["Obs"][-1]["statusCode"] = "OK"
        assert fetch(CASES["bcch"], server, tmp_path, good(document)).dropped == {NO_VALUE: 1}

    def test_refused(self, server: Server, tmp_path: Path) -> None:
        document = {
            "Codigo": -5,
            "Descripcion": "Invalid username or password: ana@example.org",
            "Series": {"descripEsp": None, "descripIng": None, "seriesId": None, "Obs": None},
            "SeriesInfos": [],
        }
        with pytest.raises(SourceError, match=r"Codigo -5.*Check the user and the password") as failed:
            fetch(CASES["bcch"], server, tmp_path, good(document))
        assert "ana@" not in str(failed.value)


class Alfred:
    """A server that keeps to FRED's rules: vintages within the window asked for, at most 2000 of them, clamped."""

    def __init__(
        self, rows: Sequence[tuple[str, str, str]], begins: str = "1990-01-01", page: int = 100_000
    ) -> None:
        self.rows, self.begins, self.page = sorted(rows), begins, page

    def __call__(self, handler: Handler) -> None:
        asked = handler.asked.params
        since, until = asked["realtime_start"], asked["realtime_end"]
        if until < self.begins:
            said = "Bad Request.  The series does not exist in ALFRED but may exist in FRED."
            handler.answer(400, json.dumps({"error_code": 400, "error_message": said}).encode(), {})
            return
        published = {start for _, start, _ in self.rows if since <= start <= until}
        if len(published) > 2000 or until > "2024-07-01":
            said = f"Bad Request.  There are {len(published)} vintage dates. This exceeds the maximum number (2000)."
            handler.answer(400, json.dumps({"error_code": 400, "error_message": said}).encode(), {})
            return
        shown = []
        for position, (day, start, value) in enumerate(self.rows):
            later = [row[1] for row in self.rows[position + 1 :] if row[0] == day][:1]
            stands_until = later[0] if later else "9999-12-31"
            inside = start <= until and stands_until > since
            if inside and asked["observation_start"] <= day <= asked["observation_end"]:
                shown.append((day, max(start, since), value))
        skip = int(asked["offset"])
        handler.answer(200, vintages(shown[skip : skip + self.page], count=len(shown)), {})


class TestFred:
    def fetch(self, server: Server, folder: Path, series: str, start: date, end: date = TO) -> Observations:
        with quick_client(folder) as client:
            return FredFetcher(client, KEY, server.url, server.url).fetch(series, start, end)

    def test_revisions_are_later_prints(self, server: Server, tmp_path: Path) -> None:
        server.play(
            Alfred(
                [
                    ("2024-06-14", "2024-06-17", "120.1"),
                    ("2024-06-14", "2024-06-24", "120.3"),
                    ("2024-06-17", "2024-06-24", "121"),
                ]
            )
        )
        found = self.fetch(server, tmp_path, "dollar_broad", FROM)
        assert list(found.dates.strftime("%m-%d")) == ["06-14", "06-14", "06-17"]
        assert list(found.values) == [120.1, 120.3, 121.0]
        assert list(found.available_at.strftime("%m-%d %H:%M")) == [
            "06-18 04:00",
            "06-25 04:00",
            "06-25 04:00",
        ]

    def test_daily_vintages_over_many_years(self, server: Server, tmp_path: Path) -> None:
        """More vintages than the service gives at once; what only stands on is not a revision."""
        days = pd.bdate_range("2010-01-04", "2024-06-27")
        rows = [
            (f"{day:%Y-%m-%d}", f"{day + pd.Timedelta(days=1):%Y-%m-%d}", f"{5 + k % 7}")
            for k, day in enumerate(days)
        ]
        rows.append(("2011-03-01", "2019-05-20", "9.75"))
        rows.sort()

        def windowed(handler: Handler) -> None:
            since, until = handler.asked.params["realtime_start"], handler.asked.params["realtime_end"]
            assert len({published for _, published, _ in rows if since <= published <= until}) <= 2000
            shown = [
                (day, max(published, since), value) for day, published, value in rows if published <= until
            ]
            shown = [
                row
                for row in shown
                if not (row[0] == "2011-03-01" and row[2] != "9.75" and since > "2019-05-20")
            ]
            skip = int(handler.asked.params["offset"])
            handler.answer(200, vintages(shown[skip : skip + 3000], count=len(shown)), {})

        server.play(windowed)
        found = self.fetch(server, tmp_path, "vix", date(2010, 1, 1))
        assert len(found) == len(rows)
        expected = pd.DataFrame(rows, columns=["day", "since", "value"])
        assert list(found.dates.strftime("%Y-%m-%d")) == list(expected["day"])
        assert list(found.values) == [float(value) for value in expected["value"]]
        local = found.available_at.tz_convert("America/New_York")
        assert (local == local.normalize()).all()
        assert list((local - pd.Timedelta(hours=12)).strftime("%Y-%m-%d")) == list(expected["since"])
        assert len({one.params["realtime_start"] for one in server.asked}) == 3

    def test_a_record_that_begins_later(self, server: Server, tmp_path: Path) -> None:
        server.play(
            Alfred(
                [("2012-06-13", "2019-06-14", "120.5"), ("2024-06-13", "2024-06-14", "121")],
                begins="2019-06-14",
            )
        )
        found = self.fetch(server, tmp_path, "dollar_broad", date(2012, 1, 1))
        assert list(found.available_at.strftime("%Y-%m-%d")) == ["2019-06-15", "2024-06-15"]

    def test_missing_and_withdrawn_values(self, server: Server, tmp_path: Path) -> None:
        rows = [
            ("2024-06-19", "2024-06-20", "."),
            ("2024-06-20", "2024-06-21", "13.2"),
            ("2024-06-20", "2024-06-24", "."),
        ]
        server.play(Alfred(rows))
        found = self.fetch(server, tmp_path, "vix", FROM)
        assert (list(found.values), found.dropped) == ([13.2], {})

    def test_a_key_that_is_not_known(self, server: Server, tmp_path: Path) -> None:
        said = f"Bad Request.  The value for variable api_key {KEY.get_secret_value()} is not registered."
        server.play(status(400, json.dumps({"error_code": 400, "error_message": said})))
        with pytest.raises(SourceError, match=r"is not registered.*Check the key") as failed:
            self.fetch(server, tmp_path, "vix", FROM)
        assert KEY.get_secret_value() not in str(failed.value)

    def test_other_units(self, server: Server, tmp_path: Path) -> None:
        server.play(good(vintages([], units="pch")))
        with pytest.raises(SourceError, match="'units' says 'pch', expected 'lin'"):
            self.fetch(server, tmp_path, "vix", FROM)

    @pytest.mark.parametrize("header", ["DATE,DFF", "observation_date,DFF"])
    def test_the_public_table(self, server: Server, tmp_path: Path, header: str) -> None:
        rows = [
            ("2024-06-19", "."),
            ("2024-06-20", ""),
            ("2024-06-27", "5.33"),
            ("2024-06-28", "0"),
            ("2024-07-01", "5.33"),
        ]
        server.play(good("\ufeff" + fred_table(rows, header).decode().replace("\n", "\r\n")))
        with quick_client(tmp_path) as client:
            found = FredFetcher(client, None, server.url, server.url).fetch("fed_rate", FROM, TO)
        assert server.asked[0].params == {"id": "DFF", "cosd": "2024-06-03", "coed": "2024-07-01"}
        assert list(found.values) == [5.33, 0.0]
        assert found.dropped == {NOT_RELEASED: 1}
        assert list(found.available_at) == [
            pd.Timestamp("2024-06-28T20:15Z"),
            pd.Timestamp("2024-07-01T20:15Z"),
        ]


class TestEcb:
    def fetch(self, server: Server, folder: Path, series: str, start: date, end: date) -> Observations:
        with quick_client(folder, now=pd.Timestamp("2026-11-20T20:00Z")) as client:
            return EcbFetcher(client, server.url).fetch(series, start, end)

    @pytest.mark.parametrize("pair", [Pair("USD", "MXN"), Pair("EUR", "USD"), Pair("USD", "BRL")])
    def test_gives_what_the_embedded_copy_gives(self, server: Server, tmp_path: Path, pair: Pair) -> None:
        server.play(unchanged_after_first(Path(CURRENCY_FILE).read_bytes()))
        data = EcbProvider().load(pair)
        by_name = {f"{pair.slug}_reference": data.spot} | {
            f"{pair.slug}_{one.name}": one for one in data.drivers
        }
        assert len(by_name) == 3
        start, end = date(2015, 1, 1), date(2024, 12, 31)
        for name, series in by_name.items():
            found = self.fetch(server, tmp_path, name, start, end)
            inside = (
                (series.dates >= "2015-01-01") & (series.dates <= "2024-12-31") & ~np.isnan(series.values)
            )
            np.testing.assert_array_equal(found.values, series.values[inside])
            assert (found.dates == series.dates[inside]).all()
            assert (found.available_at == series.released[inside]).all()
            assert found.dropped == {}
        assert server.sent == Path(CURRENCY_FILE).stat().st_size

    def test_a_currency_that_is_not_quoted(self, server: Server, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="ecb does not give usdclp_reference"):
            self.fetch(server, tmp_path, "usdclp_reference", FROM, TO)
        server.play(good(ecb(ROWS, without="SEK")))
        with pytest.raises(SourceError, match="found no SEK, expected all currencies of usdmxn_dollar_index"):
            self.fetch(server, tmp_path, "usdmxn_dollar_index", FROM, TO)

    @pytest.mark.parametrize(
        "archive",
        [
            zipped(b""),
            zipped(b"\x00\xff\xfe"),
            zipped(b"Date,USD\nyesterday,1.1\n"),
            zipfile.ZipFile(io.BytesIO(), "w"),
            ecb(ROWS)[:30] + b"spoilt" + ecb(ROWS)[36:],
        ],
        ids=["empty", "binary", "no dates", "no file", "spoilt"],
    )
    def test_another_archive(self, server: Server, tmp_path: Path, archive: Any) -> None:
        server.play(good(archive if isinstance(archive, bytes) else b"PK\x05\x06" + b"\x00" * 18))
        with pytest.raises(SourceError, match="not the table of reference rates"):
            self.fetch(server, tmp_path, "usdmxn_reference", FROM, TO)

    def test_an_archive_that_unpacks_to_too_much(self, server: Server, tmp_path: Path) -> None:
        server.play(good(zipped(b"0" * 65 * 2**20)))
        with pytest.raises(SourceError, match="more than 64 MB"):
            self.fetch(server, tmp_path, "usdmxn_reference", FROM, TO)
