"""`forex backup` as a user runs it, and docs/operations.md, whose commands are run."""

from __future__ import annotations

import json
import os
import re
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from forex_core.config import load_settings
from forex_core.tracking import tracker_from_settings
from forex_core.tracking.store import release

Forex = Callable[..., "subprocess.CompletedProcess[str]"]
PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")


@pytest.fixture
def data(sqlite_store: str, tmp_path: Path) -> Path:
    """A data folder with a run and its report."""
    (tmp_path / "report.html").write_text("<html>")
    with tracker_from_settings(load_settings(), "forecaster_7d") as tracker:
        tracker.log_artifact(tmp_path / "report.html", "reports")
    release(sqlite_store)
    return tmp_path / "data"


def document(forex: Forex, *arguments: str | Path) -> dict[str, Any]:
    done = forex("backup", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_create_list_verify_restore_and_prune(entry: Forex, data: Path, tmp_path: Path) -> None:
    made = document(entry, "create")
    assert Path(made["archive"]).parent == data / "backups"
    assert (made["counts"]["runs"], made["counts"]["artifacts"], made["missing"]) == (1, 1, [])
    assert made["bytes_new"] + made["bytes_reused"] == made["bytes"]
    listed = document(entry, "list")
    assert [one["archive"] for one in listed["archives"]] == [made["archive"]]
    assert listed["archives"][0]["data_dir"] == str(data)
    found = document(entry, "verify", made["archive"])
    assert found["counts"] == made["counts"]
    done = document(entry, "restore", made["archive"], "--to", tmp_path / "restored")
    assert (done["folder"], done["before"]) == (str(tmp_path / "restored"), [])
    with closing(sqlite3.connect(tmp_path / "restored" / "mlflow" / "mlflow.db")) as database:
        assert database.execute("SELECT count(*) FROM runs").fetchone() == (1,)
    pruned = document(entry, "prune")
    assert (pruned["kept"], pruned["removed"], pruned["dry_run"]) == ([made["archive"]], [], False)


def test_what_a_user_reads(entry: Forex, data: Path, tmp_path: Path) -> None:
    said = entry("backup", "create").stdout
    address = re.findall(r"Archive: (\S+)", said)[0]
    assert "1 runs, 0 models, 1 artifacts" in said
    assert address in entry("backup", "list").stdout.replace("\n", "")
    assert f"Verified: {address}" in entry("backup", "verify", "latest").stdout
    said = entry("backup", "restore", "latest").stdout
    assert f"Restored: {data}" in said
    assert re.search(rf"What was there is kept: {data}\.before-restore-\S+; remove it", said)
    assert "1 archives kept, 0 removed" in entry("backup", "prune").stdout


def test_errors_are_one_line_and_an_exit_code(entry: Forex, data: Path, tmp_path: Path) -> None:
    made = document(entry, "create")
    for arguments, code, words in (
        (("verify", "nonsense"), 2, "not the address of an archive"),
        (("restore", made["archive"], "--to", data), 2, "not empty"),
        (("create", "--to", "ftp://x"), 2, "no place for archives"),
        (("create", "--to", tmp_path / "report.html"), 1, "could not be made"),
        (("verify", str(tmp_path / "forex-x.jsonl.zst")), 1, "is not there"),
    ):
        done = entry("backup", *arguments)
        assert done.returncode == code, (arguments, done)
        assert words in " ".join(done.stderr.split())
        assert done.stderr.startswith("error: ")
        assert done.stdout == ""
    for path in (data / "backups" / "objects").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    done = entry("backup", "verify", "latest")
    assert (done.returncode, done.stdout) == (1, "")


def test_an_address_with_a_password_is_refused_and_the_password_told_to_nobody(
    entry: Forex, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = "s3://me:very-hidden@bucket/archives"
    archive = f"{place}/forex-20261128T123000.000000Z.jsonl.zst"
    commands = [
        ("create", "--to", place),
        ("list", "--at", place),
        ("prune", "--at", place),
        *((command, address) for command in ("verify", "restore") for address in (archive, f"{place}/other")),
    ]
    said = [entry("backup", *command) for command in commands]
    monkeypatch.setenv("FOREX_BACKUP__TO", place)
    said += [entry("backup", *command) for command in (("create",), ("verify", "latest"))]
    for done in said:
        assert (done.returncode, done.stdout) == (2, "")
        assert "s3://me:***@bucket/archives" in done.stderr.replace("\n", "")
        assert "very-hidden" not in done.stderr


def test_what_is_newly_missing_is_an_exit_code_once(entry: Forex, data: Path) -> None:
    entry("backup", "create")
    (data / "reports").mkdir()
    (data / "reports" / "link").symlink_to("/etc")
    done = entry("backup", "create", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["newly_missing"] == ["link: it is a link or no file"]
    assert "the archive was made, but 1 files are missing" in done.stderr.replace("\n", " ")
    assert entry("backup", "create").returncode == 0


def commands() -> list[list[str]]:
    """`forex …` lines of the page."""
    blocks = re.findall(r"```console\n(.*?)```", PAGE.partition("## Backup and restore")[2], re.DOTALL)
    lines = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    return [line[1:] for line in lines if line and line[0] == "forex" and line[1] == "backup"]


def without_rights(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`forex` by somebody who may write his own alone."""
    bare = ["setpriv", "--bounding-set=-all"] if os.geteuid() == 0 else []
    command = [*bare, sys.executable, "-m", "forex_core.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
def test_the_commands_of_the_page_run(entry: Forex, data: Path, tmp_path: Path) -> None:
    """By the user of the services, whose the folder above the data is not; what restores over the data by root."""
    assert len(commands()) >= 8
    for command in commands():
        arguments = [one.replace("/srv/forex", str(tmp_path)) for one in command]
        if "restore" in arguments and "--to" not in arguments:
            done = entry(*arguments)
        else:
            tmp_path.chmod(0o555)
            done = without_rights(*arguments)
            tmp_path.chmod(0o755)
        assert done.returncode == 0, (arguments, done.stderr)


def test_settings_of_the_page_are_settings() -> None:
    from forex_core.config import known_names

    for name in re.findall(r"FOREX_BACKUP__\w+", PAGE):
        assert name.removeprefix("FOREX_").lower().replace("__", ".") in known_names(), name


@pytest.mark.slow
def test_the_command_as_a_process(forex: Forex, data: Path) -> None:
    done = forex("backup", "create", "--json")
    assert done.returncode == 0, done.stderr
    assert forex("backup", "verify", json.loads(done.stdout)["archive"]).returncode == 0
