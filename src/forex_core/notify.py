"""Messages to people by mail, chat or webhook: whatever Apprise has an address for (https://appriseit.com/services/)."""

from __future__ import annotations

import logging
import re
import smtplib
import ssl
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formataddr, localtime, make_msgid
from functools import cache, cached_property
from html import escape
from mimetypes import guess_type
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeGuard
from urllib.parse import parse_qsl, urlsplit

from loguru import logger

from forex_core.config import NotifyConfig
from forex_core.secrecy import redacted, spellings

if TYPE_CHECKING:
    from apprise import NotifyBase
    from apprise.plugins.email import NotifyEmail

Kind = Literal["info", "success", "warning", "failure"]

_THREAD = "notify-"
_REASON_LENGTH = 300
# A reply that says no for good: HTTP 4xx but for "try again", SMTP 5xx.
_FOR_GOOD = re.compile(r"error=4(?!08|25|29)\d\d|\(5\d\d, b")
_DETAIL = ("Socket Exception: ", "Response Details: ")


@dataclass(frozen=True)
class Message:
    """What is to be told.

    Attributes:
        title: one line.
        text: plain, for whoever shows no HTML.
        html: the same for mail.
        pictures: files that `html` shows as `cid:` and their name; attachments to whatever is no mail.
        attachments: files; one that is missing is left out, and the message says so.
        kind: how services that have colours show it.
    """

    title: str
    text: str
    html: str | None = None
    pictures: tuple[Path, ...] = ()
    attachments: tuple[Path, ...] = ()
    kind: Kind = "info"


@dataclass(frozen=True)
class Delivery:
    """What became of a message at one target; `reason` is why it was refused. Nothing here tells an address."""

    target: str
    delivered: bool
    attempts: int
    seconds: float
    reason: str | None = None


@dataclass(frozen=True)
class Sent:
    """What became of a message, target by target, in the order of the addresses."""

    deliveries: tuple[Delivery, ...] = ()

    @property
    def delivered(self) -> tuple[Delivery, ...]:
        return tuple(one for one in self.deliveries if one.delivered)

    @property
    def refused(self) -> tuple[Delivery, ...]:
        return tuple(one for one in self.deliveries if not one.delivered)


class Notifier:
    """Sends messages to every address of the settings.

    Args:
        config: addresses and limits.
        more: addresses beside those of the settings.
    """

    def __init__(self, config: NotifyConfig, more: Sequence[str] = ()) -> None:
        self._config = config
        self._urls = (*(url.get_secret_value() for url in config.urls), *more)

    @property
    def targets(self) -> tuple[Target, ...]:
        """Whom the addresses name. Of an address with several recipients of mail each is a target of its own."""
        _prepare()
        return tuple(
            one
            for number, url in enumerate(self._urls, start=1)
            for one in Target(number, url, self._config.timeout_s).by_recipient
        )

    def send(self, message: Message) -> Sent:
        """Tell every target, each for itself and all at once. It never raises: what was refused is in the result.

        A message may arrive twice: at a server that takes it and hangs up before it says so.
        """
        message = _with_files_that_exist(message)
        asked = [_Delivering(target, message, self._config) for target in self.targets]
        for one in asked:
            one.start()
        sent = Sent(tuple(one.result() for one in asked))
        for delivery in sent.deliveries:
            if delivery.delivered:
                logger.info("'{}' was delivered to {}", message.title, delivery.target)
            else:
                logger.warning(
                    "'{}' was not delivered to {}: {}", message.title, delivery.target, delivery.reason
                )
        return sent


@dataclass(frozen=True)
class Target:
    """One address, or one of the recipients of mail that it names. What it shows of itself is no secret."""

    number: int
    url: str = field(repr=False)
    timeout_s: float
    recipient: tuple[Any, str] | None = None

    @cached_property
    def plugin(self) -> NotifyBase | None:
        """Apprise's object of the address, None for one that it does not understand."""
        return self._made()

    def _made(self) -> NotifyBase | None:
        """Apprise's object, a new one: it has not to wait for what another one has sent."""
        from apprise import Apprise, AppriseAsset

        asset = AppriseAsset(
            app_id="forex-forecast", app_desc="Forex forecast", secure_logging=True, async_mode=False
        )
        made = Apprise.instantiate(self.url, asset=asset)
        if made is None:
            return None
        made.socket_connect_timeout = made.socket_read_timeout = self.timeout_s
        made.retry = 0  # ours have a limit of time
        if self.recipient is not None and _is_mail(made):
            made.targets = [self.recipient]
        return made

    @property
    def name(self) -> str:
        """The kind of service and, where the address has them in plain sight, its host and the recipient of mail."""
        if self.plugin is None:
            return f"target {self.number} (not understood)"
        return f"target {self.number} ({', '.join([str(self.plugin.service_name), *self._plain])})"

    @property
    def _plain(self) -> list[str]:
        """Parts of the address that are no secret. What stands in a host's place is a token for many services."""
        if self.plugin is None:
            return []
        shown = [str(self.plugin.host)] if "host" in self.plugin.template_tokens else []
        return [*shown, self.recipient[1]] if self.recipient else shown

    @property
    def by_recipient(self) -> tuple[Target, ...]:
        """One target for each recipient of mail, so that who got a message is not told again."""
        if self.plugin is None or not _is_mail(self.plugin):
            return (self,)
        return tuple(replace(self, recipient=recipient) for recipient in self.plugin.targets)

    def tell(self, message: Message) -> str | None:
        """Send once; why it was refused, None for what was delivered."""
        plugin = self._made()
        if plugin is None:
            return (
                "error=400: expected an address that Apprise knows, such as mailto://user:password@example.com or "
                "json://example.com/hook; see https://appriseit.com/services/"
            )
        reason = _mailed(plugin, message) if _takes_html_mail(plugin, message) else _told(plugin, message)
        return None if reason is None else redacted(reason, self._secrets)[:_REASON_LENGTH]

    @property
    def _secrets(self) -> frozenset[str]:
        """Every part of the address but those in plain sight: services keep their keys in any of them."""
        try:
            parts = urlsplit(self.url)
            found = {self.url, parts.username, parts.password, parts.query}
            found |= {*re.split(r"[/,@:]", parts.netloc), *re.split(r"[/,]", parts.path)}
            found |= {value for _, value in parse_qsl(parts.query)}
        except ValueError:  # Apprise is less particular
            found = {self.url, *re.split(r"[^\w.%-]+", self.url)}
        return spellings(part for part in found if part) - set(self._plain) - {"yes", "no"}


class _Delivering(threading.Thread):
    """A message on its way to one target."""

    def __init__(self, target: Target, message: Message, config: NotifyConfig) -> None:
        super().__init__(name=f"{_THREAD}{target.number}", daemon=True)
        self._target = target
        self._message = message
        self._config = config
        self._began = time.monotonic()
        self._attempts = 0
        self._delivery: Delivery | None = None

    def run(self) -> None:
        """Try, and try again after a longer wait each time, unless the answer is no for good."""
        wait = self._config.retry_wait_s
        while True:
            self._attempts += 1
            reason = self._target.tell(self._message)
            is_last = self._attempts == self._config.attempts or self._left < wait
            if reason is None or is_last or _FOR_GOOD.search(reason):
                break
            time.sleep(wait)
            wait *= 2
        self._delivery = self._ended(reason)

    def result(self) -> Delivery:
        """What became of it, as soon as that is known or its time is over."""
        self.join(max(self._left, 0))
        return self._delivery or self._ended(f"no answer within {self._config.limit_s:g} s (notify.limit_s)")

    @property
    def _left(self) -> float:
        return self._began + self._config.limit_s - time.monotonic()

    def _ended(self, reason: str | None) -> Delivery:
        seconds = time.monotonic() - self._began
        return Delivery(self._target.name, reason is None, self._attempts, seconds, reason)


def _told(plugin: NotifyBase, message: Message) -> str | None:
    """Send by Apprise; why it was refused."""
    from apprise import Apprise, NotifyFormat, NotifyType

    html = message.html if _is_mail(plugin) and plugin.notify_format == NotifyFormat.HTML else None
    target = Apprise()
    target.add(plugin)
    with _Heard() as heard:
        delivered = target.notify(
            body=html or message.text,
            title=" ".join(message.title.split()),  # a second line would be a header of the mail
            notify_type=NotifyType(message.kind),
            body_format=NotifyFormat.HTML if html else NotifyFormat.TEXT,
            attach=[str(path) for path in (*message.pictures, *message.attachments)] or None,
        )
    return None if delivered else heard.reason


def _takes_html_mail(plugin: NotifyBase, message: Message) -> bool:
    """Whether a message is mailed by ourselves (docs/adr/0015); what is to be encrypted is left to Apprise."""
    from apprise import NotifyFormat
    from apprise.plugins.email.base import PGP_MODE_DEFAULT

    wants_html = message.html is not None and plugin.notify_format == NotifyFormat.HTML
    return wants_html and _is_mail(plugin) and plugin.pgp_mode == PGP_MODE_DEFAULT


def _is_mail(plugin: NotifyBase) -> TypeGuard[NotifyEmail]:
    from apprise.plugins.email import NotifyEmail

    return isinstance(plugin, NotifyEmail)


def _mailed(plugin: Any, message: Message) -> str | None:
    """Send a mail with text and HTML, pictures in the HTML and files beside both; why it was refused.

    Args:
        plugin: Apprise's object of an address of mail, which has read everything out of it.
    """
    from apprise.plugins.email.common import SecureMailMode

    context = ssl.create_default_context()
    if not plugin.verify_certificate:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    server: smtplib.SMTP | None = None
    try:
        if plugin.secure_mode == SecureMailMode.SSL:
            server = smtplib.SMTP_SSL(
                plugin.smtp_host, plugin.port, timeout=plugin.socket_connect_timeout, context=context
            )
        else:
            server = smtplib.SMTP(plugin.smtp_host, plugin.port, timeout=plugin.socket_connect_timeout)
        if plugin.secure_mode == SecureMailMode.STARTTLS:
            server.starttls(context=context)
        if plugin.user and plugin.password:
            server.login(plugin.user, plugin.password)
        recipients = [*(address for _, address in plugin.targets), *plugin.cc, *plugin.bcc]
        refused = server.send_message(_composed(plugin, message), plugin.from_addr[1], recipients)
    except (OSError, smtplib.SMTPException, RuntimeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        if server is not None:
            with suppress(OSError, smtplib.SMTPException):
                server.quit()
    return f"some recipients were refused: {refused}" if refused else None


def _composed(plugin: Any, message: Message) -> EmailMessage:
    mail = EmailMessage(policy=SMTP)
    name, address = plugin.from_addr
    mail["Subject"] = " ".join(message.title.split())  # a second line would be a header of the mail
    mail["From"] = formataddr((name or plugin.app_id, address))
    mail["To"] = ", ".join(formataddr((name or "", address)) for name, address in plugin.targets)
    if plugin.cc:
        mail["Cc"] = ", ".join(sorted(plugin.cc))
    if plugin.reply_to:
        mail["Reply-To"] = ", ".join(sorted(plugin.reply_to))
    mail["Date"] = localtime()
    mail["Message-ID"] = make_msgid(domain=address.rpartition("@")[2] or plugin.smtp_host)
    for header, value in plugin.headers.items():
        mail[header] = value
    mail.set_content(message.text)
    mail.add_alternative(message.html, subtype="html")
    *_, html = mail.iter_parts()
    assert isinstance(html, EmailMessage)
    for path in message.pictures:
        kind, subtype = _media_type(path)
        html.add_related(
            path.read_bytes(), kind, subtype, cid=f"<{path.name}>", filename=path.name, disposition="inline"
        )
    for path in message.attachments:
        kind, subtype = _media_type(path)
        charset = {"charset": "utf-8"} if kind == "text" else {}
        mail.add_attachment(path.read_bytes(), kind, subtype, filename=path.name, params=charset)
    return mail


def _media_type(path: Path) -> tuple[str, str]:
    kind, _, subtype = (guess_type(path.name)[0] or "application/octet-stream").partition("/")
    return kind, subtype


def _with_files_that_exist(message: Message) -> Message:
    pictures = tuple(path for path in message.pictures if path.is_file())
    if pictures != message.pictures:
        logger.warning("A message goes without its pictures, which are not there")
        message = replace(message, pictures=pictures)
    missing = [path for path in message.attachments if not path.is_file()]
    if not missing:
        return message
    logger.warning("not attached, since it is not there: {}", ", ".join(map(str, missing)))
    note = "Not attached, since it is not there: " + ", ".join(path.name for path in missing)
    return replace(
        message,
        text=f"{message.text}\n\n{note}",
        html=message.html and f"{message.html}<p>{escape(note)}</p>",
        attachments=tuple(path for path in message.attachments if path not in missing),
    )


class _Heard(logging.Handler):
    """What Apprise logs of a delivery in this thread: it tells why it failed nowhere else."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self._thread = threading.get_ident()
        self._said: list[str] = []
        self._detail: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread != self._thread:
            return
        text = " ".join(record.getMessage().split())
        if record.levelno >= logging.WARNING:
            self._said.append(text)
        elif text.startswith(_DETAIL) and not text.endswith("b''"):
            self._detail.append(text.partition(": ")[2])

    @property
    def reason(self) -> str:
        return (
            ": ".join(part.rstrip(".") for part in (*self._said[-1:], *self._detail[-1:]))
            or "the service gave no reason"
        )

    def __enter__(self) -> _Heard:
        logging.getLogger("apprise").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("apprise").removeHandler(self)


@cache
def _prepare() -> None:
    """Nothing that Apprise or its HTTP client logs goes anywhere but to `_Heard`: it has addresses in it."""
    own = logging.getLogger("apprise")
    own.propagate = False
    own.setLevel(logging.DEBUG)
    own.addHandler(logging.NullHandler())
    for name in ("urllib3.connectionpool", "requests"):
        logging.getLogger(name).addFilter(lambda record: not (record.threadName or "").startswith(_THREAD))
