"""The HTTP client against a server that behaves as badly as servers do."""

from __future__ import annotations

import gzip
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from ipaddress import IPv4Address
from pathlib import Path

import pandas as pd
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from loguru import logger
from pydantic import SecretStr

from forex_core.data.http import HttpClient, Pace, Retries, user_agent
from forex_core.data.providers.bcch import BcchFetcher
from forex_core.data.providers.ecb_live import EcbFetcher
from forex_core.data.providers.fred import FredFetcher
from forex_core.data.providers.macro_calendar import MacroCalendar
from forex_core.data.providers.mindicador import MindicadorFetcher
from forex_core.data.providers.news import RssNews
from forex_core.errors import SourceError, SourceUnavailable
from tests.contract.bad_days import (
    BUSY_FOR_EVER,
    LAST_MODIFIED,
    LONG_S,
    NOW,
    PATIENT,
    Behaviour,
    Server,
    drip,
    drip_headers,
    drip_unframed,
    drop,
    good,
    half,
    half_chunked,
    hang,
    hang_in_the_body,
    html,
    junk,
    patience,
    quick_client,
    redirect,
    serving,
    status,
    unchanged_after_first,
    unused_address,
)

BODY = json.dumps({"serie": list(range(2000))})


def stored(folder: Path) -> list[Path]:
    """Entries of a cache, without its locks."""
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_good_answer(server: Server, tmp_path: Path) -> None:
    server.play(good(BODY, Content_Type="application/json", Last_Modified=LAST_MODIFIED))
    answer = quick_client(tmp_path).get(server.url + "/api", {"code": "a b"}, {"X-Own": "1"})
    assert answer.json() == json.loads(BODY)
    assert answer.text == BODY
    assert answer.url == f"{server.url}/api?code=a+b"
    assert not answer.from_cache
    assert server.asked[0].params == {"code": "a b"}
    assert server.asked[0].headers["User-Agent"] == "forex-core/0.1.0 (+desk@example.org)"
    assert server.asked[0].headers["X-Own"] == "1"
    assert "Cookie" not in server.asked[0].headers


def test_text_in_the_charset_of_the_server(server: Server, tmp_path: Path) -> None:
    server.play(good("año;1".encode("latin-1"), Content_Type="text/csv; charset=ISO-8859-1"))
    assert quick_client(tmp_path).get(server.url, expect="csv").text == "año;1"
    server.play(good(b"\xef\xbb\xbfDATE,DFF", Content_Type="text/csv; charset=nonsense"))
    assert quick_client(tmp_path).get(server.url, expect="csv").text == "DATE,DFF"


@pytest.mark.parametrize(
    "bad", [status(500), status(503), status(429), half(BODY), half_chunked(BODY), drop, hang]
)
def test_what_may_pass_is_tried_again(server: Server, tmp_path: Path, bad: Behaviour) -> None:
    waited: list[float] = []
    server.play(bad, good(BODY))
    client = quick_client(tmp_path, waited=waited, timeouts=patience(bad), recovers=server)
    assert client.get(server.url).json() == json.loads(BODY)
    assert len(server.asked) == 2
    assert len(waited) == 1
    assert 1.0 <= waited[0] <= 2.0


FOR_EVER: dict[str, tuple[Behaviour, str]] = {
    "500": (BUSY_FOR_EVER, "HTTP 500"),
    "hang": (hang, "silent for 0.25 s"),
    "hang in the body": (hang_in_the_body, "silent for 0.25 s"),
    "drip": (drip, "no whole answer within 0.4 s"),
    "drip of headers": (drip_headers, "no whole answer within 0.4 s"),
    "drip without a length": (drip_unframed, "no whole answer within 0.4 s"),
    "half": (half(BODY, ETag='"half"'), "breaks off"),
    "half in chunks": (half_chunked(BODY), "breaks off"),
    "half without a length": (good(BODY[:50], ETag='"half"'), "breaks off"),
    "dropped": (drop, "no connection"),
    "empty": (good(b"", ETag='"none"'), "an empty body"),
    "damaged compression": (
        good(gzip.compress(BODY.encode())[:100], Content_Encoding="gzip", ETag='"z"'),
        "breaks off",
    ),
}


@pytest.mark.parametrize(("bad", "told"), FOR_EVER.values(), ids=FOR_EVER.keys())
def test_what_does_not_pass_is_unavailable(server: Server, tmp_path: Path, bad: Behaviour, told: str) -> None:
    waited: list[float] = []
    server.play(bad)
    began = time.monotonic()
    with pytest.raises(SourceUnavailable, match=told) as failed:
        quick_client(tmp_path, waited=waited, timeouts=patience(bad)).get(server.url + "/series")
    assert time.monotonic() - began < 60
    assert f"{server.url}/series" in str(failed.value)
    assert "tried 3 times" in str(failed.value)
    server.wait_for(3)
    assert len(server.asked) == 3
    assert len(waited) == 2
    assert 1.0 <= waited[0] <= 2.0 <= waited[1] <= 3.0
    assert not stored(tmp_path)


@pytest.mark.parametrize(
    ("code", "advice"), [(400, "what was asked"), (401, "key"), (403, "key"), (404, "code")]
)
def test_a_refusal_is_final(server: Server, tmp_path: Path, code: int, advice: str) -> None:
    server.play(status(code, '{"error_message": "no\x1b[31m such\n series"}', ETag='"e"'))
    with pytest.raises(SourceError, match=advice) as failed:
        quick_client(tmp_path).get(server.url)
    assert f"HTTP {code}" in str(failed.value)
    assert "such series" in str(failed.value)
    assert "\x1b" not in str(failed.value)
    assert len(server.asked) == 1
    assert not stored(tmp_path)


def test_a_refusal_that_the_caller_reads(server: Server, tmp_path: Path) -> None:
    server.play(status(400, '{"error_message": "no vintages"}', ETag='"e"'))
    answer = quick_client(tmp_path).get(server.url, accept=(200, 400))
    assert (answer.status, answer.json()) == (400, {"error_message": "no vintages"})
    assert not stored(tmp_path)


@pytest.mark.parametrize(
    ("stated", "waits"),
    [
        ("7", 7.0),
        (format_datetime((NOW + pd.Timedelta(seconds=9)).to_pydatetime(), usegmt=True), 9.0),
        ("0", 1.0),
        ("soon", 1.0),
        ("-5", 1.0),
        (format_datetime((NOW - pd.Timedelta(hours=1)).to_pydatetime(), usegmt=True), 1.0),
    ],
)
def test_retry_after_is_waited_for(server: Server, tmp_path: Path, stated: str, waits: float) -> None:
    waited: list[float] = []
    server.play(status(429, Retry_After=stated), good("{}"))
    quick_client(tmp_path, waited=waited).get(server.url)
    assert waits <= waited[0] <= max(waits, 2.0)


@pytest.mark.parametrize(
    "stated", ["3600", format_datetime((NOW + pd.Timedelta(hours=1)).to_pydatetime(), usegmt=True), "9" * 400]
)
def test_too_long_a_wait_is_not_begun(server: Server, tmp_path: Path, stated: str) -> None:
    waited: list[float] = []
    server.play(status(429, Retry_After=stated))
    with pytest.raises(SourceUnavailable, match="try again after") as failed:
        quick_client(tmp_path, waited=waited).get(server.url)
    assert len(stated) > 300 or "2024-07-02 00:00:00 UTC" in str(failed.value)
    assert not waited
    assert len(server.asked) == 1


@pytest.mark.parametrize("expect", ["json", "csv", "xml", "zip", "text"])
def test_a_page_is_no_data(server: Server, tmp_path: Path, expect: str) -> None:
    server.play(html)
    with pytest.raises(SourceError, match="found an HTML page") as failed:
        quick_client(tmp_path).get(server.url, expect=expect)  # type: ignore[arg-type]
    assert f"expected {expect}" in str(failed.value)
    assert not stored(tmp_path)


@pytest.mark.parametrize(
    ("expect", "body", "found"),
    [
        ("json", b"DATE,DFF\n2024-06-28,5.33", "starts 'DATE,DFF"),
        ("json", b"\x00\x1b[31m", "starts"),
        ("xml", b"key missing", "starts 'key missing'"),
        ("zip", b"key missing", "starts 'key missing'"),
    ],
)
def test_another_kind_of_body(server: Server, tmp_path: Path, expect: str, body: bytes, found: str) -> None:
    server.play(good(body))
    with pytest.raises(SourceError, match=found) as failed:
        quick_client(tmp_path).get(server.url, expect=expect)  # type: ignore[arg-type]
    assert str(failed.value).isprintable()


def test_json_nested_without_end_is_not_well_formed(server: Server, tmp_path: Path) -> None:
    server.play(good(b"[" * 500_000))
    with pytest.raises(SourceUnavailable, match="not well formed"):
        quick_client(tmp_path).get(server.url)


@pytest.mark.parametrize("announced", [True, False])
def test_junk_is_cut_early(server: Server, tmp_path: Path, announced: bool) -> None:
    server.play(junk(30, announced=announced))
    client = HttpClient(tmp_path, user_agent="x", max_bytes=4 * 2**20, min_interval_s=0)
    tracemalloc.start()
    try:
        with pytest.raises(SourceError, match="more than 4 MB"):
            client.get(server.url)
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()
    assert server.sent < 16 * 2**20  # what the sockets' buffers took among it
    assert len(server.asked) == 1
    assert not stored(tmp_path)


def test_a_bomb_is_cut_by_what_it_unpacks_to(server: Server, tmp_path: Path) -> None:
    server.play(good(gzip.compress(b"[" + b" " * 30 * 2**20 + b"]"), Content_Encoding="gzip", ETag='"b"'))
    with pytest.raises(SourceError, match="more than 16 MB"):
        quick_client(tmp_path).get(server.url)
    assert not stored(tmp_path)


def test_nobody_listens(tmp_path: Path, server: Server) -> None:
    with pytest.raises(SourceUnavailable, match="Connection refused"):
        quick_client(tmp_path).get(unused_address())


def test_an_address_that_is_none(tmp_path: Path) -> None:
    for url in ("ftp://example.org/a", "no address", "http://", "http://[::1"):
        with pytest.raises(SourceError, match="correct the address"):
            quick_client(tmp_path).get(url)


class TestRedirects:
    def test_are_followed(self, server: Server, tmp_path: Path) -> None:
        server.play(redirect("/there?a=1", 301), redirect(server.url + "/at-last"), good("{}"))
        assert quick_client(tmp_path).get(server.url).url == f"{server.url}/at-last"
        assert [one.path for one in server.asked] == ["/", "/there", "/at-last"]
        assert server.asked[1].params == {"a": "1"}

    def test_to_another_server_are_followed_where_there_is_no_key(
        self, server: Server, tmp_path: Path
    ) -> None:
        with serving() as other:
            other.play(good("{}"))
            server.play(redirect(other.url))
            assert quick_client(tmp_path).get(server.url).url == other.url

    def test_to_an_address_that_is_not_plain_ascii(self, server: Server, tmp_path: Path) -> None:
        server.play(redirect("/a\xf1o nuevo"), good("{}"))
        assert quick_client(tmp_path).get(server.url).json() == {}
        assert server.asked[1].path == "/a%C3%B1o%20nuevo"

    def test_a_loop_ends(self, server: Server, tmp_path: Path) -> None:
        server.play(redirect("/again", 301))
        with pytest.raises(SourceError, match="more than 5 redirects"):
            quick_client(tmp_path).get(server.url)
        assert len(server.asked) == 6

    @pytest.mark.parametrize(
        "to", ["file:///etc/passwd", "ftp://example.org/", "gopher://127.0.0.1/", "http://[::1", "data:,{}"]
    )
    def test_to_other_schemes_are_not_followed(self, server: Server, tmp_path: Path, to: str) -> None:
        server.play(redirect(to))
        with pytest.raises(SourceError, match="expected http or https"):
            quick_client(tmp_path).get(server.url)
        assert len(server.asked) == 1

    def test_a_body_beside_one_is_not_read(self, server: Server, tmp_path: Path) -> None:
        big = junk(30, announced=True)

        def moved(handler: object) -> None:
            handler.send_response_only(302)  # type: ignore[attr-defined]
            handler.send_header("Location", "/there")  # type: ignore[attr-defined]
            big(handler)  # type: ignore[arg-type]

        server.play(moved, good("{}"))
        assert quick_client(tmp_path).get(server.url).json() == {}
        assert server.sent < 16 * 2**20

    def test_the_key_stays_with_its_server(self, server: Server, tmp_path: Path) -> None:
        with serving() as other:
            other.play(good("{}"))
            server.play(redirect(other.url + "/steal?api_key=s3cret-key"))
            with pytest.raises(SourceError, match="another server") as failed:
                quick_client(tmp_path).get(server.url, secret_params={"api_key": SecretStr("s3cret-key")})
            assert not other.asked
        assert "s3cret" not in str(failed.value)

    def test_a_password_of_the_address_stays_with_its_server(self, server: Server, tmp_path: Path) -> None:
        at = server.url.replace("http://", "http://ana:s3cret@")
        with serving() as other:
            other.play(good("{}"))
            server.play(redirect(other.url + "/steal"))
            with pytest.raises(SourceError, match="another server"):
                quick_client(tmp_path).get(at)
            assert not other.asked
        sent = "Basic YW5hOnMzY3JldA=="
        server.play(redirect(f"{server.url}/v2"), good(f'{{"echo": "{sent}"}}', ETag='"v"'))
        assert quick_client(tmp_path).get(at).url == f"{server.url}/v2"
        assert [one.headers["Authorization"] for one in server.asked] == [sent] * 3
        assert not stored(tmp_path), "an answer that repeats a key"
        server.play(status(403, f"wrong: {sent}, s3cret"))
        with pytest.raises(SourceError, match=r"wrong: Basic \*\*\*, \*\*\*"):
            quick_client(tmp_path).get(at)

    def test_the_key_goes_along_on_its_server(self, server: Server, tmp_path: Path) -> None:
        server.play(redirect("/v2?a=1&api_key=s3cret-key"), good("{}"))
        answer = quick_client(tmp_path).get(server.url, secret_params={"api_key": SecretStr("s3cret-key")})
        assert server.asked[1].params == {"a": "1", "api_key": "s3cret-key"}
        assert answer.url == f"{server.url}/v2?a=1"

    @pytest.fixture
    def proxied(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
        """The server as the way to the internet; this machine is asked without it."""
        monkeypatch.setenv("http_proxy", server.url)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.setenv(name, "127.0.0.1")
        return server

    def test_the_internet_leads_to_no_address_of_this_network(self, proxied: Server, tmp_path: Path) -> None:
        with serving() as inside:
            inside.play(good("KEYS-OF-THIS-MACHINE"))
            proxied.play(
                redirect("http://mirror.example.org/"), redirect(inside.url + "/latest/meta-data/iam")
            )
            with pytest.raises(
                SourceError, match=r"sends requests there, to the address 127\.0\.0\.1"
            ) as failed:
                quick_client(tmp_path).get("http://feed.example.org/")
            assert "KEYS" not in str(failed.value)
            assert not inside.asked
        assert len(proxied.asked) == 2

    def test_nor_does_it_where_a_connection_is_open(self, proxied: Server, tmp_path: Path) -> None:
        with serving() as inside, quick_client(tmp_path) as client:
            inside.play(good("{}"))
            client.get(inside.url)
            proxied.play(redirect(inside.url))
            with pytest.raises(SourceError, match="of this network"):
                client.get("http://feed.example.org/")
            assert len(inside.asked) == 1

    @pytest.mark.parametrize(
        "inside",
        ["169.254.169.254", "10.0.0.8", "[::1]", "[::ffff:192.168.0.1]", "localhost", "[fd00:ec2::254]"],
    )
    def test_nor_by_the_proxy(
        self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: str
    ) -> None:
        monkeypatch.setenv("http_proxy", server.url)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        server.play(redirect(f"http://{inside}/latest/meta-data/iam"))
        with pytest.raises(SourceError, match="of this network"):
            quick_client(tmp_path).get("http://feed.example.org/")
        assert len(server.asked) == 1

    @pytest.mark.parametrize("expect", ["json", "xml", "zip"])
    @pytest.mark.parametrize("code", [200, 404])
    def test_what_another_server_says_is_not_told(
        self, server: Server, tmp_path: Path, expect: str, code: int
    ) -> None:
        with serving() as other:
            other.play(status(code, "KEYS of another"))
            server.play(redirect(other.url))
            with pytest.raises(SourceError, match=f"expected {expect}") as failed:
                quick_client(tmp_path).get(server.url, expect=expect)  # type: ignore[arg-type]
            assert other.asked
            other.play(good("<keys>KEYS of another</keys>"))
            with pytest.raises(SourceError, match="no RSS or Atom feed") as untold:
                RssNews(quick_client(tmp_path), (server.url,)).fetch_news()
        assert "KEYS" not in f"{failed.value}{untold.value}"


class TestCache:
    @pytest.mark.parametrize(
        "validators", [{}, {"ETag": '"v1"'}, {"Last_Modified": LAST_MODIFIED}], ids=["both", "tag", "date"]
    )
    def test_what_has_not_changed_is_not_sent_twice(
        self, server: Server, tmp_path: Path, validators: dict[str, str]
    ) -> None:
        server.play(unchanged_after_first(BODY, **validators))
        first = quick_client(tmp_path).get(server.url)
        again = quick_client(tmp_path).get(server.url)
        assert (first.from_cache, again.from_cache) == (False, True)
        assert again.json() == first.json() == json.loads(BODY)
        assert server.sent == len(BODY)
        assert len(server.asked) == 2
        assert quick_client(tmp_path).get(server.url + "/?other=1").from_cache is False

    def test_compressed_and_in_chunks(self, server: Server, tmp_path: Path) -> None:
        packed = gzip.compress(BODY.encode())

        def chunked(handler: object) -> None:
            if handler.headers.get("If-None-Match"):  # type: ignore[attr-defined]
                handler.answer(304, b"", {})  # type: ignore[attr-defined]
                return
            handler.send_response(200)  # type: ignore[attr-defined]
            for name, value in {
                "Transfer-Encoding": "chunked",
                "Content-Encoding": "gzip",
                "ETag": '"c"',
            }.items():
                handler.send_header(name, value)  # type: ignore[attr-defined]
            handler.end_headers()  # type: ignore[attr-defined]
            for part in (packed[:100], packed[100:]):
                handler.body(b"%x\r\n%b\r\n" % (len(part), part))  # type: ignore[attr-defined]
            handler.body(b"0\r\n\r\n")  # type: ignore[attr-defined]

        server.play(chunked)
        assert quick_client(tmp_path).get(server.url).text == BODY
        again = quick_client(tmp_path).get(server.url)
        assert (again.text, again.from_cache) == (BODY, True)

    def test_a_server_is_always_asked(self, server: Server, tmp_path: Path) -> None:
        server.play(good("[1]", Cache_Control="max-age=86400"), good("[2]", Cache_Control="max-age=86400"))
        client = quick_client(tmp_path)
        assert (client.get(server.url).json(), client.get(server.url).json()) == ([1], [2])

    @pytest.mark.parametrize("header", [{"Cache_Control": "private, no-store"}, {"Vary": "*"}])
    def test_what_is_not_to_be_kept_is_not(
        self, server: Server, tmp_path: Path, header: dict[str, str]
    ) -> None:
        server.play(good("{}", ETag='"v1"', **header))
        quick_client(tmp_path).get(server.url)
        assert not stored(tmp_path)

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda entry: entry.write_bytes(b""),
            lambda entry: entry.write_bytes(entry.read_bytes()[:-1]),
            lambda entry: entry.write_bytes(entry.read_bytes().replace(b"serie", b"SERIE")),
            lambda entry: entry.write_bytes(os.urandom(500)),
            lambda entry: (entry.unlink(), entry.mkdir()),
        ],
        ids=["empty", "short", "flipped", "random", "a folder"],
    )
    def test_a_spoilt_entry_is_a_miss(self, server: Server, tmp_path: Path, spoil: object) -> None:
        server.play(unchanged_after_first(BODY))
        quick_client(tmp_path).get(server.url)
        spoil(stored(tmp_path)[0])  # type: ignore[operator]
        answer = quick_client(tmp_path).get(server.url)
        assert (answer.text, answer.from_cache) == (BODY, False)
        assert "If-None-Match" not in server.asked[1].headers

    def test_a_kept_answer_that_is_not_what_is_expected_is_thrown_away(
        self, server: Server, tmp_path: Path
    ) -> None:
        """As after an upgrade that looks at answers more closely."""
        server.play(unchanged_after_first("DATE,DFF"))
        named = {"Accept": "*/*"}
        quick_client(tmp_path).get(server.url, headers=named, expect="csv")
        with pytest.raises(SourceError, match="DATE,DFF"):
            quick_client(tmp_path).get(server.url, headers=named, expect="json")
        assert [one.headers.get("If-None-Match") for one in server.asked] == [None, '"v1"', None]
        assert not stored(tmp_path)

    def test_a_folder_that_cannot_be_written_costs_nothing_but_the_cache(
        self, server: Server, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("")
        server.play(unchanged_after_first(BODY))
        assert quick_client(tmp_path / "file").get(server.url).text == BODY

    def test_old_entries_go(self, server: Server, tmp_path: Path) -> None:
        server.play(unchanged_after_first(BODY))
        quick_client(tmp_path).get(server.url + "/old")
        quick_client(tmp_path).get(server.url + "/new")
        old = min(stored(tmp_path), key=lambda path: path.stat().st_mtime)
        os.utime(old, (0, 0))
        quick_client(tmp_path)
        assert not old.exists()
        assert len(stored(tmp_path)) == 1

    def test_two_processes_and_one_that_is_killed(self, server: Server, tmp_path: Path) -> None:
        """Both write the same entry over and over; one is killed in between. What is left is whole or nothing."""
        code = """
import sys
from pathlib import Path
from forex_core.data.http import HttpClient
client = HttpClient(Path(sys.argv[1]), user_agent="x", min_interval_s=0)
for _ in range(int(sys.argv[3])):
    client.get(sys.argv[2])
"""
        server.play(good(BODY + " " * 200_000, ETag='"v"'))
        line = [sys.executable, "-c", code, str(tmp_path), server.url]
        victim = subprocess.Popen([*line, "100000"])
        worker = subprocess.Popen([*line, "15"])
        server.wait_for(9)
        victim.kill()
        assert victim.wait(LONG_S) == -signal.SIGKILL
        assert worker.wait(LONG_S) == 0
        server.play(unchanged_after_first(BODY, ETag='"v"'))
        assert quick_client(tmp_path).get(server.url, headers={"User-Agent": "x"}).json() == json.loads(BODY)


class TestSecrets:
    def test_reach_the_server_and_nothing_else(
        self, server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        password = "pa$$ w/rd+é"
        told: list[str] = []
        sink = logger.add(told.append, level=0, diagnose=True, backtrace=True)
        caplog.set_level(logging.DEBUG)
        params = {"user": SecretStr("ana@example.org"), "pass": SecretStr(password)}
        headers = {"Authorization": SecretStr("Bearer tok-123456")}
        echo = f'{{"echo": {json.dumps(password)}, "user": "ANA@example.org", "t": "tok-123456"}}'
        url = server.url
        for bad in (
            good("{}", ETag='"v"', Vary="Authorization"),
            unchanged_after_first("{}"),
            good(echo, ETag='"w"'),
            status(403, echo),
            status(400, "user=ana%40example.org&pass=pa%24%24+w%2Frd%2B%c3%a9"),
            BUSY_FOR_EVER,
            html,
            drop,
            half(BODY),
            redirect("/x?pass=" + "pa%24%24+w%2Frd%2B%C3%A9"),
            redirect("/pa%24%24%20w%2Frd%2B%C3%A9"),
            hang,
        ):
            server.play(bad)
            client = quick_client(tmp_path, timeouts=patience(bad))
            try:
                client.get(url, {"f": "1"}, secret_params=params, secret_headers=headers)
            except (SourceError, SourceUnavailable) as error:
                logger.exception("failed")
                chain: BaseException | None = error
                while chain is not None:
                    told.append(f"{chain!s} {chain!r}")
                    chain = chain.__cause__ or chain.__context__
        logger.remove(sink)
        assert server.asked[0].params == {"f": "1", "user": "ana@example.org", "pass": password}
        assert server.asked[0].headers["Authorization"] == "Bearer tok-123456"
        everything = "\n".join([*told, caplog.text, *(record.getMessage() for record in caplog.records)])
        assert "urllib3" in caplog.text  # they do log the request line
        assert len(told) > 10
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert stored(tmp_path)
        everything += "\n".join(str(path) for path in files)
        content = b"\n".join(path.read_bytes() for path in files)
        for form in ("ana@example", "ana%40", "pa$$", "pa%24", "w/rd", "w%2frd", "tok-1234"):
            assert form not in everything.lower()
            assert form.encode() not in content.lower()

    @pytest.mark.parametrize(
        "bad",
        [
            status(404, "gone"),
            html,
            good("{}"),
            good("[]"),
            good('[{"title": 1}]'),
            good("<x/>"),
            half(BODY),
        ],
        ids=["status", "html", "object", "list", "events", "xml", "half"],
    )
    def test_of_a_configured_address_are_told_by_nobody(
        self, server: Server, tmp_path: Path, bad: Behaviour
    ) -> None:
        """Neither a user and a password before the host, nor what stands behind the question mark."""
        at = server.url.replace("http://", "http://ana:s3cret@") + "/path?token=t0ken-12"
        first, last, key = date(2024, 6, 3), date(2024, 6, 28), SecretStr("k3y-of-ours")
        told: list[str] = []
        sink = logger.add(told.append, level=0)
        server.play(bad)
        with quick_client(tmp_path) as client:
            mindicador, bcch = MindicadorFetcher(client, at), BcchFetcher(client, key, key, at)
            for ask in (
                lambda: FredFetcher(client, None, at, at).fetch("vix", first, last),
                lambda: FredFetcher(client, key, at, at).fetch("vix", first, last),
                lambda: mindicador.fetch("uf", first, last),
                lambda: bcch.fetch("uf", first, last),
                lambda: EcbFetcher(client, at).fetch("usdclp_reference", first, last),
                lambda: MacroCalendar(client, at).fetch_events(),
                lambda: RssNews(client, (at,)).fetch_news(),
            ):
                with pytest.raises((SourceError, SourceUnavailable)) as failed:
                    ask()
                told.append(str(failed.value))
            try:
                told.append(str(RssNews(client, (at, server.url + "/other")).gather().failures))
            except (SourceError, SourceUnavailable) as error:
                told.append(str(error))
        logger.remove(sink)
        assert len(told) >= 8
        for form in ("ana", "s3cret", "t0ken", "k3y"):
            assert form not in "\n".join(told), "\n".join(told)

    def test_of_an_address_that_a_server_repeats_are_hidden(self, server: Server, tmp_path: Path) -> None:
        server.play(status(404, "no such token: t0ken-12"))
        with quick_client(tmp_path) as client, pytest.raises(SourceError) as failed:
            client.get(server.url + "/path?token=t0ken-12", {"id": "DFF"})
        assert "t0ken" not in str(failed.value)
        assert "/path?***&id=DFF" in str(failed.value)

    @pytest.mark.parametrize("said", [{"body": "for t0ken-12"}, {"ETag": '"t0ken-12"'}])
    def test_of_an_address_that_a_server_repeats_are_not_kept(
        self, server: Server, tmp_path: Path, said: dict[str, str]
    ) -> None:
        server.play(good(json.dumps(said.get("body", "")), ETag=said.get("ETag", '"v"')))
        with quick_client(tmp_path) as client:
            client.get(server.url + "/path?token=t0ken-12")
            assert not stored(tmp_path)
            client.get(server.url + "/path?token=an0ther")
            assert stored(tmp_path)

    def test_through_a_proxy(self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("http_proxy", server.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        server.play(good("{}"))
        client = quick_client(tmp_path)
        client.get("http://data.example.org/api?a=1", secret_params={"key": SecretStr("s3cret")})
        assert server.asked[0].params == {"a": "1", "key": "s3cret"}
        assert server.asked[0].headers["Host"] == "data.example.org"
        monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:1")
        with pytest.raises(SourceError, match="SOCKS"):
            quick_client(tmp_path).get("http://data.example.org/", secret_params={"key": SecretStr("s3cret")})


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1, signed by itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    at = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(at - timedelta(days=1))
        .not_valid_after(at + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "one.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return path


class TestEncrypted:
    def test_answers_keys_and_conditions(
        self, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        with serving(certificate) as server, quick_client(tmp_path) as client:
            server.play(unchanged_after_first(BODY))
            keys = {
                "secret_params": {"k": SecretStr("s3cret")},
                "secret_headers": {"X-Key": SecretStr("t0ken")},
            }
            for kept in (False, True):
                answer = client.get(server.url, **keys)
                assert (answer.text, answer.from_cache) == (BODY, kept)
            assert server.asked[1].params == {"k": "s3cret"}
            assert server.asked[1].headers["X-Key"] == "t0ken"
            server.play(drip_unframed)
            hasty = quick_client(tmp_path, timeouts=patience(drip_unframed))
            with hasty, pytest.raises(SourceUnavailable, match="no whole answer within"):
                hasty.get(server.url)
            server.play(redirect(server.url.replace("https", "http")))
            with pytest.raises(SourceError, match="no way back from https"):
                client.get(server.url)

    def test_a_certificate_that_nobody_vouches_for(self, certificate: Path, tmp_path: Path) -> None:
        with serving(certificate) as server, quick_client(tmp_path) as client:
            server.play(good(BODY))
            with pytest.raises(SourceError, match="certificate is not trusted"):
                client.get(server.url)
            assert not server.asked


class TestPace:
    def test_one_host_is_not_hurried_and_others_do_not_wait(self) -> None:
        time_is, waited = [100.0], []

        def sleep(seconds: float) -> None:
            waited.append(seconds)
            time_is[0] += seconds

        pace = Pace(2.0, sleep, lambda: time_is[0])
        for host in ("a", "b", "a", "a"):
            pace.wait(host)
        assert waited == [2.0, 2.0]
        time_is[0] += 60
        pace.wait("a")
        assert waited == [2.0, 2.0]

    def test_threads_take_turns(self) -> None:
        waited: list[float] = []
        pace = Pace(1.0, waited.append, lambda: 0.0)
        threads = [threading.Thread(target=pace.wait, args=("a",)) for _ in range(8)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        assert sorted(waited) == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]

    def test_a_client_keeps_to_it_redirects_and_retries_among_it(
        self, server: Server, tmp_path: Path
    ) -> None:
        waited: list[float] = []
        client = HttpClient(
            tmp_path, user_agent="x", min_interval_s=7.0, sleep=waited.append, clock=lambda: 0.0,
            retries=Retries(attempts=2, first_wait_s=0.0),
        )  # fmt: skip
        server.play(redirect("/there"), status(500), good("{}"))
        client.get(server.url)
        client.get(server.url)
        assert [seconds for seconds in waited if seconds] == [7.0, 14.0, 21.0]


def test_waits_are_drawn_so_that_many_clients_do_not_come_back_at_once(
    server: Server, tmp_path: Path
) -> None:
    waited: list[float] = []
    client = quick_client(tmp_path, waited=waited, attempts=2)
    for _ in range(60):
        server.play(status(503), good("{}"))
        client.get(server.url)
    assert len(waited) == 60
    assert 1.0 <= min(waited) < 1.3
    assert 1.7 < max(waited) <= 2.0


def test_what_no_header_can_hold(server: Server, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be asked for") as failed:
        quick_client(tmp_path).get(server.url, secret_headers={"X-Key": SecretStr("s3cret→")})
    assert "s3cret" not in str(failed.value)
    with pytest.raises(SourceError, match="cannot be asked for"):
        quick_client(tmp_path).get(server.url, headers={"X": "a\nb"})


def test_no_file_of_certificates(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none.pem"))
    with pytest.raises(SourceError, match=r"none\.pem"):
        quick_client(tmp_path).get(server.url.replace("http", "https"))


def test_a_length_beyond_reason(server: Server, tmp_path: Path) -> None:
    server.play(good("[]", Content_Length="9" * 5000))
    with pytest.raises(SourceError, match="more than 16 MB"):
        quick_client(tmp_path).get(server.url)


def test_threads_share_a_client(server: Server, tmp_path: Path) -> None:
    def echo(handler: object) -> None:
        handler.answer(200, json.dumps(handler.asked.params).encode(), {})  # type: ignore[attr-defined]

    server.play(echo)
    client = HttpClient(
        tmp_path,
        user_agent=user_agent(),
        min_interval_s=0,
        timeouts=PATIENT,
        retries=Retries(attempts=2),
    )
    wrong: list[object] = []

    def ask(number: int) -> None:
        for _ in range(10):
            found = client.get(server.url, secret_params={"key": SecretStr(f"k{number}")}).json()
            if found != {"key": f"k{number}"}:
                wrong.append(found)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not wrong
    assert len(server.asked) == 60
    client.close()
