"""What a page carries within itself, so that it can be a file and ask for nothing."""

from __future__ import annotations

import base64
import hashlib
import json

from markupsafe import Markup


def json_in_script(value: object) -> Markup:
    """JSON that cannot end the element it stands in, nor open a comment there."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def source_hash(text: str) -> str:
    """What a content security policy knows an inline script or style by.

    >>> source_hash("")
    "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
    """
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
