"""The flow that tells people, and whom it finds in a Prefect Secret block."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from forex_core.config import load_settings
from forex_core.errors import ConfigError, NotifyError
from tests.mailbox import IN_URL, PASSWORD, Mailbox, mail
from tests.ports import free_port

if TYPE_CHECKING:
    from tests.conftest import Webhook

pytestmark = [
    pytest.mark.usefixtures("prefect_server"),
    # Of the mail server here, which takes a password without TLS.
    pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS:UserWarning"),
]

TOKEN, CHAT = "token-4be19d07", "3ccdd113474722377935511fc85d3dd4"


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, webhook: Webhook) -> Webhook:
    """The one target of the settings."""
    monkeypatch.setenv("FOREX_NOTIFY__URLS", f"json://127.0.0.1:{webhook.port}/{TOKEN}")
    monkeypatch.setenv("FOREX_NOTIFY__ATTEMPTS", "1")
    return webhook


@pytest.fixture
def nobody() -> str:
    """Address of a server that is not there."""
    return f"json://127.0.0.1:{free_port()}/{TOKEN}"


def block(name: str, value: Any) -> None:
    from prefect.blocks.system import Secret

    Secret(value=value).save(name, overwrite=True, _sync=True)


def test_the_flow_tells_every_target(told: Webhook) -> None:
    from flows.notice import alert

    document = alert(title="Forecast 7d failed", text="run forex doctor", kind="warning")
    assert [one["delivered"] for one in document["deliveries"]] == [True]
    assert [(body["title"], body["type"]) for _, body, _ in told.received] == [
        ("Forecast 7d failed", "warning")
    ]
    assert TOKEN not in json.dumps(document)


def test_the_flow_fails_when_it_reached_nobody(monkeypatch: pytest.MonkeyPatch, nobody: str) -> None:
    from flows.notice import alert

    monkeypatch.setenv("FOREX_NOTIFY__URLS", nobody)
    monkeypatch.setenv("FOREX_NOTIFY__ATTEMPTS", "1")
    with pytest.raises(NotifyError, match="'lost' reached nobody: target 1"):
        alert(title="lost", text="text")


def test_the_flow_says_that_there_is_nobody_to_tell() -> None:
    from flows.notice import alert

    assert alert(title="unheard", text="text") == {"title": "unheard", "deliveries": []}


@pytest.mark.parametrize("shape", ["one", "lines", "json", "list"])
def test_a_block_holds_one_address_or_many(
    shape: str, told: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.notice import notifier_of

    more = [f"json://127.0.0.1:{told.port}/a", f"json://127.0.0.1:{told.port}/b"]
    value: dict[str, Any] = {"one": more[0], "lines": "\n".join(more), "json": json.dumps(more), "list": more}
    block(f"targets-{shape}", value[shape])
    monkeypatch.setenv("FOREX_NOTIFY__PREFECT_BLOCK", f"targets-{shape}")
    notifier = notifier_of(load_settings())
    assert len(notifier.targets) == (2 if shape == "one" else 3)
    assert TOKEN not in repr(notifier.targets)


def test_the_flow_tells_those_of_a_block_as_well(
    told: Webhook, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By mail and in a chat, which the settings know nothing of."""
    from flows.notice import alert

    chat = f"mmost://127.0.0.1:{told.port}/{CHAT}?image=no"
    block("whom-to-tell", [mail(mailbox), chat])
    monkeypatch.setenv("FOREX_NOTIFY__PREFECT_BLOCK", "whom-to-tell")
    document = alert(title="Forecast 7d failed", text="run forex doctor")
    assert [one["delivered"] for one in document["deliveries"]] == [True] * 3
    ((recipients, message),) = mailbox.received
    assert (recipients, message["subject"]) == (["cfo@example.com"], "Forecast 7d failed")
    body = message.get_body(("plain",))
    assert body is not None
    assert "run forex doctor" in body.get_content()
    received = {path: body for path, body, _ in told.received}
    assert set(received) == {f"/{TOKEN}", f"/hooks/{CHAT}"}
    assert all(
        part in received[f"/hooks/{CHAT}"]["text"] for part in ("Forecast 7d failed", "run forex doctor")
    )
    assert not any(secret in json.dumps(document) for secret in (TOKEN, CHAT, IN_URL, PASSWORD))


@pytest.mark.parametrize("value", [{"url": f"json://x/{TOKEN}"}, f'["json://x/{TOKEN}"', 7])
def test_a_block_that_holds_no_addresses_is_refused_without_showing_it(
    value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.notice import notifier_of

    block("no-targets", value)
    monkeypatch.setenv("FOREX_NOTIFY__PREFECT_BLOCK", "no-targets")
    with pytest.raises(ConfigError, match="is no address and no list") as refused:
        notifier_of(load_settings())
    assert TOKEN not in str(refused.value)


def test_a_block_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.notice import notifier_of

    monkeypatch.setenv("FOREX_NOTIFY__PREFECT_BLOCK", "nowhere")
    with pytest.raises(ConfigError, match="there is no Prefect Secret block 'nowhere'"):
        notifier_of(load_settings())


def test_a_server_that_does_not_answer_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.notice import readers_of

    monkeypatch.setenv("FOREX_REPORT__PREFECT_BLOCK", "readers")
    with (
        temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"}),
        pytest.raises(
            ConfigError, match=r"'readers' \(report.prefect_block\) could not be read \(ConnectError\)"
        ),
    ):
        readers_of(load_settings())
