"""The code that results depend on: one table of this package's files and of what each of them counts for.

A file that is missing here would leave stale answers in the cache, one name for two recipes, or a model that cannot be
loaded. A test follows the imports.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

Use = Literal["answers", "recipe", "model"]
"""Part of the key of kept answers, part of a recipe, carried by a registered model."""

FILES: Mapping[str, tuple[Use, ...]] = {
    "__init__.py": ("model",),
    "cache.py": ("answers", "model"),  # as a recipe it changes no bit
    "calendars.py": ("answers", "recipe", "model"),
    "calibration.py": ("recipe", "model"),
    "code.py": ("model",),
    "config.py": ("model",),  # its values are part of a recipe, wherever they come from
    "data/__init__.py": ("model",),
    "data/snapshot.py": ("model",),
    "engine.py": ("recipe", "model"),
    "ensemble.py": ("recipe", "model"),
    "errors.py": ("answers", "model"),  # the reason of a silence is kept with it
    "evaluation.py": ("recipe", "model"),
    "models/**/*.py": ("answers", "recipe", "model"),
    "paths.py": ("recipe", "model"),
    "py.typed": ("model",),
    "secrecy.py": ("model",),
    "specification.py": ("model",),
    "types.py": ("answers", "recipe", "model"),
}


def code_files(package: Path, use: Use) -> list[Path]:
    """The files of a copy of this package that count for `use`, in one order wherever it lies."""
    return sorted(path for pattern, uses in FILES.items() if use in uses for path in package.glob(pattern))
