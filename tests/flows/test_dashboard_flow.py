"""The flow that writes the dashboard's pages, on a real Prefect server."""

from __future__ import annotations

import html
import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from forex_core.config import load_settings
from forex_core.errors import InputError
from forex_core.ledger import Ledger
from forex_core.tracking import tracker_from_settings
from forex_core.types import Horizon
from tests import artifacts
from tests.dashboards import LAST
from tests.ledgers import entry

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.timeout(280)]


def dashboard(**arguments: Any) -> dict[str, Any]:
    from flows.dashboard import dashboard as flow

    return flow(**arguments)  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def _watched(monkeypatch: pytest.MonkeyPatch) -> None:
    artifacts.watch(monkeypatch, "flows.dashboard")


def artifact() -> Any:
    return artifacts.newest("dashboard")


def test_the_pages_are_written_and_the_runs_are_told(sqlite_store: str, tmp_path: Path) -> None:
    settings = load_settings()
    Ledger(settings.store_url).append(entry(LAST))
    tags = {"pair": "USDCLP", "horizon": "7d", "environment": "production"}
    with tracker_from_settings(settings, "forecaster_7d", tags=tags) as tracker:
        tracker.log_metrics({"7d_rmse": 12.448})
        run_id = str(tracker.run_id)
    done = dashboard()
    index = Path(done["site"]["index"])
    assert index == tmp_path / "data" / "dashboard" / "index.html"
    assert "USD/CLP" in index.read_text()
    assert (index.parent / "usdclp-7d.html").is_file()
    told = artifact()
    assert f"| {run_id[:8]} |" in told.data
    assert "| 12.45 |" in told.data
    assert "15d\n\nno runs yet" in told.data
    assert index.as_uri() in told.data
    assert told.description == "5 pages, and the newest runs"
    assert dashboard()["site"]["pages"] == 5, "again into the same folder"


def test_a_folder_of_others_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").write_text("mine")
    with pytest.raises(InputError, match="has files and no dashboard"):
        dashboard(folder=tmp_path / "letters")


@pytest.mark.slow
@pytest.mark.usefixtures("light", "kept_pictures")
def test_runs_and_a_rollback_of_a_real_store_are_on_the_pages(market: Path, sqlite_store: str) -> None:
    from flows.forecast import FLOWS
    from flows.rollback import rollback

    ask: dict[str, Any] = {"pair": "USDCLP", "source": "csv", "paths": [market]}
    days = (date(2018, 4, 6), date(2018, 5, 4), date(2018, 6, 8))
    made = [FLOWS[Horizon(7)](as_of=day, **ask) for day in days]
    done = rollback(horizon="7d", reason="bad <b>copper</b>", **ask)
    today = datetime.now(UTC).date()
    ledger = Ledger(load_settings().store_url)
    for weeks, version in ((8, 1), (6, 2), (4, 3)):  # the chart is of live forecasts, and these were of 2018
        ledger.append(entry(today - timedelta(weeks=weeks, days=today.weekday()), version=version))
    told = dashboard()
    folder = Path(told["site"]["index"]).parent

    def shown(name: str) -> str:
        content = re.sub(r"<(script|style).*?</\1>", "", (folder / name).read_text("utf-8"), flags=re.DOTALL)
        return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", content)).split())

    runs = shown("runs.html")
    for k, document in enumerate(made, 1):
        champion = "*" if k == done["to_version"] else ""
        scores = f"{document['models']['ensemble']['rmse']:.3f}", f"v{k}{champion}"
        row = runs.partition(document["run_id"][:8])[2]
        assert row.startswith(f" 7d {scores[0]} ")
        assert f" {scores[1]} " in row[:60]
    page = (folder / "usdclp-7d.html").read_text(encoding="utf-8")
    assert "bad &lt;b&gt;copper&lt;/b&gt;" in page
    assert "<b>copper</b>" not in page
    change = shown("usdclp-7d.html").partition("Came of it ")[2]
    assert re.match(r"[\w :,]+ rollback v3 v2 \S+ bad <b>copper</b> done", change)
    assert (done["from_version"], done["to_version"]) == (3, 2)
    drawn = page[page.index('<figure class="drawn" id="champions">') :]
    (mark,) = set(re.findall(r'<g class="mark"><title>(.*?)</title>', drawn))
    assert re.fullmatch(r"rollback to version 2, \d+ \w{3} \d{4}", mark)
