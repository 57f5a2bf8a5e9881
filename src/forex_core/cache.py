"""The members' answers kept on disk, so that a run computes what is new and not hundreds of origins.

An answer hangs on nothing but the rows up to its origin, the columns that the member declares, its identity, the
code, the libraries and the processor. A hash over all of these is its key: whatever changes, the key is another
one and the member is asked. A revised observation thus changes the keys from its row on, and none before.

A file holds the answers of one member under one code to one pair, as records of fixed length that each carry their
key and a checksum. What is torn, altered or none of ours has no record that is both sound and asked for, so it is
as if it were not there; nothing is ever unpickled. A cache that cannot be written costs time, never a forecast.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import sys
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout
from loguru import logger

from forex_core.code import code_files
from forex_core.errors import MemberError
from forex_core.models.base import Answers, Forecaster, Levels, Rows
from forex_core.types import MarketBundle

MAX_ORIGINS = 1000
"""Origins that a file keeps."""

MAX_CLAIM = 700
"""Origins that one call may keep at the cost of others: a long evaluation leaves those of the daily run alone."""

MAX_BYTES = 512 * 2**20
"""Bytes that all files of a folder may take together."""

_COLUMNS = frozenset({"spot", "drivers"})
"""What a key can cover; a member that reads anything else is asked every time."""

_LONGEST_REASON = 512
_LOCK_SECONDS = 2.0
_STALE_SECONDS = 3600.0
_SUFFIX, _UNFINISHED = ".answers", ".tmp"

_PROCESSOR = ("vendor_id", "cpu family", "model", "flags", "features", "cpu implementer", "cpu part")
_DISPATCH = (
    "OPENBLAS_CORETYPE",
    "NPY_DISABLE_CPU_FEATURES",
    "NPY_ENABLE_CPU_FEATURES",
    "MKL_ENABLE_INSTRUCTIONS",
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "GLIBC_TUNABLES",
)
"""Variables by which a user chooses the kernels of numerical libraries, and with them the last bits."""

Records = npt.NDArray[np.void]


class AnswerCache:
    """Answers of members, by all that they hang on.

    Args:
        folder: where files go, one folder for each pair; made at the first write.
        versions: of the libraries that members compute with.
        max_bytes: of all files together; those whose use is longest ago are deleted.
    """

    def __init__(self, folder: Path, versions: Mapping[str, str], max_bytes: int = MAX_BYTES) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._surroundings = [MODEL_CODE, dict(versions), _machine()]
        self._writable = True

    def answers(
        self,
        member: Forecaster,
        bundle: MarketBundle,
        rows: Rows,
        steps: int,
        levels: Levels,
        ask: Callable[[Rows], Answers],
    ) -> Answers:
        """What `ask(rows)` would answer, to the bit: kept answers where there are any, the others asked and kept.

        Args:
            rows: [N] rows of the origins.
            ask: has `member` answer rows of `bundle` with a path of `steps` at `levels`.

        Raises:
            MemberError: when the member cannot answer, or answers in another shape than it was asked for.
        """
        if not self._can_keep(member):
            return ask(rows)
        origins, place = np.unique(rows, return_inverse=True)
        seed = self._seed(member, bundle, steps, levels)
        keys = _keys(seed, bundle, origins, "drivers" in member.columns)
        path, kind = self._path(member, bundle, seed), _kind(steps, len(levels))

        kept, at = _find(path, kind, keys)
        quantiles = np.empty((len(origins), steps, len(levels)))
        held = np.flatnonzero(at >= 0)
        quantiles[held] = kept["quantiles"][at[held]]
        reasons = {int(n): reason for n in held if (reason := _reason(kept[at[n]])) is not None}
        missing = np.flatnonzero(at < 0)
        if len(missing):
            fresh = ask(origins[missing])
            if fresh.quantiles.shape != (len(missing), steps, len(levels)):
                raise MemberError(
                    f"answered with quantiles of shape {fresh.quantiles.shape}, "
                    f"expected {(len(missing), steps, len(levels))}"
                )
            quantiles[missing] = fresh.quantiles
            reasons |= {int(missing[p]): reason for p, reason in fresh.reasons.items()}
            del kept  # as large as what is about to be read again
            new = _records(kind, keys, quantiles, reasons, missing)
            self._keep(path, kind, new, keys)
        else:
            with suppress(OSError):
                os.utime(path)  # its last use, by which files are deleted
        return Answers(
            quantiles[place], {n: reasons[int(p)] for n, p in enumerate(place) if int(p) in reasons}
        )

    def holds(self, member: Forecaster, bundle: MarketBundle, rows: Rows, steps: int, levels: Levels) -> bool:
        """Whether every answer at `rows` is kept, so that the member would not be asked."""
        if not self._can_keep(member):
            return False
        seed = self._seed(member, bundle, steps, levels)
        keys = _keys(seed, bundle, np.unique(rows), "drivers" in member.columns)
        _, at = _find(self._path(member, bundle, seed), _kind(steps, len(levels)), keys)
        return bool((at >= 0).all())

    def _can_keep(self, member: Forecaster) -> bool:
        return _COLUMNS.issuperset(member.columns) and _class_file(member) is not None

    def _path(self, member: Forecaster, bundle: MarketBundle, seed: bytes) -> Path:
        name = re.sub(r"\W", "_", member.name)
        return self.folder / bundle.pair.slug / f"{name}-{seed.hex()[:24]}{_SUFFIX}"

    def _seed(self, member: Forecaster, bundle: MarketBundle, steps: int, levels: Levels) -> bytes:
        """Everything but the rows that an answer hangs on."""
        told = [
            str(bundle.pair),
            [type(member).__module__, type(member).__qualname__, _class_file(member)],
            member.name,
            member.identity,
            # Not part of an identity, for it makes no other model, but it does make other bits.
            str(getattr(member, "computed_by", "")),
            sorted(member.columns),
            [bundle.driver_names, bundle.driver_units] if "drivers" in member.columns else [],
            steps,
            [float(level) for level in levels],
            self._surroundings,
        ]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).digest()

    def _keep(self, path: Path, kind: np.dtype[np.void], new: Records, asked: list[bytes]) -> None:
        """Write `new` into a file together with what it holds by now; without a lock, or on an error, not at all."""
        if not self._writable or not len(new):
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / ".lock", timeout=_LOCK_SECONDS):
                _replace(path, _merged(_read(path, kind)[0], new, asked))
                self._make_room()
        except Timeout:
            logger.debug("{} is being written by others; the new answers are not kept", self.folder)
        except (OSError, NotImplementedError) as error:  # the latter from a file system without locks
            self._writable = False
            logger.warning(
                "answers of members cannot be kept below {} ({}); every run will compute them again until that "
                "folder can be written",
                self.folder,
                getattr(error, "strerror", None) or error,
            )

    def _make_room(self) -> None:
        """Delete what others left unfinished, and the files whose use is longest ago, down to `max_bytes`."""
        now = time.time()
        found = []
        for path in self.folder.glob("*/*"):
            with suppress(OSError):  # deleted by others meanwhile
                state = path.stat()
                if path.suffix == _SUFFIX:
                    found.append((state.st_mtime, state.st_size, path))
                elif path.suffix == _UNFINISHED and now - state.st_mtime > _STALE_SECONDS:
                    path.unlink()
        total = 0
        for _, size, path in sorted(found, reverse=True):
            total += size
            if total > self.max_bytes:
                with suppress(OSError):
                    path.unlink()


def code_digest(package: Path) -> str:
    """sha256 of the code that answers hang on."""
    digest = hashlib.sha256()
    for path in code_files(package, "answers"):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(package).as_posix()}:{len(content)}:".encode() + content)
    return digest.hexdigest()


MODEL_CODE = code_digest(Path(__file__).parent)
"""Taken when this module is imported, as the models are: files may be replaced while a process runs."""


def _machine() -> list[str]:
    """Interpreter, C library and processor: numerical libraries choose their kernels by it."""
    libc = " ".join(platform.libc_ver())
    return [platform.python_version(), platform.machine(), sys.byteorder, libc, processor()]


def processor() -> str:
    """Maker, model and instruction sets, or its name where the system tells no more; and the variables of `_DISPATCH`.

    A line `name : value` for each.
    """
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
            first = takewhile(str.strip, lines)
            told = "".join(line for line in first if line.partition(":")[0].strip().lower() in _PROCESSOR)
    except OSError:
        told = f"processor : {platform.processor()}\n"
    return told + "".join(f"{name} : {os.environ[name]}\n" for name in _DISPATCH if name in os.environ)


def _class_file(member: Forecaster) -> str | None:
    """sha256 of the file that defines a member's class; None where there is none to tell a change by."""
    module = type(member).__module__
    if module.startswith("forex_core.models."):
        return ""  # part of MODEL_CODE
    file = getattr(sys.modules.get(module), "__file__", None)
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else None
    except OSError:
        return None


def _keys(seed: bytes, bundle: MarketBundle, origins: Rows, with_drivers: bool) -> list[bytes]:
    """Key of each of `origins`, ascending: sha256 of the seed and of all rows up to the origin."""
    upto = int(origins[-1]) + 1 if len(origins) else 0
    values = bundle.spot[:upto, None]
    if with_drivers:
        values = np.column_stack([values, bundle.drivers[:upto]])
    table = np.empty((upto, 2 + values.shape[1]), dtype="<i8")
    table[:, 0] = bundle.dates[:upto].to_numpy().astype("datetime64[D]").astype(np.int64)
    table[:, 1] = bundle.instants[:upto].as_unit("ns").asi8
    canonical = (np.where(np.isnan(values), np.nan, values) + 0.0).astype("<f8")  # as in the fingerprint
    table[:, 2:] = canonical.view("<i8")
    chain = hashlib.sha256(seed)
    keys, done = [], 0
    for row in origins:
        chain.update(table[done : row + 1].data)
        done = row + 1
        keys.append(chain.digest())
    return keys


def _kind(steps: int, levels: int) -> np.dtype[np.void]:
    """One answer as it lies in a file. `check` covers what follows it; `told` is -1 without a reason."""
    fields: list[Any] = [
        ("check", "<u4"),
        ("told", "<i4"),
        ("key", "u1", 32),
        ("reason", "u1", _LONGEST_REASON),
        ("quantiles", "<f8", (steps, levels)),
    ]
    return np.dtype(fields)


def _records(
    kind: np.dtype[np.void], keys: list[bytes], quantiles: Any, reasons: Mapping[int, str], new: Rows
) -> Records:
    """Records of the answers at positions `new`; those with a reason too long to be kept are left out."""
    texts = {int(n): reasons[int(n)].encode() for n in new if int(n) in reasons}
    new = np.array([n for n in new if len(texts.get(int(n), b"")) <= _LONGEST_REASON], dtype=np.int64)
    records = np.zeros(len(new), dtype=kind)
    records["told"] = -1
    records["quantiles"] = quantiles[new]
    for record, n in enumerate(new):
        records["key"][record] = np.frombuffer(keys[n], dtype=np.uint8)
        if (text := texts.get(int(n))) is not None:
            records["told"][record] = len(text)
            records["reason"][record, : len(text)] = np.frombuffer(text, dtype=np.uint8)
    records["check"] = _checksums(records, np.arange(len(records)))
    return records


def _find(path: Path, kind: np.dtype[np.void], keys: list[bytes]) -> tuple[Records, npt.NDArray[np.int64]]:
    """Records of a file, and where the answer to each key is among them; -1 where it is not, or is damaged."""
    records, fault = _read(path, kind)
    places = {key: n for n, key in enumerate(_keys_of(records))}
    at = np.array([places.get(key, -1) for key in keys], dtype=np.int64)
    held = np.flatnonzero(at >= 0)
    damaged = held[_checksums(records, at[held]) != records["check"][at[held]]]
    at[damaged] = -1
    if len(damaged):
        fault = f"{len(damaged)} of the answers asked for are damaged"
    if fault:
        logger.warning("kept answers in {}: {}; what cannot be used is computed again", path, fault)
    return records, at


def _read(path: Path, kind: np.dtype[np.void]) -> tuple[Records, str]:
    """The whole records of a file, sound or not, and what is wrong with it as a whole."""
    none = np.zeros(0, dtype=kind)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_ORIGINS * kind.itemsize:
                return none, f"{size} bytes are more than is ever written"
            records = np.fromfile(file, dtype=kind, count=size // kind.itemsize)
            return records, f"{size} bytes are no whole number of answers" if size % kind.itemsize else ""
    except FileNotFoundError:
        return none, ""
    except OSError as error:
        logger.debug("{} cannot be read: {}", path, error.strerror or error)
        return none, ""


def _merged(held: Records, new: Records, asked: list[bytes]) -> Records:
    """Sound records of both in the order in which they may stay.

    First those asked for, the latest row before all; then the others as they lay, which is by their last use; last
    what the call asks for beyond its claim.
    """
    held = held[_checksums(held, np.arange(len(held))) == held["check"]]
    records = np.concatenate([new, held])
    places: dict[bytes, int] = {}
    for n, key in enumerate(_keys_of(records)):
        places.setdefault(key, n)
    mine = [places.pop(key) for key in reversed(asked) if key in places]
    order = [*mine[:MAX_CLAIM], *places.values(), *mine[MAX_CLAIM:]]
    return np.asarray(records[order[:MAX_ORIGINS]])


def _replace(path: Path, records: Records) -> None:
    """Put a file in its place whole. Not flushed to the disk: what a power cut leaves is told by its checksums."""
    unfinished = path.with_name(f"{path.stem}-{uuid4().hex}{_UNFINISHED}")
    try:
        unfinished.write_bytes(records.view(np.uint8).data)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _checksums(records: Records, at: Rows) -> npt.NDArray[np.uint32]:
    content = np.ascontiguousarray(records).view(np.uint8).reshape(len(records), records.dtype.itemsize)
    return np.array([zlib.crc32(content[n, 4:].data) for n in at], dtype=np.uint32)


def _keys_of(records: Records) -> list[bytes]:
    flat = records["key"].tobytes()
    return [flat[n : n + 32] for n in range(0, len(flat), 32)]


def _reason(record: Any) -> str | None:
    told = int(record["told"])
    return None if told < 0 else record["reason"][:told].tobytes().decode()
