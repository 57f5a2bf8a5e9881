"""The files of a published forecast, written into a folder of the run's own."""

from __future__ import annotations

import errno
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

from forex_core.errors import ForexError, InputError

if TYPE_CHECKING:
    from forex_core.report.charts import Drawings
    from forex_core.report.document import Document
    from forex_core.types import ForecastRun, LanguageCode, MarketBundle, Publication

REPORT, PDF, CHARTS = "report.html", "report.pdf", "charts"
DOCUMENT = "forecast.json"
SNAPSHOT = "snapshot.parquet"
_UNFINISHED, _STALE_SECONDS = ".unfinished-", 24 * 3600.0


def write_report(
    folder: Path,
    run: ForecastRun,
    bundle: MarketBundle,
    run_id: str,
    drawings: Drawings,
    publication: Publication | None = None,
    beside: Mapping[str, Any] | None = None,
    *,
    lang: LanguageCode = "en",
    pdf: bool = False,
) -> Document:
    """Write the report, its charts, the forecast as CSV and JSON, the members' answers and the data snapshot.

    Args:
        folder: new and the run's own, and there when all of it is written.
        drawings: of the same run, in the language of the report.
        beside: more keys of the document, as `forex_core.briefing.document` has them.
        lang: of the report; all else is in English.
        pdf: write the report as PDF too.

    Returns:
        The document that `forecast.json` holds.

    Raises:
        ConfigError: a PDF is asked for and cannot be made here.
        ForexError: when the folder cannot be written.
    """
    # Here and not above: whoever only prepares a folder need not load what draws charts.
    import pandas as pd

    from forex_core.data.snapshot import write_snapshot
    from forex_core.report.document import forecast_document, replay_record
    from forex_core.report.language import language_of
    from forex_core.report.page import forecast_table, render_report
    from forex_core.report.pdf import render_pdf

    document = forecast_document(run, bundle, run_id, folder / REPORT, publication) | dict(beside or {})
    document |= {"lang": lang, "pdf": str(folder / PDF) if pdf else None}
    now = pd.Timestamp.now(tz="UTC").floor("s")
    html = render_report(
        run,
        bundle,
        run_id=run_id,
        generated_at=now,
        publication=publication,
        drawings=drawings,
        language=language_of(lang),
        document=document,
    )
    with _whole(folder) as making:
        (making / REPORT).write_text(html, encoding="utf-8")
        if pdf:
            (making / PDF).write_bytes(render_pdf(html))
        forecast_table(run).to_csv(making / "forecast.csv", index=False)
        (making / CHARTS).mkdir()
        for name, image in drawings.images.items():
            (making / CHARTS / name).write_bytes(image)
        (making / "members.json").write_text(json.dumps(replay_record(run)), encoding="utf-8")
        write_snapshot(bundle, making / SNAPSHOT)
        _write_document(making, document)
    return document


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A folder that gets its name when everything is in it: what a process that is killed leaves is no report.

    Raises:
        ForexError: when something cannot be written; nothing of it is left then.
    """
    making = folder.with_name(f"{_UNFINISHED}{folder.name}")
    try:
        making.mkdir(parents=True)
        for left in folder.parent.glob(f"{_UNFINISHED}*"):
            with suppress(OSError):  # removed by another meanwhile
                if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                    shutil.rmtree(left)
        yield making
        making.rename(folder)
    except OSError as error:
        raise _unwritable(folder, error) from error
    finally:
        shutil.rmtree(making, ignore_errors=True)


def copy_report(document: Document, output: Path) -> Document:
    """Copy the files of a run into a folder that someone named; returns the document with its new place.

    Raises:
        ForexError: when the folder cannot be written.
    """
    source = Path(document["report"]).parent
    prepare_folder(output)
    moved = document | {
        "report": str(output / REPORT),
        "pdf": str(output / PDF) if document.get("pdf") else None,
    }
    try:
        for path in sorted(p for p in source.rglob("*") if p.is_file()):
            target = output / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        _write_document(output, moved)
    except OSError as error:
        raise _unwritable(output, error) from error
    return moved


def prepare_folder(folder: Path) -> Path:
    """Make a folder and make sure that files can be written into it.

    Raises:
        InputError: this user may not.
        ForexError: there is no room.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):  # which no other process has
            pass
    except OSError as error:
        raise _unwritable(folder, error) from error
    return folder


def _unwritable(folder: Path, error: OSError) -> ForexError:
    told = f"cannot write into {folder} ({error.strerror or error})"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ForexError(f"{told}; make room there and try again")
    return InputError(f"{told}; expected a folder that this user may write")


def _write_document(folder: Path, document: Document) -> None:
    (folder / DOCUMENT).write_text(json.dumps(document, indent=1), encoding="utf-8")
