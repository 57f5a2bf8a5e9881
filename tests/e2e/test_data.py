"""`forex data` and forecasts from the store, as a user runs them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from forex_core.cli import app
from forex_core.config import load_settings
from forex_core.data.bundle import load_bundle
from forex_core.data.loading import bundle_of
from forex_core.data.providers.csv_files import CsvProvider
from forex_core.errors import DataQualityError, ForexError, InputError
from forex_core.testing import synthetic_table
from forex_core.types import MarketBundle, Pair

USDCLP = Pair("USD", "CLP")
Forex = Callable[..., Any]


@pytest.fixture
def market(tmp_path: Path) -> Path:
    path = tmp_path / "market.csv"
    synthetic_table(700, drivers=("Copper", "Oil", "lithium price")).to_csv(path, index=False)
    return path


def data(*arguments: str | Path) -> Any:
    """A command of `forex data` that succeeds, and its JSON."""
    done = CliRunner().invoke(app, ["data", *map(str, arguments), "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def text(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, ["data", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def refused(*arguments: str | Path) -> str:
    """The message of a command that is refused."""
    with pytest.raises(ForexError) as error:
        CliRunner().invoke(app, ["data", *map(str, arguments)], catch_exceptions=False)
    return str(error.value)


def altered(market: Path, row: int, factor: float) -> tuple[Path, str]:
    """The file with one close changed, and the day of it."""
    table = pd.read_csv(market)
    table.loc[row, "USDCLP"] *= factor
    path = market.with_name("corrected.csv")
    table.to_csv(path, index=False)
    return path, str(table.loc[row, "Date"])


class TestImport:
    def test_columns_become_series_and_a_second_time_nothing(self, market: Path) -> None:
        first = {row["series"]: row for row in data("import", market, "--pair", "USDCLP")["series"]}
        assert set(first) == {"usdclp_close", "copper", "oil", "lithium_price"}
        assert all(row["new"] == 700 and row["revisions"] == 0 for row in first.values())
        again = data("import", market, "--pair", "USDCLP")["series"]
        assert all(row["unchanged"] == 700 and row["new"] == row["revisions"] == 0 for row in again)

    def test_a_file_without_the_pair_is_refused_where_the_pair_is_given(self, tmp_path: Path) -> None:
        path = tmp_path / "rates.csv"
        path.write_text("Date,lithium\n2024-01-02,13.2\n2024-01-03,14.0\n")
        assert "no column for USDCLP" in refused("import", path, "--pair", "USDCLP")
        (row,) = data("import", path)["series"]
        assert (row["series"], row["new"]) == ("lithium", 2)

    @pytest.mark.parametrize("pair", [(), ("--pair", "EURUSD")])
    def test_a_file_of_another_pair_is_refused_with_the_option_that_takes_it(
        self, market: Path, pair: tuple[str, ...]
    ) -> None:
        told = refused("import", market, *pair)
        assert "USDCLP" in told
        assert ("--pair USDCLP" in told) == (not pair)
        assert data("status")["series"] == []

    def test_a_file_of_drivers_alone_is_taken_beside_a_pair(self, tmp_path: Path) -> None:
        path = tmp_path / "rates.csv"
        path.write_text("Date,chile_rate,fed_rate\n2024-01-02,8.2,5.3\n2024-01-03,8.2,5.3\n")
        rows = data("import", path, "--pair", "USDCLP")["series"]
        assert {row["series"] for row in rows} == {"chile_rate", "fed_rate"}
        path.write_text("Date,lithium\n2024-01-02,8.2\n")
        assert "no column for USDCLP" in refused("import", path, "--pair", "USDCLP")

    def test_a_correction_is_seen_from_its_day_on_and_nothing_is_overwritten(self, market: Path) -> None:
        data("import", market, "--pair", "USDCLP")
        path, day = altered(market, 600, 1.01)
        after = pd.Timestamp(day) + pd.offsets.BDay(10)
        row = data("import", path, "--pair", "USDCLP", "--available-at", after.date())["series"][0]
        assert (row["revisions"], row["unchanged"]) == (1, 699)
        before_it, since = after - pd.offsets.BDay(1), after
        shown = [
            data("show", "usdclp_close", "--as-of", at.date(), "--from", day, "--to", day)["values"][0][
                "value"
            ]
            for at in (before_it, since)
        ]
        assert shown[1] == pytest.approx(shown[0] * 1.01)
        prints = data("show", "usdclp_close", "--revisions", day)["values"]
        assert [one["value"] for one in prints] == shown

    def test_a_price_is_not_known_before_its_day(self, market: Path) -> None:
        last = pd.Timestamp(pd.read_csv(market)["Date"].iloc[-1])
        early = last - pd.offsets.BDay(3)
        data("import", market, "--pair", "USDCLP", "--available-at", early.date())
        rows = data("show", "usdclp_close", "--from", (early - pd.offsets.BDay(1)).date())["values"]
        known = [pd.Timestamp(row["known_at"]).tz_convert("Europe/London") for row in rows]
        assert known[0] == known[1], "both by what was said"
        midnights = [pd.Timestamp(row["date"], tz="Europe/London") + pd.offsets.Day(1) for row in rows[2:]]
        assert known[2:] == midnights

    def test_a_rate_is_not_known_before_its_day_nor_an_average_before_its_month_is_over(
        self, tmp_path: Path
    ) -> None:
        path = tmp_path / "rates.csv"
        path.write_text(
            "Date,USDCLP,chile_rate,chile_tpm,fed_rate\n2024-01-04,880,8.5,8.25,5.33\n2024-06-03,910,6,5.75,5.33\n"
        )
        data("import", path, "--available-at", "2024-01-05", "--pair", "USDCLP")
        found = {
            name: [
                pd.Timestamp(row["known_at"]).tz_convert("America/Santiago")
                for row in data("show", name, "--from", "2024-01-01")["values"]
            ]
            for name in ("chile_rate", "chile_tpm", "fed_rate")
        }
        assert [f"{at:%Y-%m-%d %H}" for at in found["chile_rate"]] == ["2024-02-01 00", "2024-07-01 00"]
        assert [f"{at:%Y-%m-%d %H}" for at in found["chile_tpm"]] == ["2024-01-05 23", "2024-06-03 00"]
        assert found["fed_rate"] == found["chile_tpm"]

    @pytest.mark.parametrize("columns", ["USDMXN,usdmxn_close", "fed_rate,Fed Rate"])
    def test_two_columns_of_one_series_are_refused_by_name(self, tmp_path: Path, columns: str) -> None:
        path = tmp_path / "twice.csv"
        path.write_text(f"Date,{columns}\n2024-01-02,880,881\n")
        told = refused("import", path)
        assert all(f"'{name}'" in told for name in columns.split(",")), told

    def test_values_in_another_unit_are_asked_about(self, market: Path) -> None:
        data("import", market, "--pair", "USDCLP")
        table = pd.read_csv(market)
        table["USDCLP"] *= 100
        table.to_csv(market, index=False)
        shown = text("import", market, "--pair", "USDCLP")
        assert "usdclp_close: more than half" in shown
        assert "copper: more than half" not in shown

    @pytest.mark.parametrize("day", ["2999-01-01", "yesterday"])
    def test_a_day_that_is_none_or_to_come_is_refused(self, market: Path, day: str) -> None:
        assert "--available-at" in refused("import", market, "--pair", "USDCLP", "--available-at", day)

    def test_what_is_dropped_is_said(self, tmp_path: Path) -> None:
        path = tmp_path / "odd.csv"
        path.write_text(
            "Date,USDCLP,Copper\n2024-01-02,880,3.9\n2024-01-02,881,\n2024-01-03,882,3.8\n2150-01-04,9,9\n"
        )
        rows = {row["series"]: row for row in data("import", path, "--pair", "USDCLP")["series"]}
        assert rows["usdclp_close"]["dropped"] == {
            "several rows of one day, the last is taken": 1,
            "not released yet": 1,
        }
        assert rows["copper"]["new"] == 2
        assert "several rows of one day" in text("import", path, "--pair", "USDCLP")

    def test_a_day_between_others_that_comes_late_is_said(self, tmp_path: Path) -> None:
        path = tmp_path / "vix.csv"
        path.write_text("Date,vix\n2024-01-02,13.2\n2024-01-04,14.0\n")
        data("import", path)
        path.write_text("Date,vix\n2024-01-02,13.2\n2024-01-03,13.6\n2024-01-04,14.0\n2024-01-05,14.1\n")
        began = pd.Timestamp.now(tz="UTC").floor("s")
        told = " ".join(text("import", path).split())
        assert "vix: 1 of the new days lie between days that the store had" in told
        known = data("show", "vix", "--from", "2024-01-03")["values"]
        assert began <= pd.Timestamp(known[0]["known_at"]) <= pd.Timestamp.now(tz="UTC")
        assert [one["known_at"][:10] for one in known[1:]] == ["2024-01-04", "2024-01-05"]


class TestLooking:
    def test_status_tells_age_gaps_revisions_and_repairs(self, market: Path) -> None:
        table = pd.read_csv(market)
        table.loc[500, "USDCLP"] /= 100
        table.drop(index=[300, 301]).to_csv(market, index=False)
        data("import", market, "--pair", "USDCLP")
        rows = {row["series"]: row for row in data("status")["series"]}
        close = rows["usdclp_close"]
        assert (close["days"], close["gaps"], close["revisions"]) == (698, 2, 0)
        assert close["repairs"] == {"refuted": 1}
        assert close["sources"] == {"import": 698}
        assert not close["is_fresh"]
        shown = text("status")
        assert "stale" in shown
        assert "usdclp_close: 1 refuted" in shown

    @pytest.mark.parametrize("days_old", [5, 12])
    def test_a_rate_is_fresh_where_a_forecast_would_be_made_of_it(
        self, tmp_path: Path, days_old: int
    ) -> None:
        today = pd.Timestamp.now(tz="UTC").tz_localize(None).normalize()
        days = pd.bdate_range(end=today - pd.Timedelta(days=days_old), periods=700)
        table = synthetic_table(700, drivers=("Copper",)).assign(Date=days.strftime("%Y-%m-%d"))
        table.to_csv(tmp_path / "recent.csv", index=False)
        data("import", tmp_path / "recent.csv", "--pair", "USDCLP")
        rows = {row["series"]: row for row in data("status")["series"]}
        assert rows["copper"]["is_fresh"], "fifteen days, as its definition has it"
        try:
            bundle_of(load_settings(pair="USDCLP", source="store"))
            is_forecast = True
        except DataQualityError:
            is_forecast = False
        assert rows["usdclp_close"]["is_fresh"] is is_forecast
        assert days_old == 5 or not is_forecast

    def test_the_pair_says_at_which_desk(self, market: Path) -> None:
        data("import", market, "--pair", "USDCLP")
        for command in (("status",), ("show", "copper")):
            chile, japan = (
                pd.Timestamp(data(*command, "--as-of", "2020-06-24", "--pair", pair)["as_of"])
                for pair in ("USDCLP", "USDJPY")
            )
            assert chile != japan

    def test_as_csv(self, market: Path) -> None:
        data("import", market, "--pair", "USDCLP")
        rows = list(csv.DictReader(io.StringIO(text("show", "copper", "--csv"))))
        assert len(rows) == 10
        assert set(rows[0]) == {"date", "value", "known_at", "source"}
        assert len(list(csv.DictReader(io.StringIO(text("status", "--csv"))))) == 4

    def test_an_unknown_series_is_refused_with_those_there_are(self, market: Path) -> None:
        data("import", market, "--pair", "USDCLP")
        assert "copper, lithium_price, oil, usdclp_close" in refused("show", "gold")

    def test_the_register_of_a_pair(self) -> None:
        rows = {row["series"]: row for row in data("sources", "--pair", "USDCLP")["series"]}
        assert rows["usdclp_close"]["sources"] == ["yahoo"]
        assert rows["usdclp_observed"]["sources"] == ["bcch", "mindicador"]
        assert rows["vix"]["sources"] == ["yahoo", "fred"]
        assert not any(name.startswith("usdclp_reference") for name in rows), "the bank has no peso of Chile"
        assert "usdmxn_reference" in {row["series"] for row in data("sources", "--pair", "USDMXN")["series"]}
        assert "chile_tpm" not in {row["series"] for row in data("sources", "--pair", "EURUSD")["series"]}


class TestBundle:
    def test_a_file_and_the_store_give_the_same_rows(self, market: Path) -> None:
        data("import", market, "--pair", "USDCLP")
        as_of = date.fromisoformat(pd.read_csv(market)["Date"].iloc[-1])
        file = load_bundle(CsvProvider((market,)), USDCLP, as_of)
        stored = bundle_of(load_settings(pair="USDCLP", source="store"), as_of)
        for name in ("dates", "instants", "spot", "truth", "truth_known"):
            np.testing.assert_array_equal(getattr(stored, name), getattr(file, name))
        names = {"copper": "copper", "oil": "oil", "lithium_price": "lithium price"}
        assert set(stored.driver_names) == set(names)
        for name, column in names.items():
            np.testing.assert_array_equal(
                stored.drivers[:, stored.driver_names.index(name)],
                file.drivers[:, file.driver_names.index(column)],
            )
        missing = {repair.series for repair in stored.repairs if repair.kind == "missing"}
        assert missing == {"dxy", "sp500", "vix", "fed_rate", "chile_tpm"}, "and none that files alone give"

    def test_a_column_of_another_pair_is_a_driver_where_it_is_named(self, market: Path) -> None:
        table = pd.read_csv(market).assign(USDMXN=lambda t: 18 + t["Copper"] / 100)
        table.to_csv(market, index=False)
        data("import", market, "--pair", "USDCLP")
        as_of = date.fromisoformat(table["Date"].iloc[-1])
        settings = load_settings(pair="USDCLP", source="store")
        assert set(bundle_of(settings, as_of).driver_names) == {"copper", "oil", "lithium_price"}
        named = load_settings(pair="USDCLP", source="store", data={"drivers": ("usdmxn",)})
        assert bundle_of(named, as_of).driver_names == ("usdmxn",)

    def test_what_came_later_changes_no_bundle_of_before(self, market: Path) -> None:
        data("import", market, "--pair", "USDCLP")
        last = pd.Timestamp(pd.read_csv(market)["Date"].iloc[-1])
        settings = load_settings(pair="USDCLP", source="store", data={"max_age_business_days": 10})
        before = bundle_of(settings, last.date())
        path, _ = altered(market, 650, 1.02)
        then = (last + pd.offsets.BDay(2)).date()
        data("import", path, "--pair", "USDCLP", "--available-at", then)
        assert bundle_of(settings, last.date()).fingerprint == before.fingerprint
        assert bundle_of(settings, then).fingerprint != before.fingerprint

    def test_a_stale_store_is_refused_by_name_with_the_cure(self, market: Path) -> None:
        data("import", market, "--pair", "USDCLP")
        with pytest.raises(InputError, match=r"'usdclp_close' is stale.*forex data fetch --pair USDCLP"):
            bundle_of(load_settings(pair="USDCLP", source="store"))

    def test_a_required_series_that_is_missing_is_refused_by_name(self, market: Path) -> None:
        data("import", market, "--pair", "USDCLP")
        as_of = date.fromisoformat(pd.read_csv(market)["Date"].iloc[-1])
        settings = load_settings(pair="USDCLP", source="store", data={"required": ("copper", "vix")})
        with pytest.raises(InputError, match="required series 'vix' is missing"):
            bundle_of(settings, as_of)

    def test_a_file_and_the_embedded_rates_are_held_to_it_too_but_not_to_an_age(self, market: Path) -> None:
        def asked(source: str, pair: str, *required: str) -> MarketBundle:
            paths = {"paths": (market,)} if source == "csv" else {}
            return bundle_of(load_settings(pair=pair, source=source, data={"required": required}, **paths))

        assert "copper" in asked("csv", "USDCLP", "copper").driver_names, "a close of years ago"
        with pytest.raises(DataQualityError, match=r"required series 'vix' is missing; found fresh: copper"):
            asked("csv", "USDCLP", "copper", "vix")
        table = pd.read_csv(market)
        table.loc[600:, "Copper"] = np.nan
        table.to_csv(market, index=False)
        with pytest.raises(DataQualityError, match=r"required series 'copper' is stale.*--source"):
            asked("csv", "USDCLP", "copper")
        assert "dollar_index" in asked("ecb", "USDMXN", "dollar_index").driver_names
        with pytest.raises(DataQualityError, match="required series 'copper' is missing"):
            asked("ecb", "USDMXN", "copper")

    def test_an_empty_store_says_how_to_fill_it(self) -> None:
        with pytest.raises(InputError, match="forex data import FILE"):
            bundle_of(load_settings(pair="USDCLP", source="store"))


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_a_forecast_from_the_store_tells_its_fingerprint(forex: Forex, market: Path) -> None:
    light = {
        "FOREX_ENGINE__MEMBERS": '["random_walk", "theta", "drivers"]',
        "FOREX_ENGINE__GRID_ORIGINS": "60",
        "FOREX_ENGINE__WARMUP_ORIGINS": "8",
    }
    done = forex("data", "import", market, "--pair", "USDCLP")
    assert done.returncode == 0, done.stderr
    as_of = pd.read_csv(market)["Date"].iloc[-1]
    asked = ("forecast", "7d", "--pair", "USDCLP", "--source", "store", "--as-of", as_of, "--json")
    done = forex(*asked, **light)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    bundle = load_bundle(CsvProvider((market,)), USDCLP, date.fromisoformat(as_of))
    assert document["origin"] == bundle.origin.isoformat()
    assert len(document["fingerprint"]) == 64
    assert Path(document["report"]).is_file()
