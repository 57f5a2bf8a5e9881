"""What a report says, in the languages of its readers: sentences, names, numbers and dates.

English is what the code, documents, tags and logs are in. Another language is a gettext catalogue, `languages/es.po`,
whose messages are of two kinds. Without a context stands what this room says (`Language.say`). In the context `told`
stands what rooms below have said in English, such as why a print was taken out: they know of no language, and what they
said may come out of a run of last year. A message there is the pattern of such a text, and its translation is told with
what stands in the fields (`Language.told`).

`make messages` brings the catalogues in line with the code; docs/adr/0016 has why it is done like this.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from functools import cache
from gettext import GNUTranslations, NullTranslations
from importlib.resources import files
from io import BytesIO
from string import Formatter
from typing import TYPE_CHECKING, Any

from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

from forex_core.types import LanguageCode

if TYPE_CHECKING:
    import pandas as pd
    from babel.messages.catalog import Catalog

TOLD = "told"
"""Context of the messages that are patterns of what rooms below say."""


@dataclass(frozen=True)
class Habits:
    """How numbers and dates are written, by the CLDR: Babel has it as pickles, and nothing is unpickled here.

    Names of months and of days, from Monday on, are short by their first three letters.
    """

    thousands: str
    decimal: str
    months: tuple[str, ...]
    days: tuple[str, ...]


HABITS: dict[LanguageCode, Habits] = {
    "en": Habits(
        ",",
        ".",
        (
            "January",
            "February",
            "March",
            "April",
            "May",
            "June",
            "July",
            "August",
            "September",
            "October",
            "November",
            "December",
        ),
        ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    ),
    "es": Habits(  # of Chile
        ".",
        ",",
        (
            "enero",
            "febrero",
            "marzo",
            "abril",
            "mayo",
            "junio",
            "julio",
            "agosto",
            "septiembre",
            "octubre",
            "noviembre",
            "diciembre",
        ),
        ("lunes", "martes", "miércoles", "jueves", "viernes", "sábado", "domingo"),
    ),
}

_NUMBER = re.compile(r"[-+−]?(\d{1,3}(,\d{3})+|\d+)(\.\d+)?")
_DAY = re.compile(r"(\d{4}-\d\d-\d\d)(?: (\d\d:\d\d UTC))?")
_DAY_IN_PROSE = re.compile(rf"(?<![\w./-]){_DAY.pattern}(?![\w/-]|\.\w)")
_HORIZON = re.compile(r"(\d+)d")
_PARTED = ("; ", ". ", ": ", ", ")
"""What parts texts that were put together, the strongest first."""


class Language:
    """One language; `language_of` makes it."""

    def __init__(self, code: LanguageCode) -> None:
        self.code = code
        self._habits = HABITS[code]
        catalogue = _catalogue_of(code)
        self._messages = GNUTranslations(_compiled(catalogue)) if catalogue else NullTranslations()
        self._patterns = list(_patterns(catalogue)) if catalogue else []
        written = {",": self._habits.thousands, ".": self._habits.decimal, "-": "\u2212"}
        self._separators = str.maketrans(written)

    def say(self, message: str, /, **values: object) -> str:
        """A message of this room, with its fields."""
        return self._messages.gettext(message).format(**values)

    def say_n(self, one: str, many: str, n: int, /, **values: object) -> str:
        """A message of this room about `n` things, which it may name as the field `n`."""
        return self._messages.ngettext(one, many, n).format(n=self.count(n), **values)

    def told(self, text: str) -> str:
        """What a room below said in English; as it is where the catalogue does not know it.

        Numbers and dates in it are written as this language writes them.
        """
        if not self._patterns:
            # What has an option is a command, or part of one.
            return text if "--" in text else _DAY_IN_PROSE.sub(self._day_told, text)
        for pattern, message in self._patterns:
            if found := pattern.fullmatch(text):
                # What stands before an option is part of a command.
                fields = {
                    name: part if f"{{{name}}} --" in message else self.told(part)
                    for name, part in found.groupdict().items()
                }
                return message.format(**fields)
        if _NUMBER.fullmatch(text):
            return text.translate(self._separators)
        if found := _DAY.fullmatch(text):
            return self._day_told(found)
        if found := _HORIZON.fullmatch(text):
            return self.say_n("{n} day", "{n} days", int(found[1]))
        for mark in _PARTED:
            if mark in text:
                parts = text.split(mark)
                known = [self.told(part) for part in parts]
                if known != parts:
                    return mark.join(known)
        return text

    def _day_told(self, found: re.Match[str]) -> str:
        try:
            day = self.day(date.fromisoformat(found[1]))
        except ValueError:  # there is no such day
            return found[0]
        return f"{day}, {found[2]}" if found[2] else day

    def number(self, value: float, decimals: int, sign: str = "") -> str:
        """A number with separators of thousands and a true minus; with `sign="+"` also a plus.

        >>> language_of("en").number(-1234.5, 2), language_of("es").number(-1234.5, 2)
        ('−1,234.50', '−1.234,50')
        """
        return f"{round(value, decimals) + 0.0:{sign},.{decimals}f}".translate(self._separators)

    def figures(self, value: float, digits: int) -> str:
        """A number with so many significant digits.

        >>> language_of("es").figures(954.1342, 4), language_of("es").figures(0.00012345, 3)
        ('954,1', '0,000123')
        """
        return f"{value:,.{digits}g}".translate(self._separators)

    def count(self, n: int) -> str:
        """
        >>> language_of("en").count(12345), language_of("es").count(12345)
        ('12,345', '12.345')
        """
        return f"{n:,}".translate(self._separators)

    def day(self, day: date, *, year: bool = True) -> str:
        """
        >>> language_of("en").day(date(2026, 1, 30)), language_of("es").day(date(2026, 1, 30))
        ('30 Jan 2026', '30 ene 2026')
        """
        month = self._habits.months[day.month - 1][:3]
        return f"{day.day} {month} {day.year}" if year else f"{day.day} {month}"

    def weekday(self, day: date) -> str:
        """
        >>> language_of("en").weekday(date(2026, 1, 30)), language_of("es").weekday(date(2026, 1, 30))
        ('Fri', 'vie')
        """
        return self._habits.days[day.weekday()][:3]

    def instant(self, moment: pd.Timestamp) -> str:
        """An instant in UTC, to the minute; one without a zone is taken to be in UTC."""
        utc = moment.tz_convert("UTC") if moment.tz else moment.tz_localize("UTC")
        return f"{self.day(utc.date())}, {utc:%H:%M} UTC"

    @property
    def in_charts(self) -> dict[str, Any]:
        """What Vega-Lite has to know (`config.locale`) to write numbers and dates like this."""
        habits = self._habits
        sunday_first = [habits.days[-1], *habits.days[:-1]]
        return {
            "number": {
                "decimal": habits.decimal,
                "thousands": habits.thousands,
                "grouping": [3],
                "currency": ["$", ""],
                "percent": "\u00a0%",
            },
            "time": {
                "dateTime": "%-d %b %Y, %H:%M",
                "date": "%-d %b %Y",
                "time": "%H:%M",
                "periods": ["AM", "PM"],
                "days": sunday_first,
                "shortDays": [day[:3] for day in sunday_first],
                "months": list(habits.months),
                "shortMonths": [month[:3] for month in habits.months],
            },
        }


@cache
def language_of(code: LanguageCode) -> Language:
    """The language of a code."""
    return Language(code)


def label_of(name: str, language: Language | None = None) -> str:
    """A model or series name for people.

    >>> [label_of(n) for n in ("random_walk", "arima_garch", "ets")]
    ['Random walk', 'ARIMA GARCH', 'ETS']
    """
    acronyms = {"arima", "garch", "ets", "var", "dxy", "vix", "sp500", "tpm", "uf", "ipc"}
    words = [w.upper() if w.lower() in acronyms else w for w in name.split("_") if w]
    text = " ".join(words)
    return (language or ENGLISH).told(text[:1].upper() + text[1:])


def _catalogue_of(code: LanguageCode) -> Catalog | None:
    """None for the language of the code."""
    source = files("forex_core.report").joinpath("languages", f"{code}.po")
    if not source.is_file():
        return None
    with source.open("rb") as file:
        return read_po(file, abort_invalid=True)  # without a locale: its plurals are in the header


def _compiled(catalogue: Catalog) -> BytesIO:
    """A catalogue as gettext reads it."""
    compiled = BytesIO()
    write_mo(compiled, catalogue)
    compiled.seek(0)
    return compiled


def _patterns(catalogue: Catalog) -> Iterator[tuple[re.Pattern[str], str]]:
    """What rooms below say and its translation, those with the most words of their own first."""
    told = [(str(m.id), str(m.string)) for m in catalogue if m.context == TOLD and m.string]
    for text, translation in sorted(told, key=lambda pair: -sum(len(part) for part, *_ in _parts(pair[0]))):
        yield re.compile("".join(map(_expected, _parts(text))), re.DOTALL), _without_formats(translation)


def _expected(part: tuple[str, str | None, str | None]) -> str:
    """The regular expression of some text and the field behind it; one that was formatted as a number is one."""
    text, name, form = part
    if name is None:
        return re.escape(text)
    found = r"[-+]?(?:[\d,.]+(?:e[-+]?\d+)?|nan|inf)" if form and form[-1] in "gdfe" else ".+?"
    return f"{re.escape(text)}(?P<{name}>{found})"


def _without_formats(message: str) -> str:
    """A translation whose fields take text: what stands in them has been formatted."""
    return "".join(
        text.replace("{", "{{").replace("}", "}}") + (f"{{{name}}}" if name else "")
        for text, name, _ in _parts(message)
    )


def _parts(message: str) -> Iterator[tuple[str, str | None, str | None]]:
    """Texts and fields of a message: the text, the name of the field behind it, and its format."""
    return ((text, name, form) for text, name, form, _ in Formatter().parse(message))


ENGLISH = language_of("en")
"""The language of the code, which needs no catalogue."""
