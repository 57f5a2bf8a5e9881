"""What the documents say of series and sources is what the register says."""

from __future__ import annotations

from pathlib import Path

import pytest

from forex_core.config import DataConfig
from forex_core.data.catalogue import ENTRIES, LICENCES

TEXT = (Path(__file__).parents[2] / "docs" / "data-sources.md").read_text(encoding="utf-8")
ROWS = [line.split("|") for line in TEXT.splitlines() if line.startswith("| `")]


@pytest.mark.parametrize("name", ENTRIES)
def test_every_series_is_described_with_its_sources_in_order(name: str) -> None:
    (row,) = [cells for cells in ROWS if f"`{name}`" in cells[1] and len(cells) == 7]
    sources = [feed.source for feed in ENTRIES[name].feeds]
    assert row[4].strip() == (", ".join(sources) or "files alone")
    assert (
        row[5]
        .strip()
        .startswith(ENTRIES[name].definition.release.rule.split(";")[0].split(",")[0].split(" (")[0])
    )


@pytest.mark.parametrize("source", [name for name in LICENCES if name != "import"])
def test_every_source_has_its_licence(source: str) -> None:
    assert f"| {source} |" in TEXT


def test_every_setting_is_named() -> None:
    unnamed = [name for name in DataConfig.model_fields if name.upper() not in TEXT]
    assert unnamed == ["timeout_s"]
