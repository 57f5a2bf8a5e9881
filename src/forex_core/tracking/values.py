"""What MLflow would refuse, made acceptable and said: nested and odd values, keys, lengths, numbers that are none.

Limits of MLflow 3.17 (mlflow.utils.validation): keys of 250 characters out of letters, digits and `_ - . / : space`
that are a normal relative path; params of 6000 characters, tags of 8000; per request 100 params, 100 tags, 1000
entries and one megabyte.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import numbers
import posixpath
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from datetime import time as clock_time
from decimal import Decimal
from enum import Enum
from typing import Any

MAX_KEY = 250
MAX_PARAM = 6000
MAX_TAG = 8000
BATCH_PARAMS = BATCH_TAGS = 100
BATCH_ENTRIES = 1000
BATCH_BYTES = 900_000
CUT_FOLDER = "cut"
"""Artifact folder of texts that were too long for a param or a tag."""
NOT_FINITE_TAG = "metrics_not_finite"
"""JSON by metric of the values that are not sent, with how many there were and at which steps."""

_ILLEGAL = re.compile(r"[^\w./:\- ]")
_SUFFIX = 9
_MAX_FILE_NAME = 150
_DECIMAL_BITS = 2000


@dataclass(frozen=True)
class Point:
    """One value of a metric; `timestamp` in milliseconds since 1970."""

    key: str
    value: float
    timestamp: int
    step: int = 0


@dataclass(frozen=True)
class Batch:
    """Entries as a store takes them; `texts` are the whole texts of those that were cut, by artifact path."""

    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Sequence[Point] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.params or self.metrics or self.tags)


@dataclass(frozen=True)
class _Unsent:
    """How often a metric was the same infinity or NaN, and the lowest and highest step of these.

    >>> str(_Unsent(1, 0, 0)), str(_Unsent(1, 2, 2)), str(_Unsent(3, 0, 4))
    ('', ' at step 2', ' 3 times, at steps 0 to 4')
    """

    count: int
    first: int
    last: int

    def with_step(self, step: int) -> _Unsent:
        return _Unsent(self.count + 1, min(self.first, step), max(self.last, step))

    def __str__(self) -> str:
        if self.count == 1 and not self.first:
            return ""
        steps = f"step {self.first}" if self.first == self.last else f"steps {self.first} to {self.last}"
        return f" {self.count} times, at {steps}" if self.count > 1 else f" at {steps}"


class Preparation:
    """Makes the entries of one run acceptable. It remembers which legal key stands for which given one.

    `notes` collects what was changed or left out, for the log.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._legal: dict[str, dict[str, str]] = {"param": {}, "metric": {}, "tag": {}}
        self._not_finite: dict[str, dict[str, _Unsent]] = {}

    def batch(
        self,
        params: Mapping[Any, Any] | None = None,
        metrics: Mapping[Any, Any] | None = None,
        tags: Mapping[Any, Any] | None = None,
        *,
        step: int | None = None,
        stepped: Mapping[str, Mapping[int, Any]] | None = None,
    ) -> Batch:
        """Entries ready for a store.

        Args:
            params: may be nested; inner names are joined with dots.
            metrics: real numbers; anything else is left out and noted.
            tags: values of any type.
            step: of all `metrics`; 0 by default. With one that is no whole number of 64 bits they are left out.
            stepped: values by metric and step.

        Raises:
            ValueError: when two params of one name differ, such as {"a": {"b": 1}, "a.b": 2}.
        """
        now = int(time.time() * 1000)
        texts: dict[str, str] = {}
        flat = _flat_params(params or {})
        self._reserve("param", flat)
        ready_params = {
            (key := self._key("param", name)): self._cut("param", key, text, MAX_PARAM, texts)
            for name, text in flat.items()
        }
        points = self._points(metrics or {}, stepped or {}, 0 if step is None else step, now)
        ready_tags = {}
        plain_tags = {str(name): as_text(value) for name, value in (tags or {}).items()}
        self._reserve("tag", plain_tags)
        for name, text in plain_tags.items():
            key = self._key("tag", name)
            ready_tags[key] = self._cut("tag", key, text, MAX_TAG, texts)
        if self._not_finite and any(not math.isfinite(p.value) for p in points):
            counted = {
                key: "; ".join(f"{value}{unsent}" for value, unsent in found.items())
                for key, found in self._not_finite.items()
            }
            told = json.dumps(counted)
            ready_tags[NOT_FINITE_TAG] = self._cut("tag", NOT_FINITE_TAG, told, MAX_TAG, texts)
        finite = tuple(p for p in points if math.isfinite(p.value))
        return Batch(ready_params, finite, ready_tags, texts)

    def take_notes(self) -> list[str]:
        """The notes since the last call."""
        notes, self.notes = self.notes, []
        return notes

    def _points(
        self, metrics: Mapping[Any, Any], stepped: Mapping[str, Mapping[int, Any]], step: Any, now: int
    ) -> list[Point]:
        self._reserve("metric", [str(name) for name in (*metrics, *stepped)])
        given = [(str(name), value, step) for name, value in metrics.items()]
        for name, values in stepped.items():
            given += [(str(name), value, number) for number, value in values.items()]
        points = []
        for name, value, at in given:
            number, whole = as_number(value), _as_step(at)
            if number is None:
                self.notes.append(f"metric {name} left out: found {_kind(value)}, expected a number")
                continue
            if whole is None:
                self.notes.append(
                    f"metric {name} left out: found {_kind(at)} as its step, expected a whole number of 64 bits"
                )
                continue
            key = self._key("metric", name)
            if not math.isfinite(number):
                self._leave_out(key, str(number), whole)
            points.append(Point(key, number, now, whole))
        return points

    def _leave_out(self, key: str, value: str, step: int) -> None:
        """Count a value in the tag, which stays small however many steps there are; the first one is noted."""
        found = self._not_finite.setdefault(key, {})
        if value in found:
            found[value] = found[value].with_step(step)
        else:
            found[value] = _Unsent(1, step, step)
            self.notes.append(
                f"metric {key}{' at step ' + str(step) if step else ''} is {value}: not sent; the tag "
                f"{NOT_FINITE_TAG} counts this one and those that follow"
            )

    def _reserve(self, kind: str, names: Iterable[str]) -> None:
        """Names that need no change keep them, whatever the others of the call turn into."""
        table = self._legal[kind]
        for name in names:
            if name not in table and _lawful(name) == name and name not in table.values():
                table[name] = name

    def _key(self, kind: str, name: str) -> str:
        table = self._legal[kind]
        if name not in table:
            key = _lawful(name)
            if key in table.values():
                key = _marked(key, name, MAX_KEY)
            table[name] = key
            self.notes.append(f"{kind} {short(name)!r} is logged as {short(key)!r}, which MLflow takes")
        return table[name]

    def _cut(self, kind: str, key: str, text: str, limit: int, texts: dict[str, str]) -> str:
        clean = text.replace("\x00", "\N{REPLACEMENT CHARACTER}")
        clean = clean.encode("utf-8", "replace").decode("utf-8")
        if clean != text:
            self.notes.append(f"{kind} {key}: characters that no database takes were replaced")
        if len(clean) <= limit:
            return clean
        path = f"{CUT_FOLDER}/{kind}s/{_file_name(key)}.txt"
        texts[path] = clean
        digest = hashlib.sha256(clean.encode()).hexdigest()[:12]  # tells apart what differs past the cut
        note = f" … [cut: {len(clean)} characters, sha256 {digest}…, all of them in {path}]"
        self.notes.append(
            f"{kind} {key} has {len(clean)} characters, of which MLflow takes {limit}; see {path}"
        )
        return clean[: limit - len(note)] + note


def requests(batch: Batch) -> Iterator[Batch]:
    """The batch in pieces that MLflow takes in one request each; params come first.

    >>> [len(r.params) for r in requests(Batch(params={str(n): "" for n in range(250)}))]
    [100, 100, 50]
    """
    params, tags, metrics = list(batch.params.items()), list(batch.tags.items()), list(batch.metrics)
    while params or tags or metrics:
        size = 0

        def fits(count: int, key: str, value: str = "") -> bool:
            nonlocal size
            size += len(key.encode()) + len(value.encode()) + 100
            return not count or size <= BATCH_BYTES

        taken_params: dict[str, str] = {}
        while params and len(taken_params) < BATCH_PARAMS and fits(len(taken_params), *params[0]):
            taken_params.update([params.pop(0)])
        taken_tags: dict[str, str] = {}
        filled = len(taken_params)
        while tags and len(taken_tags) < BATCH_TAGS and fits(filled + len(taken_tags), *tags[0]):
            taken_tags.update([tags.pop(0)])
        room = BATCH_ENTRIES - filled - len(taken_tags)
        taken_metrics, metrics = metrics[:room], metrics[room:]
        yield Batch(taken_params, tuple(taken_metrics), taken_tags)


def as_number(value: Any) -> float | None:
    """The value as a float; None for what is no real number, booleans among it.

    >>> as_number(3), as_number(True), as_number("3"), as_number(10**400), as_number(Decimal("sNaN"))
    (3.0, None, None, inf, nan)
    """
    value = _plain(value)
    if isinstance(value, bool) or not isinstance(value, (numbers.Real, Decimal)):
        return None
    try:
        return float(value)
    except OverflowError:  # an integer or a fraction past the largest float
        return -math.inf if value < 0 else math.inf
    except ValueError:  # a signalling NaN
        return math.nan


def _as_step(value: Any) -> int | None:
    """The value as a step of a metric, which databases keep in 64 bits; None for what is none.

    >>> _as_step(3.0), _as_step(2.5), _as_step("3"), _as_step(2**63 - 1), _as_step(2**63)
    (3, None, None, 9223372036854775807, None)
    """
    number = as_number(value)
    if number is None or not number.is_integer():
        return None
    step = int(_plain(value))  # a float does not tell the largest steps apart
    return step if -(2**63) <= step < 2**63 else None


def as_text(value: Any) -> str:
    """A value as a param or a tag shows it: sequences and mappings as JSON, the rest as people write it.

    >>> as_text([1, (2, "x")]), as_text(None), as_text(date(2026, 1, 2)), as_text(True)
    ('[1, [2, "x"]]', 'None', '2026-01-02', 'True')
    """
    value = _plain(value)
    if isinstance(value, (Mapping, list, tuple, set, frozenset)):
        return json.dumps(_jsonable(value), ensure_ascii=False)
    if isinstance(value, (date, clock_time)):
        return value.isoformat()
    return hex(value) if _is_long(value) else str(value)


def _flat_params(params: Mapping[Any, Any], prefix: str = "") -> dict[str, str]:
    """Texts by dotted name.

    >>> _flat_params({"a": {"b": 1, "c": {}}, "d": (1, 2)})
    {'a.b': '1', 'a.c': '{}', 'd': '[1, 2]'}
    """
    flat: dict[str, str] = {}
    for name, value in params.items():
        dotted = f"{prefix}{name}"
        value = _plain(value)
        nested = isinstance(value, Mapping) and value
        inner = _flat_params(value, f"{dotted}.") if nested else {dotted: as_text(value)}
        for key, text in inner.items():
            if flat.setdefault(key, text) != text:
                raise ValueError(
                    f"param {key} is given twice, as {short(flat[key])!r} and as {short(text)!r}"
                )
    return flat


def _plain(value: Any) -> Any:
    """Scalars of numpy as Python's, enumerations as their values, dataclasses and pydantic models as mappings."""
    if isinstance(value, type):  # it has its instances' methods, which cannot be called on it
        return value
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if hasattr(value, "model_dump"):
        return value.model_dump()
    if hasattr(value, "item") and hasattr(value, "dtype") and getattr(value, "ndim", 0) == 0:
        scalar = value.item()
        # Dates of numpy with nanoseconds become a bare integer.
        return (
            scalar
            if getattr(value.dtype, "kind", "") not in "mM" or not isinstance(scalar, int)
            else str(value)
        )
    if hasattr(value, "tolist") and hasattr(value, "dtype"):
        return value.tolist()
    return value


def _jsonable(value: Any) -> Any:
    value = _plain(value)
    if isinstance(value, Mapping):
        return {str(key): _jsonable(inner) for key, inner in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted((_jsonable(inner) for inner in value), key=repr)
    if isinstance(value, (list, tuple)):
        return [_jsonable(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no word for it
    as_it_is = value is None or (isinstance(value, (str, int, float)) and not _is_long(value))
    return value if as_it_is else as_text(value)


def _is_long(value: Any) -> bool:
    """Whether it is an integer of more digits than Python writes out in decimals (sys.set_int_max_str_digits)."""
    return isinstance(value, int) and value.bit_length() > _DECIMAL_BITS


def _lawful(name: str) -> str:
    """The nearest key that MLflow takes.

    >>> [_lawful(n) for n in ("7d_rmse", "hit rate %", "a//b", "../x", "")]
    ['7d_rmse', 'hit rate _', 'a_b', '_.._x', '_']
    """
    key = _ILLEGAL.sub("_", name)
    normal = posixpath.normpath(key) if key else "."
    if normal != key or normal == "." or normal.startswith(("..", "/")):
        key = re.sub(r"/+", "_", key)
        key = "_" if key in ("", ".", "..") else f"_{key}" if key.startswith("..") else key
    return _marked(key, name, MAX_KEY) if len(key) > MAX_KEY else key


def _file_name(key: str) -> str:
    """A file's name that no other key has, within the 255 bytes that file systems give it.

    >>> _file_name("a_b"), _file_name("a/b")
    ('a_b', 'a_b-c14cddc0')
    """
    plain = re.sub(r"[^\w.\-]", "_", key, flags=re.ASCII)
    return plain if plain == key and len(key) <= _MAX_FILE_NAME else _marked(plain, key, _MAX_FILE_NAME)


def _marked(text: str, name: str, limit: int) -> str:
    """The text, of at most `limit` characters, with what tells `name` from others that are written alike."""
    digest = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[: _SUFFIX - 1]
    return f"{text[: limit - _SUFFIX]}-{digest}"


def _kind(value: Any) -> str:
    return f"{type(value).__name__} {short(as_text(value))!r}"


def short(text: str, limit: int = 80) -> str:
    """
    >>> short("abcdef", 4)
    'abc…'
    """
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
