"""A mail server on loopback that asks for a password, and keeps what it takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

PASSWORD = "p@ss/word-7f3a"
IN_URL = "p%40ss%2Fword-7f3a"


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


@contextmanager
def receiving() -> Iterator[Mailbox]:
    """The server, while it runs."""
    box = Mailbox()
    controller = OnAnyPort(
        box,
        hostname="127.0.0.1",
        port=0,
        authenticator=box.login,
        auth_require_tls=False,
        auth_required=True,
        ready_timeout=200,
    )
    controller.start()
    box.port = controller.port
    yield box
    controller.stop()


def mail(box: Mailbox, *, password: str = IN_URL, to: str = "cfo@example.com") -> str:
    sender = "from=forex@example.com"
    return f"mailto://desk:{password}@127.0.0.1:{box.port}/?{sender}&to={to}&smtp=127.0.0.1&mode=insecure"
