"""Services of deployments as processes of this machine: which runs, and of which data folder."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from dotenv import dotenv_values

from forex_core.secrecy import without_password

SERVICES = {
    "Prefect server": re.compile(
        r"prefect(\.cli)? server start|prefect\.server\.api\.server|flows/server\.py"
    ),
    "Prefect worker": re.compile(r"prefect(\.cli)? worker start"),
    "flow run": re.compile(r"prefect\.(flow_engine|engine)|prefect(\.cli)? flow-run execute"),
    "MLflow": re.compile(r"mlflow(\.server\S*)?( \S+)* (server|ui)\b|mlflow\.server|forex(_core\.cli)? ui\b"),
    "dashboard": re.compile(r"forex(_core\.cli)? dashboard\b.* --serve\b"),
}
"""Services, by the command lines of their processes."""
_PROCESSES = Path("/proc")
_MASKED = re.compile(r"[\w+.-]+://\S+")


def service_of(command: str) -> str | None:
    """The service whose process has this command line."""
    return next((name for name, pattern in SERVICES.items() if pattern.search(command)), None)


def processes_using(folder: Path) -> list[tuple[int, str]]:
    """Other processes with files open below a folder: number and command line, as far as this user may see."""
    found = []
    for process in _PROCESSES.glob("[0-9]*"):
        if int(process.name) == os.getpid():
            continue
        with suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                with suppress(OSError):
                    if descriptor.readlink().is_relative_to(folder):
                        found.append((int(process.name), _command(process)))
                        break
    return found


def idle_users(folder: Path) -> Iterator[tuple[int, str]]:
    """Processes that will write or read a data folder though they may have no file of it open: number, command line.

    Not Prefect's server, which has a database of its own; nor those that this process was started by, or that this user
    may not look into.

    Args:
        folder: without links.
    """
    above, named = set(_ancestors()), re.compile(rf"{re.escape(str(folder))}(?![\w.-])")
    for process in _PROCESSES.glob("[0-9]*"):
        if int(process.name) in above:
            continue
        with suppress(OSError):
            command = _command(process)
            if service_of(command) in (None, "Prefect server"):
                continue
            if named.search(command) or _data_folder(process) == folder:
                yield int(process.name), command


def _command(process: Path) -> str:
    """Its command line, in which addresses have no passwords."""
    words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
    return " ".join(_MASKED.sub(lambda found: without_password(found[0]), word) for word in words).strip()


def _ancestors() -> Iterator[int]:
    number = os.getpid()
    with suppress(OSError):
        while number > 1:
            yield number
            status = (_PROCESSES / str(number) / "stat").read_text(encoding="utf-8", errors="replace")
            number = int(status.rpartition(")")[2].split()[1])


def _data_folder(process: Path) -> Path:
    """The data folder that the settings of a process name, as `config` reads them."""
    working = (process / "cwd").readlink()
    lines = (process / "environ").read_bytes().decode(errors="replace").split("\0")
    given = {name.upper(): value for name, _, value in (line.partition("=") for line in lines)}
    named = given.get("FOREX_DATA_DIR")
    if named is None and (working / ".env").is_file():
        named = dotenv_values(working / ".env").get("FOREX_DATA_DIR")
    if named is None and (working / "forex.toml").is_file():
        with suppress(tomllib.TOMLDecodeError, UnicodeDecodeError):
            named = tomllib.loads((working / "forex.toml").read_text(encoding="utf-8")).get("data_dir")
    return Path(os.path.realpath(working / Path(str(named or "data")).expanduser()))
