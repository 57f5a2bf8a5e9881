"""The command as a user runs it: bad input, help, and what stands on standard output."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from forex_core.testing import synthetic_table

Forex = Callable[..., "subprocess.CompletedProcess[str]"]


def market(folder: Path, rows: int = 900, **changes: object) -> Path:
    path = folder / "market.csv"
    synthetic_table(rows).assign(**changes).to_csv(path, index=False)
    return path


def broken(folder: Path, kind: str) -> list[str | Path]:
    """Arguments that hold one thing that is wrong."""
    good = market(folder)
    lines = good.read_text().splitlines()
    bad = folder / "bad.csv"
    match kind:
        case "missing file":
            return ["7d", "--path", folder / "absent.csv", "--pair", "USDCLP"]
        case "empty file":
            bad.write_text("")
        case "no date column":
            bad.write_text("\n".join(line.split(",", 1)[1] for line in lines))
        case "unknown pair":
            return ["7d", "--pair", "USD"]
        case "pair not in the source":
            return ["7d", "--path", good, "--pair", "EURNOK"]
        case "pair not in the embedded rates":
            return ["7d", "--pair", "USDCLP"]
        case "as-of before the data":
            return ["7d", "--path", good, "--pair", "USDCLP", "--as-of", "2001-01-01"]
        case "as-of long before the data":
            return ["7d", "--path", good, "--pair", "USDCLP", "--as-of", "1500-01-01"]
        case "as-of is no date":
            return ["7d", "--as-of", "yesterday"]
        case "as-of in the future":
            return ["7d", "--as-of", "2999-01-01"]
        case "horizon":
            return ["8d"]
        case "short history":
            bad.write_text("\n".join(lines[:31]))
        case "constant series":
            bad = market(folder, USDCLP=700.0)
        case "text in a price column":
            bad.write_text(
                "\n".join([*lines[:500], lines[500].replace(lines[500].split(",")[1], "abc"), *lines[501:]])
            )
        case "not UTF-8":
            bad.write_bytes("\n".join([lines[0].replace("Copper", "Cobreñ"), *lines[1:]]).encode("latin-1"))
        case "directory":
            return ["7d", "--path", folder, "--pair", "USDCLP"]
        case "unwritable output":
            return ["7d", "--output", good / "below-a-file"]
        case "files for a source without files":
            return ["7d", "--source", "ecb", "--path", good]
        case "budget rate of another unit":
            return ["7d", "--path", good, "--pair", "USDCLP", "--budget-rate", "0.0011"]
        case "quote of another unit":
            return ["7d", "--path", good, "--pair", "USDCLP", "--quote", "9.5"]
        case "cash flows without amounts":
            bad.write_text("date,sum\n2024-07-01,5\n")
            return ["7d", "--path", good, "--pair", "USDCLP", "--cash-flows", bad]
        case "cash flow outside the horizon":
            bad.write_text("date,amount\n2031-01-01,5\n")
            return ["7d", "--path", good, "--pair", "USDCLP", "--cash-flows", bad]
        case "budget rate with a comma":
            return ["7d", "--path", good, "--pair", "USDCLP", "--budget-rate", "930,5"]
        case "exposure with points between thousands":
            return ["7d", "--path", good, "--pair", "USDCLP", "--exposure", "2.000.000"]
        case "exposure beyond measure":
            return ["7d", "--path", good, "--pair", "USDCLP", "--exposure", "1e308"]
        case "budget rate below nothing":
            return ["7d", "--path", good, "--pair", "USDCLP", "--budget-rate", "-5"]
        case "language":
            return ["7d", "--path", good, "--pair", "USDCLP", "--lang", "fr"]
        case "unknown source":
            return ["7d", "--source", "bloomberg"]
    return ["7d", "--path", bad, "--pair", "USDCLP"]


KINDS = {
    "missing file": "no such file",
    "empty file": "is empty",
    "no date column": "no date column",
    "unknown pair": "not a currency pair",
    "pair not in the source": "no column for EURNOK",
    "pair not in the embedded rates": "not among the ECB reference rates",
    "as-of before the data": "lies before the data",
    "as-of long before the data": "lies before the data",
    "as-of is no date": "is not a date",
    "as-of in the future": "lies in the future",
    "horizon": "expected one of 7d, 15d, 30d, 90d",
    "short history": "30 rows of history",
    "constant series": "has not moved",
    "text in a price column": "line 501",
    "not UTF-8": "not UTF-8",
    "directory": "is a directory",
    "unwritable output": "cannot write into",
    "files for a source without files": "reads no files",
    "budget rate of another unit": "Expected CLP per USD",
    "quote of another unit": "the quote 9.5 is not within 20%",
    "cash flows without amounts": "no column 'amount'; found 'date', 'sum'",
    "cash flow outside the horizon": "the cash flow of 2031-01-01 lies outside the horizon",
    "budget rate with a comma": "--budget-rate '930,5' is not a number; expected digits with a decimal point",
    "exposure with points between thousands": "--exposure '2.000.000' is not a number",
    "exposure beyond measure": "the exposure is 1e+308, more than there is of any currency",
    "budget rate below nothing": "'treasury.budget_rate'",
    "language": "'lang'",
    "unknown source": "'source'",
}


BY_THE_INSTALLED_COMMAND = ("missing file", "horizon", "short history", "unwritable output")
"""One before, and some after, what a forecast needs is imported; the others are refused in the same places."""


@pytest.mark.parametrize("kind", KINDS)
def test_bad_input_is_one_clear_line_and_exit_code_2(
    kind: str, forex: Forex, entry: Forex, tmp_path: Path
) -> None:
    done = (forex if kind in BY_THE_INSTALLED_COMMAND else entry)("forecast", *broken(tmp_path, kind))
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert KINDS[kind] in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data" / "mlflow").exists(), "a run was recorded"


@pytest.mark.parametrize("source", ["store", "live", "auto"])
def test_files_beside_a_source_that_reads_none_are_refused(entry: Forex, source: str) -> None:
    done = entry("forecast", "7d", "--pair", "USDCLP", "--path", "market.csv", "--source", source)
    assert done.returncode == 2
    assert f"--source {source} reads no files" in done.stderr


def test_unknown_setting_names_the_nearest(forex: Forex, tmp_path: Path) -> None:
    done = forex("evaluate", "7d", FOREX_DATADIR="x")
    assert done.returncode == 2
    assert "did you mean FOREX_DATA_DIR" in done.stderr


@pytest.mark.parametrize("name", ["a#b", "a?b"])
def test_a_data_folder_that_no_database_address_can_hold_is_refused(
    name: str, forex: Forex, tmp_path: Path
) -> None:
    done = forex("forecast", "7d", FOREX_DATA_DIR=str(tmp_path / name))
    assert done.returncode == 2
    assert "data_dir" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["forecast", "evaluate"])
def test_help_is_complete(command: str, forex: Forex, tmp_path: Path) -> None:
    done = forex(command, "--help", COLUMNS="120")
    assert done.returncode == 0
    wanted = {
        "forecast": (
            "--pair",
            "--source",
            "--path",
            "--as-of",
            "--output",
            "--lang",
            "--pdf",
            "--skip-email",
            "--force",
            "--json",
        ),
        "evaluate": ("--from", "--to", "--every", "--pair", "--source", "--path", "--json"),
    }[command]
    assert all(option in done.stdout for option in wanted)
    assert f"forex {command} 7d" in done.stdout


@pytest.mark.slow
def test_evaluate_json_is_the_contract_and_alone_on_stdout(forex: Forex, tmp_path: Path) -> None:
    path = market(tmp_path, rows=1100)
    arguments = ("evaluate", "15d", "--path", path, "--pair", "USDCLP", "--from", "2017-06-01", "--json")
    done = forex(*arguments)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert {
        "pair",
        "horizon",
        "steps",
        "unit",
        "origins",
        "first_origin",
        "last_origin",
        "every",
        "seconds",
        "reference",
        "models",
    } <= set(document)
    assert document["steps"] == 11
    assert document["unit"] == "CLP per USD"
    assert document["first_origin"] >= "2017-06-01"
    fields = {
        "rmse",
        "mae",
        "mape_pct",
        "crps",
        "coverage_80",
        "coverage_95",
        "directional_accuracy",
        "rmse_ratio_rw",
        "crps_ratio_rw",
        "dm_stat",
        "dm_pvalue",
        "weight_mean",
        "failed_origins",
    }
    assert {"ensemble", "random_walk", "arima_garch", "gradient_boosting"} <= set(document["models"])
    assert all(fields <= set(scores) for scores in document["models"].values())
    walk = document["models"]["random_walk"]
    assert walk["rmse_ratio_rw"] == walk["crps_ratio_rw"] == 1.0
    assert walk["directional_accuracy"] is None
