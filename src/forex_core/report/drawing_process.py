"""What draws the charts, run as a script in a process of its own: JSON on stdin, JSON on stdout.

Kept free of imports of ours: the renderer brings a JavaScript engine with it, and that is all this process holds.
"""

from __future__ import annotations

import base64
import json
import sys
from typing import Any


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Pictures of `specs` (name: Vega-Lite) as SVG and PNG, and the browser's script where `script` is asked for."""
    import vl_convert

    version = request["vega_lite"]
    svg = {
        name: vl_convert.vegalite_to_svg(spec, vl_version=version) for name, spec in request["specs"].items()
    }
    png = {name: vl_convert.svg_to_png(picture, scale=request["scale"]) for name, picture in svg.items()}
    return {
        "svg": svg,
        "png": {name: base64.b64encode(picture).decode() for name, picture in png.items()},
        "script": vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=version)
        if request["script"]
        else None,
    }


if __name__ == "__main__":
    sys.stdout.buffer.write(json.dumps(answer(json.load(sys.stdin.buffer))).encode())
