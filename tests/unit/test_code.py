"""The table of the code that results depend on names every file that such code imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import forex_core
from forex_core.code import FILES, Use, code_files

PACKAGE = Path(forex_core.__file__).parent
LEFT_OUT: dict[Use, dict[str, str]] = {
    "answers": {
        "code.py": "says which files count, and is no part of what they say",
    },
    "recipe": {
        "__init__.py": "a version number",
        "cache.py": "changes how long a run takes and no bit of it",
        "code.py": "says which files count, and is no part of what they say",
        "config.py": "the values that it reads are part of a recipe",
        "errors.py": "names of errors",
    },
    "model": {},
}
"""Files that code of a use imports and that need not count, with the reason."""


def imported(path: Path) -> Iterator[Path]:
    """Files of this package that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports by a relative name"
            names = [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            place = PACKAGE.parent / name.replace(".", "/")
            for file in (place.with_suffix(".py"), place / "__init__.py"):
                if file.is_relative_to(PACKAGE) and file.is_file():
                    yield file


@pytest.mark.parametrize("use", ["answers", "recipe", "model"])
def test_whatever_code_that_counts_imports_of_ours_counts(use: Use) -> None:
    counted = code_files(PACKAGE, use)
    found = {file for path in counted if path.suffix == ".py" for file in imported(path)}
    lacking = {file.relative_to(PACKAGE).as_posix() for file in found - set(counted)}
    assert lacking - LEFT_OUT[use].keys() == set(), "add them to the table in code.py"
    assert LEFT_OUT[use].keys() - lacking == set(), "these are not imported, or count by now"


@pytest.mark.parametrize("pattern", FILES)
def test_every_name_in_the_table_is_of_a_file(pattern: str) -> None:
    assert list(PACKAGE.glob(pattern))


def test_a_model_carries_all_that_counts() -> None:
    carried = set(code_files(PACKAGE, "model"))
    for use in ("answers", "recipe"):
        assert set(code_files(PACKAGE, use)) <= carried
