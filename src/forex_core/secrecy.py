"""What is told to nobody: passwords within addresses, and texts and errors without them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import parse_qsl, quote, quote_plus, unquote, unquote_plus

MASK = "***"
_PASSWORDS = ("password", "passwd", "pass", "pwd", "token", "secret", "key", "auth")
_BEFORE_HOST = re.compile(r"(^[^:/]+://[^:/]*:)([^@]+)(?=@)")
"""What stands there may hold brackets and slashes, which no parser of addresses takes."""
_NAMES = ("forex", "mlflow", "postgres", "prefect")
_GIVEN = re.compile(r"""(?m)^[ \t]*(?:export[ \t]+)?([\w.-]+)[ \t]*=[ \t]*["']?([^\s"']+)""")
_IN_QUERY = re.compile(rf"(?i)([?&][^=&]*(?:{'|'.join(_PASSWORDS)})=)[^&#]*")


def passwords_in(address: str) -> frozenset[str]:
    """The passwords of an address, as they are written in it and as they are meant.

    >>> sorted(passwords_in("postgresql://me:p%40ss@db/runs?sslpassword=other"))
    ['other', 'p%40ss', 'p@ss']
    """
    if "://" not in address:
        return frozenset()
    before_host, query = _BEFORE_HOST.match(address), address.partition("#")[0].partition("?")[2]
    found = {value for name, value in parse_qsl(query) if name.lower().endswith(_PASSWORDS)}
    return spellings(found | ({before_host[2]} if before_host else set()))


def without_password(address: str) -> str:
    """
    >>> without_password("postgresql://me:secret@db/runs?sslpassword=other")
    'postgresql://me:***@db/runs?sslpassword=***'
    """
    return _IN_QUERY.sub(rf"\1{MASK}", _BEFORE_HOST.sub(rf"\1{MASK}", address))


def spellings(secrets: Iterable[str]) -> frozenset[str]:
    """Secrets as they are, and as an address may write them."""
    given = frozenset(secrets)
    meant = {way(text) for text in given for way in (unquote, unquote_plus)}
    ways = (quote, quote_plus, lambda text: quote(text, safe=""))
    return (given | meant | {way(text) for text in meant for way in ways}) - {""}


def redacted(text: str, secrets: Iterable[str]) -> str:
    """A text with its secrets masked; one that is a name of these programs only where a password stands.

    Masked everywhere such a word would spoil the text, and be told by it.

    >>> redacted("login of me with p@ss was refused", ["p@ss"])
    'login of me with *** was refused'
    >>> redacted("postgresql://forex:forex@db/forex: forex doctor", ["forex"])
    'postgresql://forex:***@db/forex: forex doctor'
    """
    for secret in sorted(secrets, key=len, reverse=True):  # one may be part of another
        if secret in _NAMES:
            text = re.sub(rf"(?<=[:=]){secret}(?=[@&#'\"\s]|\Z)", MASK, text)
        else:
            text = text.replace(secret, MASK)
    return text


def gives_secret(text: str) -> bool:
    """Whether a file of settings, of any program, gives a password, a key or a token.

    >>> [gives_secret(line) for line in ("PREFECT_API_AUTH_STRING=me:word", "URL=http://me:word@host")]
    [True, True]
    >>> [gives_secret(line) for line in ("A_KEY=", "# A_KEY=word", "URL=http://host")]
    [False, False, False]
    """
    given = ((match[1].lower(), match[2]) for match in _GIVEN.finditer(text))
    return any(name.endswith((*_PASSWORDS, "auth_string")) or passwords_in(value) for name, value in given)


def told(error: BaseException, address: str = "") -> str:
    """An error on one line, without the passwords of an address that it may name.

    >>> told(ValueError("no login\\n for me:p@ss"), "postgresql://me:p%40ss@db/runs")
    'ValueError: no login for me:***'
    """
    text = redacted(" ".join(str(error).split()), passwords_in(address))[:500]
    return f"{type(error).__name__}: {text}"
