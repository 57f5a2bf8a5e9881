"""Checks of the machine: settings and libraries, rights, disk, clock, memory of the services."""

from __future__ import annotations

import errno
import glob
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from forex_core.calendars import desk_zone
from forex_core.doctor.base import Finding, Patient
from forex_core.secrecy import gives_secret
from forex_core.services import service_of
from forex_core.types import Pair

DISTRIBUTION = "forex-forecast"
FREE_FAILED_BYTES, FREE_WARNING_BYTES = 500_000_000, 2_000_000_000
FREE_WARNING_SHARE = 0.05
SKEW_WARNING_S = 2.0
SERVICES_WARNING_BYTES = 1_200_000_000
"""What the services of a small server are allowed together."""
SECRET_FILES = (".env", "forex.toml")


def settings(patient: Patient) -> Finding:
    """The settings could be read, or nothing of this would be made."""
    chosen = patient.settings
    pair = Pair.parse(chosen.pair)
    missing = [str(path) for path in chosen.paths if not path.is_file()]
    if missing:
        several = """; several are a JSON list, such as ["a.csv", "b.csv"]""" if "," in missing[0] else ""
        todo = f"put it there, or change FOREX_PATHS{several}"
        return Finding("failed", f"there is no file {missing[0]} (paths)", todo)
    where = ", ".join(["the environment", *(name for name in SECRET_FILES if Path(name).is_file())])
    return Finding(
        "ok",
        f"{pair} from {chosen.source}, environment {chosen.environment}, data in {chosen.root}; from {where}",
    )


def libraries(patient: Patient) -> Finding:
    """The versions that are installed are those that were tried together."""
    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(line) for line in requires(DISTRIBUTION) or []]
    except PackageNotFoundError:
        return Finding("skipped", f"{DISTRIBUTION} is not installed as a package")
    wrong = []
    for one in wanted:
        if one.marker is not None and not one.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(one.name)
        except PackageNotFoundError:
            wrong.append(f"{one} is not installed")
            continue
        if not one.specifier.contains(found, prereleases=True):
            wrong.append(f"{one.name} is {found}, expected {one.specifier}")
    if wrong:
        return Finding(
            "failed", "; ".join(wrong), "install again with the constraints: pip install -c constraints.txt ."
        )
    return Finding("ok", f"{len(wanted)} requirements hold")


def permissions(patient: Patient) -> Finding:
    """The data folder can be written, and nobody else reads a file with secrets."""
    root = patient.settings.root
    if not root.exists():
        above = next(folder for folder in root.parents if folder.exists())
        if not _can_be_written(above):
            return Finding("failed", f"{root} is not there and {above} cannot be written", _chown(above))
    for folder in _folders(root):
        if not _can_be_written(folder):
            return Finding("failed", f"{folder} cannot be written", _chown(folder))
    for database in root.glob("*/*.db"):
        if not os.access(database, os.R_OK | os.W_OK):
            return Finding("failed", f"{database} cannot be written", _chown(database))
    if root.exists() and root.stat().st_mode & 0o002:
        return Finding("failed", f"everybody may write into {root}", f"chmod o-w {root}")
    open_to_others = [path for path in map(Path, SECRET_FILES) if _is_told_to_others(path, patient)]
    if open_to_others:
        path = open_to_others[0].absolute()
        mode = path.stat().st_mode & 0o777
        return Finding(
            "failed", f"{path} holds secrets and has mode {mode:o}, expected 600", f"chmod 600 {path}"
        )
    return Finding(
        "ok", f"{root} {'can be written' if root.exists() else 'is not there yet and can be made'}"
    )


def _folders(root: Path) -> Iterator[Path]:
    if root.exists():
        yield root
        yield from (folder for folder in sorted(root.iterdir()) if folder.is_dir())


def _can_be_written(folder: Path) -> bool:
    """Whether this user may write there; where there is no room is another matter."""
    return _refusal(folder) in (None, errno.ENOSPC, errno.EDQUOT)


def _refusal(folder: Path) -> int | None:
    """Number of the error with which a file in a folder is refused."""
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"0")
    except OSError as error:
        return error.errno
    return None


def _chown(place: Path) -> str:
    return (
        f"give it to the user that runs this (chown -R {os.geteuid()} {place}), "
        "and see that it is not mounted read-only"
    )


def _is_told_to_others(path: Path, patient: Patient) -> bool:
    try:
        if not path.stat().st_mode & 0o077:
            return False
        text = path.read_text("utf-8", errors="replace")
    except OSError:
        return False
    return gives_secret(text) or any(secret in text for secret in patient.settings.secrets)


def disk(patient: Patient) -> Finding:
    """There is room where the system writes, and where its archives are when that is another disk."""
    chosen = patient.settings
    place = _nearest(chosen.root)
    told, left = "", sorted(chosen.root.parent.glob(f".{glob.escape(chosen.root.name)}.restoring-*"))
    if left:
        told = f"; {left[0]} is of a restore that goes on or was killed, and the next one takes it away"
    found = _room(
        place, told, f"make room; {chosen.cache_dir} may go at any time, at the price of computing it again"
    )
    archives = _nearest(Path(chosen.backup.to or chosen.backups_dir).expanduser().absolute())
    if "://" in (chosen.backup.to or "") or archives.stat().st_dev == place.stat().st_dev:
        return found
    theirs = _room(
        archives,
        ", where the archives are",
        "make room; forex backup prune removes what the settings do not keep (FOREX_BACKUP__KEEP_DAILY and others)",
    )
    first, second = sorted((found, theirs), key=lambda one: _WORST_FIRST.index(one.state))
    return Finding(first.state, f"{first.found}; {second.found}", first.todo)


_WORST_FIRST = ("failed", "warning", "ok")


def _room(place: Path, more: str, todo: str) -> Finding:
    usage, state = shutil.disk_usage(place), os.statvfs(place)
    told = f"{usage.free / 1e9:.1f} GB of {usage.total / 1e9:.1f} GB free at {place}{more}"
    if usage.free < FREE_FAILED_BYTES or (state.f_files and not state.f_favail):
        return Finding("failed", told if state.f_favail else f"{told}, and no inodes", todo)
    if usage.free < max(FREE_WARNING_BYTES, FREE_WARNING_SHARE * usage.total):
        return Finding("warning", told, todo)
    if state.f_files and state.f_favail < FREE_WARNING_SHARE * state.f_files:
        return Finding("warning", f"{told}, {state.f_favail} of {state.f_files} inodes free", todo)
    return Finding("ok", told)


def _nearest(path: Path) -> Path:
    return path if path.exists() else next(folder for folder in path.parents if folder.exists())


def clock(patient: Patient) -> Finding:
    """The clock agrees with that of the disk, has not gone back, and the time zones are known."""
    set_it = "set the clock, and keep it right: timedatectl set-ntp true"
    place = _nearest(patient.settings.root)
    with tempfile.TemporaryFile(dir=patient.scratch if _refusal(place) else place) as probe:
        before = time.time()
        probe.write(b"0")
        probe.flush()
        skew = os.fstat(probe.fileno()).st_mtime - before
    written = [(path.stat().st_mtime, path) for path in patient.settings.root.glob("*/*.db*")]
    newest = max(written, default=(0.0, Path()))
    if newest[0] > time.time() + SKEW_WARNING_S:
        ahead = newest[0] - time.time()
        return Finding(
            "failed", f"{newest[1]} was written {ahead:.0f} s from now: the clock has gone back", set_it
        )
    zone = desk_zone(Pair.parse(patient.settings.pair))
    try:
        # Chile is south: the sun of January, an hour more.
        offsets = [
            ZoneInfo("America/Santiago").utcoffset(datetime(2024, month, 15)).total_seconds() / 3600  # type: ignore[union-attr]
            for month in (1, 7)
        ]
    except ZoneInfoNotFoundError as error:
        return Finding("failed", f"there is no time zone data: {error}", "pip install tzdata")
    if offsets != [-3, -4]:
        return Finding(
            "failed",
            f"America/Santiago is {offsets} hours from UTC, expected [-3, -4]",
            "pip install -U tzdata",
        )
    now = datetime.now(UTC)
    told = f"{now:%Y-%m-%d %H:%M:%S} UTC, {now.astimezone(zone):%H:%M} in {zone.key}"
    if abs(skew) > SKEW_WARNING_S:
        return Finding("warning", f"{told}; the disk's clock differs by {skew:.1f} s", set_it)
    return Finding("ok", told)


def services(patient: Patient) -> Finding:
    """What the services take of the memory, where they run."""
    import psutil

    memory: dict[str, int] = {}
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        name = service_of(line)
        if name is None:
            continue
        try:
            memory[name] = memory.get(name, 0) + _own_memory(process)
        except psutil.Error:  # it has ended, or is somebody else's
            continue
    if not memory:
        return Finding("skipped", "none runs on this machine")
    whole = sum(memory.values())
    told = ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in sorted(memory.items()))
    told = f"{told}: {whole / 1e6:.0f} MB together"
    if whole > SERVICES_WARNING_BYTES:
        limit = SERVICES_WARNING_BYTES / 1e6
        return Finding(
            "warning",
            f"{told}, expected {limit:.0f} MB at most",
            "end what is not needed, such as MLflow's pages and the dashboard",
        )
    return Finding("ok", told)


def _own_memory(process: object) -> int:
    """Bytes of a process, with its part of what it shares where the kernel tells it."""
    import psutil

    assert isinstance(process, psutil.Process)
    try:
        return int(process.memory_full_info().pss)
    except (AttributeError, psutil.AccessDenied):
        return int(process.memory_info().rss)
