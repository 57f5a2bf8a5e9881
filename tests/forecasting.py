"""Forecasts in processes of their own, told of stage by stage: each can be held, and killed, where it is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import psutil

from forex_core.config import EngineConfig

STAGES = {
    "bundle loaded": "computing",
    "forecast computed": "beginning the run",
    "run begun": "registering the model",
    "model registered": "settling",
    "usdclp-7d: ": "writing the report",
    "report written": "logging",
    "run logged": "ending",
}
"""What the log says as a stage begins. Before the first nothing is written; the last goes on to the exit."""
EXIT = "exit"
OURS = ("FOREX_", "MLFLOW_", "AWS_")
ROOT = Path(__file__).parents[1]

LIGHT = EngineConfig(members=("random_walk", "drivers"), min_members=1, grid_origins=60, warmup_origins=8)


@dataclass(frozen=True)
class Ended:
    """The state in which a flow ended, and the document that it returned, if any."""

    name: str
    message: str
    document: Any = field(repr=False)


class Forecast:
    """One process. What it says has to be read to its end before the next one is started."""

    def __init__(self, said: Iterator[str]) -> None:
        self._said = said
        self.number = int(next(said).strip().partition("=")[2])
        self.exit_code: int | None = None
        self.result: Ended | None = None

    def stages(self) -> Iterator[tuple[str, float]]:
        """What is left of its stages as they begin, with their instants, and its exit."""
        for line in self._said:
            stage, _, rest = line.strip().partition("=")
            if stage == "ended":
                self.result = Ended(**json.loads(rest))
                continue
            at, _, code = rest.partition("=")
            if code:
                self.exit_code = int(code)
            yield stage, float(at)
            if code:
                return

    @contextmanager
    def held_at(self, stage: str) -> Iterator[None]:
        """While it holds at the stage that it was started to hold at."""
        assert stage in (found for found, _ in self.stages()), f"it ended before '{stage}': {self.result}"
        while psutil.Process(self.number).status() != psutil.STATUS_STOPPED:
            time.sleep(0.005)
        try:
            yield
        finally:
            os.kill(self.number, signal.SIGCONT)

    def kill(self) -> None:
        """Kill it and all that it started, if it is still there."""
        with suppress(ProcessLookupError):
            os.killpg(self.number, signal.SIGKILL)

    def ended(self) -> Ended:
        """How it ends, by itself."""
        for _ in self.stages():
            pass
        assert self.exit_code == 0
        assert self.result is not None
        return self.result


class Forecasters:
    """Starts forecasts of USD/CLP for 7 days, with the settings and in the folder of this process at the time.

    Each is a fork of one process that has imported everything, which takes longer than a forecast.

    Args:
        draws: charts are drawn for each; else they are drawn once, as `keep_pictures` has it.
    """

    def __init__(self, *, draws: bool) -> None:
        self._errors = TemporaryFile("w+")  # noqa: SIM115, closed in `close`
        self._parent = subprocess.Popen(
            [sys.executable, __file__, "draws" if draws else "keeps"],
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def start(self, hold: str | None = None, **parameters: Any) -> Forecast:
        """A forecast with parameters of the flow; it stops itself at the stage `hold`."""
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        asked: Mapping[str, Any] = {
            "parameters": parameters,
            "hold": hold,
            "folder": str(Path.cwd()),
            "environment": {name: value for name, value in os.environ.items() if name.startswith(OURS)},
        }
        print(json.dumps(asked, default=str), file=self._parent.stdin, flush=True)
        return Forecast(self._parent.stdout)

    def close(self) -> None:
        with self._parent, self._errors:
            self._parent.kill()


def keep_pictures(kept: dict[tuple[str, ...], dict[str, Any]]) -> Callable[[], None]:
    """Have the renderer draw charts once for every set of names, and its pictures given out again for others.

    A process that draws takes more than a second, as much as the rest of a forecast.

    Args:
        kept: what was drawn before, by names.

    Returns:
        What ends it.
    """
    from forex_core.report import drawing

    renderer = drawing._ask

    def ask(request: Mapping[str, Any]) -> dict[str, Any]:
        names = (*request["specs"], str(request["script"]))
        if names not in kept:
            kept[names] = renderer(request)
        return kept[names]

    def end() -> None:
        drawing._ask = renderer

    drawing._ask = ask
    return end


# --- The process of which all are forks


def _serve(draws: bool) -> None:
    from loguru import logger

    logger.remove()
    _import_everything(draws)
    assert threading.active_count() == 1, "a fork has no other"
    for line in sys.stdin:
        number = os.fork()
        if number == 0:
            os.setsid()
            _say("of", os.getpid())
            _forecast(json.loads(line))
            sys.exit()
        _, status = os.waitpid(number, 0)
        _say(EXIT, time.monotonic(), os.waitstatus_to_exitcode(status))


def _import_everything(draws: bool) -> None:
    from flows import forecast
    from forex_core.config import ChronosConfig
    from forex_core.engine import Engine, build_members
    from forex_core.report.charts import draw_charts
    from forex_core.testing import bundle_of, synthetic_table
    from forex_core.tracking.packaging import import_mlflow
    from forex_core.types import Horizon

    assert forecast.FLOWS
    import_mlflow()
    engine, table = Engine(LIGHT, build_members(LIGHT, ChronosConfig())), synthetic_table(900)
    if not draws:
        keep_pictures({})
    for columns in (list(table), ["Date", "USDCLP"]):
        bundle = bundle_of(table[columns])
        engine.prepare(bundle)
        draw_charts(engine.forecast(bundle, Horizon(7)), bundle)


def _forecast(asked: Mapping[str, Any]) -> None:
    from loguru import logger

    from flows.forecast import forecast_7d

    os.chdir(asked["folder"])
    for name in [name for name in os.environ if name.startswith(OURS)]:
        del os.environ[name]
    os.environ |= asked["environment"]

    def tell(message: Any) -> None:
        for stage in STAGES:
            if message.record["message"].startswith(stage):
                _say(stage, time.monotonic())
                if stage == asked["hold"]:
                    os.kill(os.getpid(), signal.SIGSTOP)

    logger.add(tell)
    state = forecast_7d(pair="USDCLP", **asked["parameters"], return_state=True)
    document = state.result(raise_on_failure=False)
    told = {"name": state.name, "message": state.message or "", "document": document}
    _say("ended", json.dumps(told, default=lambda _: None))


def _say(*words: object) -> None:
    print(*words, sep="=", flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1] == "draws")
