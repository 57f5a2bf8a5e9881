"""What is told to nobody: passwords within addresses, and texts without them."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

MASK = "***"
_PASSWORDS = ("password", "passwd", "pass", "pwd", "token", "secret", "key", "auth")


def passwords_in(address: str) -> frozenset[str]:
    """The passwords of an address, as they are written in it and as they are meant.

    >>> sorted(passwords_in("postgresql://me:p%40ss@db/runs?sslpassword=other"))
    ['other', 'p%40ss', 'p@ss']
    """
    if "://" not in address:
        return frozenset()
    try:
        parts = urlsplit(address)
        found = {parts.password or ""}
    except ValueError:  # no address after all
        return frozenset()
    found |= {value for name, value in parse_qsl(parts.query) if name.lower().endswith(_PASSWORDS)}
    return spellings(found)


def spellings(secrets: Iterable[str]) -> frozenset[str]:
    """Secrets as they are, and as an address may write them."""
    ways = (unquote, quote, quote_plus, lambda text: quote(text, safe=""))
    return frozenset({way(text) for text in secrets for way in ways} | set(secrets)) - {""}


def redacted(text: str, secrets: Iterable[str]) -> str:
    """
    >>> redacted("login of me with p@ss was refused", ["p@ss"])
    'login of me with *** was refused'
    """
    for secret in sorted(secrets, key=len, reverse=True):  # one may be part of another
        text = text.replace(secret, MASK)
    return text
