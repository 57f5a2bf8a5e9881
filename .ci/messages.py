#!/usr/bin/env python
"""The catalogues of the report's languages, brought in line with the code; `--check` only says whether they are.

A new message stands in the catalogue without a translation, for a translator to fill in; one that the code does not say
any more is taken out. What a message may come from: `say` and `say_n` in `forex_core/report/` and its templates, and
every text of the rooms below that a reader may get to see (`ROOMS`), taken out of their source as a pattern.

Exit code 0: every message has its translation; 1: some lack one, or with `--check` the catalogue is not up to date.
"""

from __future__ import annotations

import ast
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_file
from babel.messages.pofile import read_po, write_po

from forex_core.config import MEMBERS
from forex_core.data.catalogue import ENTRIES
from forex_core.data.series import DERIVED
from forex_core.report.language import ENGLISH, TOLD, label_of
from forex_core.types import ENSEMBLE, RATE_NAMES, LanguageCode

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "src" / "forex_core" / "report"
IMPACTS = ("high", "medium", "low", "holiday")
NO_SENTENCES = frozenset(
    {
        "gzip, deflate",
        "%Y-%m-%d %H:%M:%S UTC",
        "Stock Splits",
        ". See http",
        "Data doesn't exist for",
        "{column} values",
    }
)


@dataclass(frozen=True)
class Room:
    """A module whose texts may reach a reader.

    Attributes:
        raised: errors whose texts may; those of others end a run, which has no report then.
        without: top-level names whose texts do not.
    """

    path: str
    raised: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


_MEMBERS = ("MemberError", "ForecastError")
_SOURCES = ("SourceError", "SourceUnavailable", "Again")
ROOMS = (
    Room("src/forex_core/evaluation.py"),
    Room("src/forex_core/champion.py", _MEMBERS),
    Room("src/forex_core/engine.py", (*_MEMBERS, "DataQualityError")),
    Room("src/forex_core/paths.py", _MEMBERS),
    *(
        Room(f"src/forex_core/models/{name}.py", _MEMBERS)
        for name in (
            "arima_garch",
            "base",
            "chronos",
            "chronos_library",
            "chronos_weights",
            "driver_regression",
            "features",
            "gradient_boosting",
            "random_walk",
            "smoothing",
            "vector_autoregression",
        )
    ),
    Room("src/forex_core/tracking/candidacy.py", without=("has_champion",)),
    Room(
        "flows/forecast.py",
        without=("Asked", "load", "compute", "publish", "send", "_quote", "_flow", "_forecast", "_late"),
    ),
    Room("src/forex_core/data/quality.py"),
    Room("src/forex_core/data/bundle.py", without=("_too_early",)),
    Room("src/forex_core/data/loading.py", _SOURCES),
    Room("src/forex_core/data/refresh.py", ("_InVain",)),
    Room("src/forex_core/data/http.py", _SOURCES, without=("_ACCEPT",)),
    Room("src/forex_core/data/series.py"),
    Room("src/forex_core/data/catalogue.py"),
    Room("src/forex_core/data/providers/ecb.py"),
    Room("src/forex_core/data/providers/stored.py", _SOURCES),
    Room("src/forex_core/data/providers/yahoo.py", ("SourceUnavailable",)),
)


@dataclass(frozen=True)
class Found:
    """A message and where it is said; `many` where it has a plural."""

    one: str
    many: str | None
    context: str | None
    path: str


def found_messages() -> list[Found]:
    """Every message of the code, in the order of the catalogue."""
    return [*_said(), *_told(), *_names()]


def catalogue(code: LanguageCode) -> Path:
    return REPORT / "languages" / f"{code}.po"


def updated(path: Path) -> Catalog:
    """The catalogue of a file as it should be: the messages of the code, with the translations that it has."""
    with path.open("rb") as file:
        before = read_po(file, locale=path.stem, abort_invalid=True)
    after = Catalog(locale=path.stem)
    after.mime_headers = before.mime_headers  # how many plural forms there are
    for found in found_messages():
        known = before.get(found.one, found.context)
        after.add(
            (found.one, found.many) if found.many else found.one,
            known.string if known else "",
            locations=[(found.path, 0)],  # lines would change with every line of code
            context=found.context,
            user_comments=known.user_comments if known else (),
        )
    for message in after:
        message.flags -= {"python-format"}  # a percent sign is one
    return after


def text_of(found: Catalog, path: Path) -> str:
    """A catalogue as it stands in its file, whose header stays as it is."""
    header = path.read_text(encoding="utf-8").partition("\n\n")[0].rstrip()
    out = io.BytesIO()
    write_po(out, found, width=110, include_lineno=False, omit_header=True)
    return f"{header}\n\n{out.getvalue().decode().lstrip()}"


def untranslated(found: Catalog) -> list[str]:
    """Messages without a translation."""
    lacking = []
    for message in found:
        strings = message.string if isinstance(message.string, list | tuple) else [message.string]
        if message.id and not all(strings):
            lacking.append(message.id if isinstance(message.id, str) else message.id[0])
    return lacking


def _said() -> Iterator[Found]:
    for path in sorted(REPORT.glob("*.py")):
        where = path.relative_to(ROOT).as_posix()
        calls = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)]
        for call in sorted(calls, key=lambda n: (n.lineno, n.col_offset)):
            match _called(call), call.args:
                case "say", [ast.Constant(value=str(one))]:
                    yield Found(one, None, None, where)
                case "say_n", [ast.Constant(value=str(one)), ast.Constant(value=str(many)), _]:
                    yield Found(one, many, None, where)
                case (("say" | "say_n"), _):
                    raise SystemExit(f"{where}, line {call.lineno}: expected texts as they stand, one each")
    for path in sorted(REPORT.glob("templates/*.j2")):
        where = path.relative_to(ROOT).as_posix()
        for _, message, _, _ in extract_from_file("jinja2.ext:babel_extract", path, keywords={"say": None}):
            yield Found(str(message), None, None, where)


def _told() -> Iterator[Found]:
    for room in ROOMS:
        for _, text in sorted(_texts(room)):
            yield Found(text, None, TOLD, room.path)


def _names() -> Iterator[Found]:
    series = (*ENTRIES, *DERIVED)
    for name in (ENSEMBLE, *MEMBERS, "combination", *series):
        yield Found(label_of(name, ENGLISH), None, TOLD, "src/forex_core/report/language.py")
    for text in (*RATE_NAMES.values(), "once", "percent per year", "{quote} per {base}", *IMPACTS):
        yield Found(text, None, TOLD, "src/forex_core/types.py")


def _texts(room: Room) -> set[tuple[int, str]]:
    """Texts of a room with their lines: more than one word, and kinds of repairs."""
    reader = _Reader(room)
    reader.visit(ast.parse((ROOT / room.path).read_text(encoding="utf-8")))
    return reader.texts


class _Reader(ast.NodeVisitor):
    """Collects texts; those of the log, of docstrings and of errors that end a run are left out."""

    def __init__(self, room: Room) -> None:
        self.texts: set[tuple[int, str]] = set()
        self._room = room

    def visit_Module(self, node: ast.Module) -> None:
        for statement in node.body:
            if not set(_defined(statement)) & set(self._room.without):
                self.visit(statement)

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):  # a docstring
            self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> None:
        if node.exc is not None and _called(node.exc) in self._room.raised:
            self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if ast.unparse(node.func).startswith(("logger.", "self._progress")):
            return
        if _called(node) in ("Repair", "_without", "settle"):
            kinds = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            self.texts |= {(node.lineno, kind.replace("_", " ")) for kind in kinds}
        if _called(node) not in ("Definition", "compile", "simplefilter", "filterwarnings"):
            self.generic_visit(node)
        elif _called(node) == "Definition":  # its unit; the rest is not in a report
            self.visit(node.args[0])
            self.visit(node.args[2])

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self._note(node.lineno, node.value)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        self._note(node.lineno, _pattern(node))
        for value in node.values:
            if isinstance(value, ast.FormattedValue):
                self.visit(value.value)

    def _note(self, line: int, text: str) -> None:
        words = "".join(part if part[:1] != "{" else "" for part in _split(text))
        is_sentence = " " in text.strip() and any(c.isalpha() for c in words)
        if is_sentence and text not in NO_SENTENCES:
            self.texts.add((line, text))


def _defined(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        yield statement.name
    for target in getattr(statement, "targets", [getattr(statement, "target", None)]):
        if isinstance(target, ast.Name):
            yield target.id


def _called(node: ast.expr) -> str:
    while isinstance(node, ast.Call):
        node = node.func
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _split(text: str) -> list[str]:
    """A text as plain parts and fields."""
    parts, depth = [""], 0
    for character in text:
        depth += (character == "{") - (character == "}")
        if character == "{" and depth == 1:
            parts.append("")
        parts[-1] += character
        if character == "}" and depth == 0:
            parts.append("")
    return parts


def _pattern(node: ast.JoinedStr) -> str:
    """A formatted text with its fields named after what stands in them."""
    text, taken = "", set[str]()
    for value in node.values:
        if isinstance(value, ast.Constant):
            text += str(value.value).replace("{", "{{").replace("}", "}}")
            continue
        assert isinstance(value, ast.FormattedValue)
        base = _name_of(value.value) or "value"
        name = next(n for n in (base, *(f"{base}_{k}" for k in range(2, 99))) if n not in taken)
        taken.add(name)
        convert = f"!{chr(value.conversion)}" if value.conversion != -1 else ""
        form = value.format_spec.values if isinstance(value.format_spec, ast.JoinedStr) else []
        told = "".join(str(part.value) for part in form if isinstance(part, ast.Constant))
        text += f"{{{name}{convert}{':' if told else ''}{told}}}"
    return text


def _name_of(node: ast.expr) -> str | None:
    """A word for the value of an expression."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name.strip("_").lower()
        case ast.Subscript(value=inner) | ast.UnaryOp(operand=inner) | ast.IfExp(body=inner):
            return _name_of(inner)
        case ast.BinOp(left=left, right=right):
            return _name_of(right) or _name_of(left)
        case ast.BoolOp(values=[first, *_]):
            return _name_of(first)
        case ast.GeneratorExp(generators=[first, *_]):
            return _name_of(first.iter)
        case ast.Call(func=ast.Attribute(value=inner, attr=attr)) if attr in ("date", "capitalize", "lower"):
            return _name_of(inner)
        case ast.Call(args=[first, *_]):
            return _name_of(first)
        case ast.Call(func=ast.Attribute(value=inner)):
            return _name_of(inner)
    return None


def main() -> int:
    check = "--check" in sys.argv[1:]
    code = 0
    for language in get_args(LanguageCode):
        path = catalogue(language)
        if not path.is_file():
            continue
        found = updated(path)
        text = text_of(found, path)
        if check and text != path.read_text(encoding="utf-8"):
            sys.stdout.write(f"{path} is not in line with the code; run 'make messages'\n")
            code = 1
        elif not check:
            path.write_text(text, encoding="utf-8")
        for message in untranslated(found):
            sys.stdout.write(f"{path.name} has no translation of: {message}\n")
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
