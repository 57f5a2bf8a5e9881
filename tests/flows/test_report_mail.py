"""A report that is sent: what arrives at a real mail server, and that a forecast comes out whatever becomes of it."""

from __future__ import annotations

import json
import re
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from jinja2 import ChoiceLoader, DictLoader

from forex_core.report.language import language_of
from forex_core.report.page import environment_of
from forex_core.types import Horizon
from tests.mailbox import IN_URL, PASSWORD, Mailbox, mail
from tests.ports import free_port

if TYPE_CHECKING:
    from tests.conftest import Webhook

pytestmark = [
    pytest.mark.usefixtures("prefect_server", "kept_pictures", "light"),
    pytest.mark.timeout(280),
    pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS:UserWarning"),
]

WEEK = Horizon(7)


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"attempts": 2, "timeout_s": 2, "limit_s": 20, "retry_wait_s": 0.05}
    monkeypatch.setenv("FOREX_NOTIFY", json.dumps(limits))


@pytest.fixture
def read_by(monkeypatch: pytest.MonkeyPatch, mailbox: Mailbox) -> Mailbox:
    """The reader of the settings."""
    monkeypatch.setenv("FOREX_REPORT__URLS", mail(mailbox))
    return mailbox


def publish(market: Path, **parameters: Any) -> dict[str, Any]:
    from flows.forecast import FLOWS

    state = FLOWS[WEEK](pair="USDCLP", source="csv", paths=[market], return_state=True, **parameters)
    document: dict[str, Any] = state.result()
    assert (state.name == "CompletedWithWarning") == bool(document["warnings"])
    return document


def the_run(tmp_path: Path) -> Any:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path / 'data' / 'mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(f"forecaster_{WEEK}")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    return run


def test_the_report_arrives_with_its_chart_and_its_page(
    market: Path, tmp_path: Path, read_by: Mailbox
) -> None:
    document = publish(market)
    assert document["warnings"] == []
    ((recipients, arrived),) = read_by.received
    assert recipients == ["cfo@example.com"]
    median = document["quantiles"]["0.5"][-1]
    assert f"USD/CLP, 7 days ahead: {median:,.2f} (" in arrived["subject"]
    plain, rich = arrived.get_body(("plain",)), arrived.get_body(("html",))
    assert plain is not None
    assert rich is not None
    for body in (plain.get_content(), rich.get_content()):
        assert document["verdict"]["sentence"].split("(")[0] in body
        assert document["run_id"] in body
    assert 'src="cid:fan.png"' in rich.get_content()
    folder = Path(document["report"]).parent
    pictures = [part for part in arrived.walk() if part["content-id"] == "<fan.png>"]
    assert pictures[0].get_content() == (folder / "charts" / "fan.png").read_bytes()
    (attached,) = [part for part in arrived.iter_parts() if part.get_content_disposition() == "attachment"]
    assert attached.get_filename() == "report.html"
    assert (
        attached.get_content().splitlines()
        == (folder / "report.html").read_text(encoding="utf-8").splitlines()
    )
    tags = the_run(tmp_path).data.tags
    assert (tags["skip_email"], tags["report_sent"]) == ("false", "1 of 1")


@pytest.mark.slow
@pytest.mark.usefixtures("pdf")
def test_in_spanish_and_as_pdf(market: Path, tmp_path: Path, read_by: Mailbox) -> None:
    document = publish(market, lang="es", pdf=True)
    ((_, arrived),) = read_by.received
    rich = arrived.get_body(("html",))
    assert rich is not None
    assert '<html lang="es">' in rich.get_content()
    assert "USD/CLP, a 7 días" in arrived["subject"]
    (attached,) = [part for part in arrived.iter_parts() if part.get_content_disposition() == "attachment"]
    assert (attached.get_filename(), attached.get_content_type()) == ("report.pdf", "application/pdf")
    assert attached.get_content() == Path(document["pdf"]).read_bytes()
    assert attached.get_content().startswith(b"%PDF")
    assert document["lang"] == "es"
    assert document["verdict"]["sentence"].startswith(("No skill", "At 7d", "Usable")), (
        "the document is in English"
    )
    assert '<html lang="es">' in Path(document["report"]).read_text(encoding="utf-8")
    stored = Path(the_run(tmp_path).info.artifact_uri.removeprefix("file://")) / "reports"
    assert (stored / "report.pdf").read_bytes() == Path(document["pdf"]).read_bytes()


@pytest.mark.slow
@pytest.mark.usefixtures("pdf")
def test_a_report_in_another_language_or_as_pdf_is_made_and_the_same_is_not(market: Path) -> None:
    english = publish(market)
    assert publish(market)["run_id"] == english["run_id"]
    printed = publish(market, pdf=True)
    assert printed["run_id"] != english["run_id"]
    assert publish(market, pdf=True)["run_id"] == printed["run_id"]
    assert publish(market)["run_id"] == printed["run_id"], "who does not ask for a PDF is content with one"
    spanish = publish(market, lang="es")
    assert spanish["run_id"] not in (english["run_id"], printed["run_id"])
    assert spanish["quantiles"] == english["quantiles"]


@pytest.mark.slow
def test_a_report_that_was_sent_is_not_sent_again(market: Path, read_by: Mailbox) -> None:
    publish(market)
    assert publish(market)["already_published"]
    assert len(read_by.received) == 1
    publish(market, force=True)
    assert len(read_by.received) == 2


def test_nothing_is_sent_where_that_is_asked_for(market: Path, tmp_path: Path, read_by: Mailbox) -> None:
    assert publish(market, skip_email=True)["warnings"] == []
    assert read_by.received == []
    tags = the_run(tmp_path).data.tags
    assert tags["skip_email"] == "true"
    assert "report_sent" not in tags


def test_a_reader_who_is_refused_is_told_of_in_the_run_and_the_others_get_theirs(
    market: Path, tmp_path: Path, mailbox: Mailbox, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    mailbox.refused = ("gone@example.com",)
    hook = f"json://desk:{IN_URL}@127.0.0.1:{webhook.port}/x"
    monkeypatch.setenv("FOREX_REPORT__URLS", json.dumps([mail(mailbox, to="gone@example.com"), hook]))
    document = publish(market)
    (warning,) = document["warnings"]
    assert re.match(
        r"The report did not reach target 1 \(E-Mail, 127.0.0.1, gone@example.com\): .*550", warning
    )
    _, body, _ = webhook.received[0]
    assert "USD/CLP, 7 days ahead" in body["title"]
    assert "<html" not in body["message"]
    assert [one["filename"] for one in body["attachments"]] == ["fan.png", "report.html"]
    tags = the_run(tmp_path).data.tags
    assert (tags["skip_email"], tags["report_sent"], tags["warnings"]) == ("false", "1 of 2", warning)
    assert PASSWORD not in json.dumps(document)
    assert PASSWORD not in str(tags)


def test_a_busy_server_is_asked_again(market: Path, tmp_path: Path, read_by: Mailbox) -> None:
    read_by.answers = ["451 4.3.0 try again later"]
    assert publish(market)["warnings"] == []
    assert len(read_by.received) == 1
    assert the_run(tmp_path).data.tags["report_sent"] == "1 of 1"


def test_a_server_that_says_nothing_or_is_not_there_keeps_no_forecast_from_coming_out(
    market: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ports = (silent.getsockname()[1], free_port())
        urls = [
            f"mailto://127.0.0.1:{port}/?from=forex@example.com&to=cfo@example.com&smtp=127.0.0.1&mode=insecure"
            for port in ports
        ]
        monkeypatch.setenv("FOREX_REPORT__URLS", json.dumps(urls))
        monkeypatch.setenv("FOREX_NOTIFY__TIMEOUT_S", "0.3")
        document = publish(market)
        done.set()
    late, refused = document["warnings"]
    assert "timed out" in late
    assert "refused" in refused
    tags = the_run(tmp_path).data.tags
    assert (tags["skip_email"], tags["report_sent"]) == ("false", "0 of 2")
    assert tags["warnings"] == f"{late} {refused}"


@pytest.mark.slow
def test_readers_may_be_named_in_a_block_and_one_that_is_not_there_is_a_warning(
    market: Path, tmp_path: Path, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.blocks.system import Secret

    monkeypatch.setenv("FOREX_REPORT__PREFECT_BLOCK", "no-such-block")
    (warning,) = publish(market)["warnings"]
    assert warning.startswith(
        "The report was sent to nobody: there is no Prefect Secret block 'no-such-block'"
    )
    assert "report.prefect_block" in warning
    assert the_run(tmp_path).data.tags["skip_email"] == "true"
    Secret(value=mail(mailbox)).save("readers", overwrite=True, _sync=True)
    monkeypatch.setenv("FOREX_REPORT__PREFECT_BLOCK", "readers")
    assert publish(market, force=True)["warnings"] == []
    assert len(mailbox.received) == 1


@pytest.mark.slow
def test_a_mail_that_cannot_be_composed_keeps_no_forecast_from_coming_out(
    market: Path, tmp_path: Path, read_by: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = environment_of(language_of("en"))
    assert environment.loader is not None
    broken = DictLoader({"mail.html.j2": "{{ summary.nothing_of_the_kind }}"})
    monkeypatch.setattr(environment, "loader", ChoiceLoader([broken, environment.loader]))
    (warning,) = publish(market)["warnings"]
    assert warning.startswith("Sending the report did not end: ")
    assert "nothing_of_the_kind" in warning
    assert read_by.received == []
    tags = the_run(tmp_path).data.tags
    assert (tags["skip_email"], tags["warnings"], tags["in_ledger"]) == ("true", warning, "yes")
    # Nor is one composed that nobody is sent.
    assert publish(market, force=True, skip_email=True)["warnings"] == []


def test_who_is_told_of_events_is_sent_no_report(
    market: Path, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREX_NOTIFY__URLS", mail(mailbox))
    publish(market)
    assert mailbox.received == []


def test_without_weasyprint_a_pdf_fails_the_run_and_says_what_to_install(
    market: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    from mlflow import MlflowClient

    from flows.forecast import FLOWS
    from forex_core.errors import ConfigError

    monkeypatch.setitem(sys.modules, "weasyprint", None)  # as where it is not installed
    with pytest.raises(ConfigError, match=r"forex-forecast\[pdf\]"):
        FLOWS[WEEK](pair="USDCLP", source="csv", paths=[market], pdf=True)
    client = MlflowClient(f"sqlite:///{tmp_path / 'data' / 'mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(f"forecaster_{WEEK}")
    assert [run.info.status for run in client.search_runs([experiment.experiment_id])] == ["FAILED"]
