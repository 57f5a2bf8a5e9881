"""Static pictures of charts, and the script that makes them interactive; no network in either.

The renderer's JavaScript engine takes 150 MB that it never gives back, so it works in a process that ends with
the job, and whoever asks for a report stays as small as before. A fresh engine also numbers its clip paths from
nought each time, which makes equal charts equal files.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import altair as alt

from forex_core.errors import ForexError

PNG_SCALE = 2
"""Pixels of a PNG per CSS pixel."""

TIMEOUT_SECONDS = 120


@dataclass(frozen=True)
class Drawn:
    """Each chart by name, as SVG text and as PNG."""

    svg: Mapping[str, str]
    png: Mapping[str, bytes]


def draw(specs: Mapping[str, Mapping[str, Any]]) -> Drawn:
    """Draw each Vega-Lite specification once; asking again for the same ones costs nothing.

    Raises:
        ForexError: the renderer could not be started or refused a specification.
    """
    return _draw(json.dumps(specs))


@lru_cache(maxsize=1)
def _draw(specs: str) -> Drawn:
    answer = _ask({"specs": json.loads(specs), "script": False})
    return Drawn(
        svg={name: _own_ids(name, svg) for name, svg in answer["svg"].items()},
        png={name: base64.b64decode(png) for name, png in answer["png"].items()},
    )


def browser_script(cache: Path | None = None) -> str:
    """The script bundle that defines `vegaEmbed` in a browser; it depends on the installed renderer alone.

    Args:
        cache: folder in which it is kept for later processes, since making it takes longer than all pictures.

    Raises:
        ForexError: the renderer could not be started.
    """
    if cache is None:
        return _script()
    file = cache / f"vega-embed-{_vega_lite()}-{version('vl-convert-python')}.js"
    with suppress(OSError, UnicodeDecodeError):
        digest, _, script = file.read_bytes().partition(b"\n")
        if hashlib.sha256(script).hexdigest().encode() == digest:
            return script.decode()
    script = _script().encode()
    unfinished = file.with_name(f"{file.stem}-{uuid4().hex}.tmp")
    with suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(hashlib.sha256(script).hexdigest().encode() + b"\n" + script)
        unfinished.replace(file)
    return script.decode()


@lru_cache(maxsize=1)
def _script() -> str:
    return str(_ask({"specs": {}, "script": True})["script"])


def _vega_lite() -> str:
    return ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])


def _ask(request: Mapping[str, Any]) -> dict[str, Any]:
    asked = json.dumps({**request, "scale": PNG_SCALE, "vega_lite": _vega_lite()}).encode()
    worker = Path(__file__).with_name("drawing_process.py")
    # -P: what lies in the worker's folder must not shadow the standard library.
    command = [sys.executable, "-P", str(worker)]
    try:
        done = subprocess.run(command, input=asked, capture_output=True, timeout=TIMEOUT_SECONDS, check=True)
    except subprocess.CalledProcessError as error:
        reason = (
            error.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            or f"exit code {error.returncode}"
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = str(error)
    else:
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer
    raise ForexError(f"the charts could not be drawn ({reason}); check the installation of vl-convert-python")


def _own_ids(name: str, svg: str) -> str:
    """Clip paths named after their chart: several pictures share one page, and its script makes more of them."""
    numbers: dict[str, int] = {}

    def renamed(match: re.Match[str]) -> str:
        return f"{match[1]}{name}-clip{numbers.setdefault(match[2], len(numbers))}"

    return re.sub(r'(\bid="|url\(#)((?:clip|gradient|pattern)\w*\d+)\b', renamed, svg)
