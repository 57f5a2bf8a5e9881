"""`forex evaluate --pairs`, run as a user runs it: one table, one document, and what happens when a pair fails."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

Forex = Callable[..., "subprocess.CompletedProcess[str]"]
LIGHT = {"FOREX_ENGINE__MEMBERS": '["random_walk", "theta", "drivers"]'}
WINDOW = ("--from", "2024-01-01")


def without_time(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name != "seconds"}


@pytest.mark.slow
def test_two_pairs_in_one_table(forex: Forex) -> None:
    done = forex("evaluate", "--pairs", "EURUSD,USDJPY", *WINDOW, **LIGHT)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    rows = re.findall(r"^ *(EURUSD|USDJPY|median|worst|pooled) +(\d+d) ", done.stdout, re.MULTILINE)
    block = ["EURUSD", "USDJPY", "median", "worst", "pooled"]
    assert rows == [(name, horizon) for horizon in ("7d", "30d") for name in block]


@pytest.mark.slow
def test_json_is_one_document_however_many_processes_work(forex: Forex) -> None:
    arguments = ("evaluate", "15d", "--pairs", "eur/usd,USDJPY,EURUSD", *WINDOW, "--every", "5", "--json")
    two = forex(*arguments, "--jobs", "2", **LIGHT)
    one = forex(*arguments, "--jobs", "1", FOREX_CACHE="false", **LIGHT)
    assert two.returncode == one.returncode == 0, two.stderr + one.stderr
    document = json.loads(two.stdout)
    assert {
        "source",
        "from",
        "to",
        "every",
        "horizons",
        "seconds",
        "summary",
        "failed",
        "evaluations",
    } == set(document)
    assert (document["from"], document["every"], document["horizons"]) == ("2024-01-01", 5, ["15d"])
    assert [e["pair"] for e in document["evaluations"]] == ["EURUSD", "USDJPY"]
    for evaluation in document["evaluations"]:
        assert evaluation["steps"] == 11
        assert evaluation["first_origin"] >= "2024-01-01"
        assert evaluation["outcomes"] <= 11 * evaluation["origins"]
        assert {"ensemble", "random_walk", "theta", "drivers"} == set(evaluation["models"])
    assert {"origins", "outcomes", "rmse_ratio_rw", "crps_ratio_rw", "coverage_80", "coverage_95"} == set(
        document["summary"]["15d"]
    )
    assert without_time(document) == without_time(json.loads(one.stdout))
    again = forex(*arguments, **LIGHT)
    assert without_time(json.loads(again.stdout)) == without_time(document), "kept answers are other answers"


@pytest.mark.slow
def test_a_pair_that_fails_costs_no_other_its_scores(forex: Forex) -> None:
    done = forex("evaluate", "7d", "--pairs", "EUREEK,EURUSD", *WINDOW, "--json", **LIGHT)
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert [e["pair"] for e in document["evaluations"]] == ["EURUSD"]
    assert "has not moved" in document["failed"]["EUREEK"]
    assert done.stderr == "error: 1 of 2 pairs could not be scored: EUREEK; the output says why\n"


WRONG = {
    "both": (["--pairs", "all", "--pair", "EURUSD"], "--pair EURUSD and --pairs all exclude each other"),
    "no currency": (["--pairs", "EURUSD,USDCLP"], "CLP of USDCLP is not among the ECB reference rates"),
    "no pair": (["--pairs", "EURUSD,"], "'' is not a currency pair"),
    "files": (
        ["--pairs", "all", "--path", "market.csv"],
        "--pairs reads source ecb and no files, found source csv",
    ),
    "horizon": (["8d", "--pairs", "all"], "'8d' is not a horizon"),
    "no horizon": (["--pair", "EURUSD"], "give one of 7d, 15d, 30d, 90d"),
    "jobs": (["7d", "--jobs", "2"], "--jobs 2 goes with --pairs"),
    "window": (["--pairs", "all", "--to", "2014-01-01"], "--from 2015-01-01 lies after --to 2014-01-01"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_use_is_one_clear_line_and_exit_code_2(
    kind: str, forex: Forex, entry: Forex, tmp_path: Path
) -> None:
    arguments, told = WRONG[kind]
    done = (forex if kind in ("both", "horizon") else entry)("evaluate", *arguments)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert told in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "data").exists()


# ---- processes that end too soon ---------------------------------------------------------------------------


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """The command on three pairs, and the two processes that work for it, both started."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("FOREX_", "PREFECT_", "MLFLOW_"))}
    forex = str(Path(sys.executable).parent / "forex")
    process = subprocess.Popen(
        [forex, "evaluate", "--pairs", "EURUSD,USDJPY,GBPUSD", "--jobs", "2"],
        cwd=tmp_path,
        env=kept | {"FOREX_DATA_DIR": str(tmp_path / "data")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # What a shell starts in the background ignores interrupts, and so does all that it starts.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    workers: list[psutil.Process] = []
    try:
        deadline = time.monotonic() + 200
        while len(workers) < 2 or any(worker.cpu_times().user < 2 for worker in workers):
            assert time.monotonic() < deadline, "no two processes were started"
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.1)
            family = psutil.Process(process.pid).children()
            workers = [child for child in family if "spawn_main" in " ".join(child.cmdline())]
        yield process, workers
    finally:
        process.kill()
        process.communicate()
        for worker in workers:
            if worker.is_running():
                worker.kill()


Running = tuple["subprocess.Popen[str]", list[psutil.Process]]


@pytest.mark.slow
def test_a_killed_process_is_said(running: Running) -> None:
    process, workers = running
    workers[0].kill()
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Not scored: GBPUSD (a process was killed, as when memory runs out" in output
    assert errors.startswith("error: 3 of 3 pairs could not be scored")


@pytest.mark.slow
def test_none_outlives_the_command(running: Running) -> None:
    process, workers = running
    process.kill()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert alive == []


@pytest.mark.slow
def test_an_interrupt_ends_all_at_once(running: Running) -> None:
    process, workers = running
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode not in (0, 2)
    assert output == ""
    assert "Traceback" not in errors
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert alive == []
