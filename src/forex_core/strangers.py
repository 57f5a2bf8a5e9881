"""Text of strangers, such as headlines and answers of servers, made fit to be shown.

Whoever shows it on a page escapes it all the same.
"""

from __future__ import annotations

import html
import re
import unicodedata
from urllib.parse import urlsplit

TITLE_CHARACTERS = 300
"""Room that a title of strangers gets."""
LINK_CHARACTERS = 2000

_READ_CHARACTERS = 2000
_ELEMENTS = re.compile(r"<(script|style)\b[^<>]*>.*?(?:</\1[^<>]*>|$)", re.IGNORECASE | re.DOTALL)
_COMMENTS = re.compile(r"<!--.*?(?:-->|$)", re.DOTALL)
_TAGS = re.compile(r"</?[a-zA-Z!?][^<>]*>")
_NOT_IN_LINKS = frozenset("<>\"'`\\")
_UNSEEN = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | {
    chr(c) for c in range(0xFE00, 0xFE10)
}
"""Characters without a shape that Unicode does not count among the invisible."""


def plain(text: str, limit: int = TITLE_CHARACTERS) -> str:
    """Text of strangers on one line: nothing that turns the direction of writing or is not seen, cut where it is long.

    Markup is left as it is, for whoever shows it to escape.

    >>> plain("Peso\\u202e falls\\u200b <b>2 %</b>\\n today"), plain("Copper falls", 8)
    ('Peso falls <b>2 %</b> today', 'Copper…')
    """
    line = " ".join("".join(map(_visible, text[: 8 * limit])).split())
    return line if len(line) <= limit else f"{line[: limit - 1].rstrip()}…"


def clean_text(text: str, limit: int = TITLE_CHARACTERS) -> str:
    """Plain text on one line: no markup, no entities, nothing invisible or that turns the direction of writing.

    Whatever comes to light when something is taken away is looked at again, so that cleaning what is clean changes
    nothing. Tags are those of HTML; a lone `<` is left as it is.

    >>> clean_text("Peso <b>falls</b> 2&nbsp;% \\u202eas copper &lt;script&gt;steal()&lt;/script&gt;\\n slides")
    'Peso falls 2 % as copper slides'
    """
    text = text[:_READ_CHARACTERS]
    while (plainer := _plainer(text)) != text:
        text = plainer
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def _plainer(text: str) -> str:
    """One pass of `clean_text`."""
    text = unicodedata.normalize("NFC", "".join(map(_visible, text)))
    for markup in (_COMMENTS, _ELEMENTS, _TAGS):
        text = markup.sub(" ", text)
    return " ".join(html.unescape(text).split())


def web_link(link: str) -> str | None:
    """An address of the web as it stands, None for anything else: another scheme, a password, a hidden character.

    >>> web_link(" https://example.org/a?b=1 "), web_link("javascript:alert(1)")
    ('https://example.org/a?b=1', None)
    """
    link = link.strip()
    if len(link) > LINK_CHARACTERS or any(
        c in _NOT_IN_LINKS or c.isspace() or _visible(c) != c for c in link
    ):
        return None
    try:
        parts = urlsplit(link)
        is_web = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return link if is_web and "@" not in parts.netloc else None


def title_key(title: str) -> str:
    """What titles have in common that differ in case, blanks and punctuation alone.

    >>> title_key("Peso slips, again") == title_key("PESO SLIPS  again!")
    True
    """
    return re.sub(r"\W+", " ", title.casefold()).strip() or title


def printable(said: object, longest: int = 120) -> str:
    """The start of what a server said, on one line and without what a terminal would obey.

    >>> printable("a\\n\\x1b[31mb")
    'a \ufffd[31mb'
    """
    text = re.sub(r"\s+", " ", str(said)).strip()
    return "".join(c if c.isprintable() else "\ufffd" for c in text[:longest])


def _visible(character: str) -> str:
    """The character, a blank for one that parts words, nothing for one that is not seen."""
    if character.isspace():
        return " "
    return "" if character in _UNSEEN or unicodedata.category(character)[0] == "C" else character
