"""Messages, sent to real servers on loopback: what arrives, what is refused, and what is never told."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from loguru import logger
from pydantic import SecretStr

from forex_core.config import NotifyConfig
from forex_core.notify import Delivery, Message, Notifier, Sent

if TYPE_CHECKING:
    from tests.conftest import Webhook

# Of the mail server here, which takes a password without TLS.
pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS:UserWarning")

PASSWORD = "p@ss/word-7f3a"
IN_URL = "p%40ss%2Fword-7f3a"
TOKEN = "token-9c41d2e8"
MESSAGE = Message("Forecast 7d failed", "No fresh data of USD/CLP.\nRun 'forex doctor'.")


def notifier(*urls: str, **limits: Any) -> Notifier:
    chosen = {"timeout_s": 2.0, "limit_s": 20.0, "attempts": 1, "retry_wait_s": 0.05} | limits
    return Notifier(NotifyConfig(urls=tuple(SecretStr(url) for url in urls), **chosen))


def only(sent: Sent) -> Delivery:
    assert len(sent.deliveries) == 1
    return sent.deliveries[0]


@pytest.fixture(autouse=True)
def heard() -> Iterator[list[str]]:
    """Whatever any logger says while a test runs, at any level; no secret may be in it."""

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(f"{record.name} {record.levelname} {record.getMessage()}")

    said: list[str] = []
    root, ear = logging.getLogger(), Ear(logging.DEBUG)
    level = root.level
    root.addHandler(ear)
    root.setLevel(logging.DEBUG)
    sink = logger.add(lambda text: said.append(str(text)), level="TRACE")
    yield said
    logger.remove(sink)
    root.removeHandler(ear)
    root.setLevel(level)
    own = [line for line in said if not line.startswith(("mail.log", "asyncio"))]  # of the servers here
    assert not [line for line in own if line.startswith(("apprise ", "urllib3.connectionpool "))]
    assert not [line for line in own if PASSWORD in line or IN_URL in line or TOKEN in line]


# --- mail


@dataclass
class Mailbox:
    """What a mail server took: (recipients, message). `answers` are given to the next messages in place of 250."""

    received: list[tuple[list[str], EmailMessage]] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    refused: tuple[str, ...] = ()
    port: int = 0
    logins: int = 0

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.refused:
            return "550 5.1.1 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.answers:
            return self.answers.pop(0)
        message = message_from_bytes(bytes(envelope.content or b""), policy=default)
        assert isinstance(message, EmailMessage)
        self.received.append((list(envelope.rcpt_tos), message))
        return "250 OK"

    def login(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        self.logins += 1
        right = LoginPassword(b"desk", PASSWORD.encode())
        return AuthResult(success=data == right, handled=False)


class OnAnyPort(Controller):
    """A mail server on a port that the system chooses."""

    def _trigger_server(self) -> None:
        assert self.server is not None
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    """A mail server that asks for a password."""
    box = Mailbox()
    controller = OnAnyPort(
        box, hostname="127.0.0.1", port=0, authenticator=box.login, auth_require_tls=False, auth_required=True
    )
    controller.start()
    box.port = controller.port
    yield box
    controller.stop()


def mail(box: Mailbox, *, password: str = IN_URL, to: str = "cfo@example.com") -> str:
    sender = "from=forex@example.com"
    return f"mailto://desk:{password}@127.0.0.1:{box.port}/?{sender}&to={to}&smtp=127.0.0.1&mode=insecure"


def test_a_mail_arrives_with_title_and_text(mailbox: Mailbox) -> None:
    delivery = only(notifier(mail(mailbox)).send(MESSAGE))
    assert (delivery.delivered, delivery.attempts, delivery.reason) == (True, 1, None)
    assert "cfo@example.com" in delivery.target
    recipients, message = mailbox.received[0]
    assert recipients == ["cfo@example.com"]
    assert message["subject"] == MESSAGE.title
    assert message["from"].addresses[0].addr_spec == "forex@example.com"
    body = message.get_body(("plain",))
    assert body is not None
    assert "Run 'forex doctor'." in body.get_content()


def test_a_mail_with_html_and_files(mailbox: Mailbox, tmp_path: Path) -> None:
    table = tmp_path / "forecast.csv"
    table.write_text("date,median\n2024-06-28,950.1\n")
    message = Message("Forecast 7d", "plain words", "<p>The <b>median</b> is 950.1</p>", (table,))
    assert only(notifier(mail(mailbox)).send(message)).delivered
    arrived = mailbox.received[0][1]
    html, plain = arrived.get_body(("html",)), arrived.get_body(("plain",))
    assert html is not None
    assert plain is not None
    assert "<b>median</b>" in html.get_content()
    assert "median is 950.1" in plain.get_content().replace("*", "")
    attached = {part.get_filename(): part.get_content() for part in arrived.iter_attachments()}
    assert attached["forecast.csv"].replace("\r\n", "\n") == table.read_text()


def test_a_title_cannot_add_headers_or_recipients(mailbox: Mailbox) -> None:
    message = Message("failed\r\nBcc: spy@example.com\r\n\r\nbody", "text")
    assert only(notifier(mail(mailbox)).send(message)).delivered
    recipients, arrived = mailbox.received[0]
    assert recipients == ["cfo@example.com"]
    assert arrived["bcc"] is None
    assert arrived["subject"] == "failed Bcc: spy@example.com body"


def test_a_missing_file_is_said_and_does_not_stop_the_message(mailbox: Mailbox, tmp_path: Path) -> None:
    lost = tmp_path / "report.html"
    assert only(
        notifier(mail(mailbox)).send(Message("t", "text", "<p>html</p>", attachments=(lost,)))
    ).delivered
    arrived = mailbox.received[0][1]
    html = arrived.get_body(("html",))
    assert html is not None
    assert f"Not attached, since it is not there: {lost}" in html.get_content().replace("=\n", "")
    assert list(arrived.iter_attachments()) == []


def test_a_wrong_password_is_tried_once_and_the_reason_is_the_servers(mailbox: Mailbox) -> None:
    delivery = only(notifier(mail(mailbox, password=TOKEN), attempts=3).send(MESSAGE))
    assert (delivery.delivered, delivery.attempts) == (False, 1)
    assert "535" in str(delivery.reason)
    assert TOKEN not in str(delivery)
    assert mailbox.received == []


def test_of_several_recipients_each_is_told_apart_and_once(mailbox: Mailbox) -> None:
    mailbox.refused = ("gone@example.com",)
    to = "cfo@example.com,gone@example.com,desk@example.com"
    sent = notifier(mail(mailbox, to=to), attempts=3).send(MESSAGE)
    assert [one.delivered for one in sent.deliveries] == [True, False, True]
    assert "550" in str(sent.refused[0].reason)
    assert "gone@example.com" in sent.refused[0].target
    assert sorted(who for who, _ in mailbox.received) == [["cfo@example.com"], ["desk@example.com"]]


def test_a_server_that_is_busy_is_asked_again(mailbox: Mailbox) -> None:
    mailbox.answers = ["451 4.3.0 try again later", "451 4.3.0 try again later"]
    delivery = only(notifier(mail(mailbox), attempts=3).send(MESSAGE))
    assert (delivery.delivered, delivery.attempts) == (True, 3)
    assert len(mailbox.received) == 1


def test_a_server_that_stays_busy_is_given_up_with_its_reason(mailbox: Mailbox) -> None:
    mailbox.answers = ["451 4.3.0 try again later"] * 5
    delivery = only(notifier(mail(mailbox), attempts=2).send(MESSAGE))
    assert (delivery.delivered, delivery.attempts) == (False, 2)
    assert "try again later" in str(delivery.reason)
    assert len(mailbox.answers) == 3


# --- servers that do not behave


@contextmanager
def server(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port on which each caller is talked to by `talk`, and hung up on after it."""

    def answer(caller: socket.socket) -> None:
        with caller:
            try:
                talk(caller)
            except OSError:
                return

    def listen() -> None:
        while True:
            try:
                caller, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(caller,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=listen, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


def bare_mail(port: int) -> str:
    return (
        f"mailto://127.0.0.1:{port}/?from=forex@example.com&to=cfo@example.com&smtp=127.0.0.1&mode=insecure"
    )


def hook(port: int, path: str = f"/{TOKEN}") -> str:
    return f"json://desk:{IN_URL}@127.0.0.1:{port}{path}"


BOTH = pytest.mark.parametrize("address", [bare_mail, hook])


@BOTH
def test_a_server_that_says_nothing_is_left_after_the_time_out(address: Callable[[int], str]) -> None:
    done = threading.Event()
    with server(lambda caller: done.wait(30) and None) as port:
        delivery = only(notifier(address(port), timeout_s=0.3).send(MESSAGE))
        done.set()
    assert not delivery.delivered
    assert "timed out" in str(delivery.reason).lower()
    assert 0.3 <= delivery.seconds < 2


@BOTH
def test_a_server_that_hangs_up_half_way(address: Callable[[int], str]) -> None:
    def half(caller: socket.socket) -> None:
        if address is bare_mail:
            caller.sendall(b"220 here\r\n")
            caller.recv(1000)
            caller.sendall(b"250 here\r\n")
        caller.recv(1000)

    with server(half) as port:
        delivery = only(notifier(address(port), attempts=2).send(MESSAGE))
    assert (delivery.delivered, delivery.attempts) == (False, 2)
    assert delivery.reason


@BOTH
def test_a_server_that_is_not_there(address: Callable[[int], str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    delivery = only(notifier(address(port)).send(MESSAGE))
    assert not delivery.delivered
    assert "refused" in str(delivery.reason).lower()


def test_a_server_that_drips_forever_does_not_outlast_the_limit() -> None:
    """Each byte comes within the time-out; the whole never ends."""

    def drip(caller: socket.socket) -> None:
        while True:
            caller.sendall(b"2")
            time.sleep(0.1)

    with server(drip) as port:
        began = time.monotonic()
        delivery = only(notifier(bare_mail(port), limit_s=0.8).send(MESSAGE))
        assert time.monotonic() - began < 2
    assert not delivery.delivered
    assert "no answer within 0.8 s (notify.limit_s)" in str(delivery.reason)


# --- webhooks


def test_a_webhook_gets_text_kind_and_password(webhook: Webhook) -> None:
    message = Message("Rolled back", "to version 3", "<p>never shown</p>", kind="warning")
    delivery = only(notifier(hook(webhook.port)).send(message))
    assert delivery.delivered
    path, body, headers = webhook.received[0]
    assert path == f"/{TOKEN}"
    assert (body["title"], body["message"], body["type"]) == ("Rolled back", "to version 3", "warning")
    assert headers["Authorization"].startswith("Basic ")


@pytest.mark.parametrize("answer", [401, 403, 404])
def test_a_webhook_that_refuses_is_asked_once(webhook: Webhook, answer: int) -> None:
    webhook.answers = [answer] * 3
    delivery = only(notifier(hook(webhook.port), attempts=3).send(MESSAGE))
    assert (delivery.delivered, delivery.attempts, len(webhook.received)) == (False, 1, 1)
    assert str(answer) in str(delivery.reason)


@pytest.mark.parametrize("answer", [429, 500, 503])
def test_a_webhook_in_trouble_is_asked_again(webhook: Webhook, answer: int) -> None:
    webhook.answers = [answer]
    delivery = only(notifier(hook(webhook.port), attempts=3).send(MESSAGE))
    assert (delivery.delivered, delivery.attempts, len(webhook.received)) == (True, 2, 2)


def test_the_wait_between_attempts_doubles(webhook: Webhook) -> None:
    webhook.answers = [503, 503]
    delivery = only(notifier(hook(webhook.port), attempts=3, retry_wait_s=0.2).send(MESSAGE))
    assert delivery.delivered
    assert 0.6 <= delivery.seconds < 2


# --- all together


def test_one_target_that_fails_keeps_the_others_from_nothing(mailbox: Mailbox, webhook: Webhook) -> None:
    done = threading.Event()
    with server(lambda caller: done.wait(30) and None) as port:
        urls = (hook(port), "nonsense://x", mail(mailbox), hook(webhook.port))
        began = time.monotonic()
        sent = notifier(*urls, timeout_s=1.0).send(MESSAGE)
        assert time.monotonic() - began < 3, "they are told at once"
        done.set()
    assert [one.delivered for one in sent.deliveries] == [False, False, True, True]
    assert [one.target.partition(" (")[0] for one in sent.deliveries] == [f"target {n}" for n in (1, 2, 3, 4)]
    assert "expected an address that Apprise knows" in str(sent.refused[1].reason)
    assert len(mailbox.received) == len(webhook.received) == 1


def test_without_targets_nothing_happens() -> None:
    assert notifier().send(MESSAGE) == Sent(())


@pytest.mark.parametrize("host", ["[::1", "127.0.0.1", "127.0.0.1:99999", "nowhere.invalid"])
def test_an_address_that_is_odd_is_a_refusal_like_any_other(host: str) -> None:
    delivery = only(notifier(f"json://desk:{IN_URL}@{host}/{TOKEN}?key={TOKEN}").send(MESSAGE))
    assert not delivery.delivered
    assert "no answer within" not in str(delivery.reason)
    assert TOKEN not in repr(delivery)
    assert PASSWORD not in repr(delivery)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"mailto://desk:{IN_URL}@example.com?to=cfo@example.com", "E-Mail, example.com, cfo@example.com"),
        (f"jsons://desk:{IN_URL}@example.com/{TOKEN}?key={TOKEN}", "JSON, example.com"),
        (f"discord://4174216298{TOKEN}/JHMHI8qBe7bk2ZwO5U711o3dV_js", "Discord"),
        (f"slack://T1JJ3T3L2/A1BRTD4JD/{TOKEN.replace('-', '')}00000000000/#fx", "Slack"),
        (f"tgram://123456789:{TOKEN.replace('-', '')}000000000000000000/12315544/", "Telegram"),
        (f"nonsense://desk:{IN_URL}@example.com/{TOKEN}", "not understood"),
        ("", "not understood"),
    ],
)
def test_what_is_shown_of_a_target_holds_no_secret(url: str, shown: str) -> None:
    one = notifier(url)
    assert [target.name for target in one.targets] == [f"target 1 ({shown})"]
    said = repr((one.targets, one, one._config))
    assert PASSWORD not in said
    assert IN_URL not in said
    assert TOKEN not in said
    assert TOKEN.replace("-", "") not in said
