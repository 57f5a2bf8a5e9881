"""Messages, sent to real servers on loopback: what arrives, what is refused, and what is never told."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from loguru import logger
from pydantic import SecretStr

from forex_core.config import NotifyConfig
from forex_core.notify import Delivery, Message, Notifier, Sent
from tests.mailbox import IN_URL, PASSWORD, Mailbox, mail
from tests.ports import free_port

if TYPE_CHECKING:
    from tests.conftest import Webhook

# Of the mail server here, which takes a password without TLS.
pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS:UserWarning")

TOKEN = "token-9c41d2e8"
MESSAGE = Message("Forecast 7d failed", "No fresh data of USD/CLP.\nRun 'forex doctor'.")


def notifier(*urls: str, **limits: Any) -> Notifier:
    chosen = {"timeout_s": 60.0, "limit_s": 200.0, "attempts": 1, "retry_wait_s": 0.05} | limits
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


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "fan.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    return path


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "report.html"
    path.write_text("<p>El dólar</p>", encoding="utf-8")
    return path


def test_a_mail_with_html_pictures_and_files(mailbox: Mailbox, picture: Path, report: Path) -> None:
    html = f'<p>The <b>mediana</b> is 950,1 €</p><img src="cid:{picture.name}" alt="">'
    message = Message("Dólar: 950,1", "plain wörds", html, (picture,), (report,))
    assert only(notifier(mail(mailbox)).send(message)).delivered
    recipients, arrived = mailbox.received[0]
    assert recipients == ["cfo@example.com"]
    assert arrived["subject"] == "Dólar: 950,1"
    assert arrived["from"].addresses[0].addr_spec == "forex@example.com"
    assert arrived["to"].addresses[0].addr_spec == "cfo@example.com"
    assert arrived["message-id"].endswith("@example.com>")
    assert arrived["date"].datetime is not None
    plain, rich = arrived.get_body(("plain",)), arrived.get_body(("html",))
    assert plain is not None
    assert rich is not None
    assert plain.get_content().strip() == "plain wörds"
    assert rich.get_content().strip() == html
    # mixed(alternative(plain, related(html, picture)), report): where mail programs look for each.
    assert arrived.get_content_type() == "multipart/mixed"
    body, attached = arrived.iter_parts()
    assert [part.get_content_type() for part in body.iter_parts()] == ["text/plain", "multipart/related"]
    _, shown = list(body.iter_parts())[1].iter_parts()
    assert (shown.get_content_type(), shown["content-id"]) == ("image/png", "<fan.png>")
    assert shown.get_content_disposition() == "inline"
    assert shown.get_content() == picture.read_bytes()
    assert (attached.get_filename(), attached.get_content_type()) == ("report.html", "text/html")
    assert attached.get_content_disposition() == "attachment"
    assert attached.get_content().strip() == "<p>El dólar</p>"


def test_copies_of_a_mail_go_where_the_address_says(mailbox: Mailbox, picture: Path) -> None:
    address = (
        f"{mail(mailbox)}&cc=desk@example.com&bcc=audit@example.com&reply=fx@example.com&+X-Team=treasury"
    )
    message = Message("t", "text", "<p>html</p>", (picture,))
    assert only(notifier(address).send(message)).delivered
    recipients, arrived = mailbox.received[0]
    assert sorted(recipients) == ["audit@example.com", "cfo@example.com", "desk@example.com"]
    assert (arrived["cc"], arrived["bcc"], arrived["reply-to"]) == (
        "desk@example.com",
        None,
        "fx@example.com",
    )
    assert arrived["x-team"] == "treasury"


def test_who_asks_for_text_gets_text(mailbox: Mailbox, picture: Path) -> None:
    message = Message("t", "plain words", "<p>html</p>", (picture,))
    assert only(notifier(f"{mail(mailbox)}&format=text").send(message)).delivered
    arrived = mailbox.received[0][1]
    body = arrived.get_body(("plain",))
    assert body is not None
    assert body.get_content().strip() == "plain words"
    assert arrived.get_body(("html",)) is None
    assert [part.get_filename() for part in arrived.iter_attachments()] == ["fan.png"]


def test_what_is_to_be_encrypted_is_never_sent_in_the_clear(mailbox: Mailbox, picture: Path) -> None:
    message = Message("t", "text", "<p>secret rate</p>", (picture,))
    delivery = only(notifier(f"{mail(mailbox)}&pgp=encrypt").send(message))
    assert not delivery.delivered
    assert mailbox.received == []


def test_a_title_cannot_add_headers_or_recipients(mailbox: Mailbox) -> None:
    message = Message("failed\r\nBcc: spy@example.com\r\n\r\nbody", "text")
    assert only(notifier(mail(mailbox)).send(message)).delivered
    recipients, arrived = mailbox.received[0]
    assert recipients == ["cfo@example.com"]
    assert arrived["bcc"] is None
    assert arrived["subject"] == "failed Bcc: spy@example.com body"


def test_a_missing_file_is_said_and_does_not_stop_the_message(mailbox: Mailbox, tmp_path: Path) -> None:
    lost = tmp_path / "report.html"
    message = Message("t", "text", "<p>html</p>", (tmp_path / "fan.png",), (lost,))
    assert only(notifier(mail(mailbox)).send(message)).delivered
    arrived = mailbox.received[0][1]
    for kind in ("html", "plain"):
        body = arrived.get_body((kind,))
        assert body is not None
        assert f"Not attached, since it is not there: {lost.name}" in body.get_content()
    assert list(arrived.iter_attachments()) == []


HTML = Message("t", "text", "<p>html</p>")
PLAIN_OR_HTML = pytest.mark.parametrize("message", [MESSAGE, HTML], ids=["plain", "html"])


@PLAIN_OR_HTML
def test_a_wrong_password_is_tried_once_and_the_reason_is_the_servers(
    mailbox: Mailbox, message: Message
) -> None:
    delivery = only(notifier(mail(mailbox, password=TOKEN), attempts=3).send(message))
    assert (delivery.delivered, delivery.attempts) == (False, 1)
    assert "535" in str(delivery.reason)
    assert TOKEN not in str(delivery)
    assert mailbox.received == []


@PLAIN_OR_HTML
def test_of_several_recipients_each_is_told_apart_and_once(mailbox: Mailbox, message: Message) -> None:
    mailbox.refused = ("gone@example.com",)
    to = "cfo@example.com,gone@example.com,desk@example.com"
    sent = notifier(mail(mailbox, to=to), attempts=3).send(message)
    assert [one.delivered for one in sent.deliveries] == [True, False, True]
    assert "550" in str(sent.refused[0].reason)
    assert "gone@example.com" in sent.refused[0].target
    assert sorted(who for who, _ in mailbox.received) == [["cfo@example.com"], ["desk@example.com"]]


@PLAIN_OR_HTML
def test_a_server_that_is_busy_is_asked_again(
    mailbox: Mailbox, message: Message, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    asked = notifier(mail(mailbox), attempts=3)
    assert len(asked.targets) == 1  # and Apprise is imported, which says so unless it is quieted
    monkeypatch.setattr("apprise.url.time", SimpleNamespace(sleep=waits.append))
    mailbox.answers = ["451 4.3.0 try again later", "451 4.3.0 try again later"]
    delivery = only(asked.send(message))
    assert (delivery.delivered, delivery.attempts) == (True, 3)
    assert len(mailbox.received) == 1
    assert waits == [], "Apprise would wait 5.5 s from one mail to the next"


@PLAIN_OR_HTML
def test_a_server_that_stays_busy_is_given_up_with_its_reason(mailbox: Mailbox, message: Message) -> None:
    mailbox.answers = ["451 4.3.0 try again later"] * 5
    delivery = only(notifier(mail(mailbox), attempts=2).send(message))
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


BOTH = pytest.mark.parametrize(
    ("address", "message"), [(bare_mail, MESSAGE), (bare_mail, HTML), (hook, MESSAGE)]
)


@BOTH
def test_a_server_that_says_nothing_is_left_after_the_time_out(
    address: Callable[[int], str], message: Message
) -> None:
    done = threading.Event()
    with server(lambda caller: done.wait(200) and None) as port:
        delivery = only(notifier(address(port), timeout_s=0.3).send(message))
        done.set()
    assert not delivery.delivered
    assert "timed out" in str(delivery.reason).lower()
    assert 0.3 <= delivery.seconds < 60


@BOTH
def test_a_server_that_hangs_up_half_way(address: Callable[[int], str], message: Message) -> None:
    def half(caller: socket.socket) -> None:
        if address is bare_mail:
            caller.sendall(b"220 here\r\n")
            caller.recv(1000)
            caller.sendall(b"250 here\r\n")
        caller.recv(1000)

    with server(half) as port:
        delivery = only(notifier(address(port), attempts=2).send(message))
    assert (delivery.delivered, delivery.attempts) == (False, 2)
    assert delivery.reason


@BOTH
def test_a_server_that_is_not_there(address: Callable[[int], str], message: Message) -> None:
    delivery = only(notifier(address(free_port())).send(message))
    assert not delivery.delivered
    assert "refused" in str(delivery.reason).lower()


@PLAIN_OR_HTML
def test_a_server_that_drips_forever_does_not_outlast_the_limit(message: Message) -> None:
    """Each byte comes within the time-out; the whole never ends."""

    def drip(caller: socket.socket) -> None:
        while True:
            caller.sendall(b"2")
            time.sleep(0.1)

    with server(drip) as port:
        began = time.monotonic()
        delivery = only(notifier(bare_mail(port), limit_s=0.8).send(message))
        assert time.monotonic() - began < 60
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
    assert 0.6 <= delivery.seconds < 60


# --- all together


def test_one_target_that_fails_keeps_the_others_from_nothing(mailbox: Mailbox, webhook: Webhook) -> None:
    at_once = threading.Event()

    def hold(_: socket.socket) -> None:
        """Until the others have been told."""
        until = time.monotonic() + 120
        while not (mailbox.received and webhook.received) and time.monotonic() < until:
            time.sleep(0.01)
        if mailbox.received and webhook.received:
            at_once.set()

    with server(hold) as port:
        urls = (hook(port), "nonsense://x", mail(mailbox), hook(webhook.port))
        sent = notifier(*urls, timeout_s=150.0).send(MESSAGE)
    assert at_once.is_set(), "they are told at once"
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
