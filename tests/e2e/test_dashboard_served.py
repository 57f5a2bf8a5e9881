"""The dashboard served, over real connections: the interface, what it refuses, who is let in."""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from forex_core.config import Settings, load_settings
from forex_core.errors import TrackingError
from forex_core.ledger import Ledger
from forex_core.serving import listening
from forex_core.types import HORIZONS, Horizon, Pair
from tests import dashboards
from tests.ledgers import USDCLP, entry

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Route

pytestmark = pytest.mark.timeout(280)
H7 = Horizon(7)
TOKEN = "a-token-of-a-test-2f"


class Served:
    def __init__(self, port: int, settings: Settings) -> None:
        self.port = port
        self.address = f"http://127.0.0.1:{port}"
        self.settings = settings
        self.ledger = Ledger(settings.store_url)

    def ask(
        self, path: str, method: str = "GET", body: str | None = None, **headers: str
    ) -> tuple[int, dict[str, str], str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named)
        answer = connection.getresponse()
        told = {name.lower(): value for name, value in answer.getheaders()}
        found = answer.status, told, answer.read().decode()
        connection.close()
        return found

    def document(self, path: str, **headers: str) -> Any:
        status, _, text = self.ask(path, **headers)
        assert status == 200, text
        return json.loads(text)


@contextmanager
def served(settings: Settings, tracked: Any = None, token: str | None = None) -> Iterator[Served]:
    import uvicorn

    from forex_core.dashboard.server import application

    app = application(settings, tracked, token, lambda: dashboards.NOW)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", server_header=False))
    with listening("127.0.0.1", 0) as socket:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
        thread.start()
        yield Served(socket.getsockname()[1], settings)
        server.should_exit = True
        thread.join(200)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    settings = load_settings(data_dir=tmp_path_factory.mktemp("served") / "data")
    dashboards.fill(settings, days=30, pairs=(USDCLP, Pair("EUR", "USD")))
    with served(settings, dashboards.told()) as found:
        yield found


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    settings = load_settings(data_dir=tmp_path_factory.mktemp("guarded") / "data")
    Ledger(settings.store_url).append(entry(dashboards.LAST))
    with served(settings, token=TOKEN) as found:
        yield found


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Served]:
    with served(load_settings(data_dir=tmp_path / "data")) as found:
        yield found


class TestInterface:
    def test_newest_forecasts(self, site: Served) -> None:
        everything = site.document("/api/forecasts")
        markets = [(one["forecast"]["pair"], one["forecast"]["horizon"]) for one in everything]
        assert markets == [(pair, str(h)) for pair in ("EURUSD", "USDCLP") for h in HORIZONS]
        (one,) = site.document("/api/forecasts?pair=usd/clp&horizon=30d")
        (newest,) = site.ledger.publications(USDCLP, Horizon(30), last=1)
        path = site.ledger.path(newest.number)
        assert one["forecast"]["run_id"] == newest.run_id
        assert one["forecast"]["origin"] == "2026-11-27"
        assert one["unit"] == "CLP per USD"
        assert one["target_dates"] == [day.isoformat() for day in path.target_dates]
        assert one["quantiles"]["0.5"] == path.quantiles[:, path.levels.index(0.5)].tolist()
        assert one["outcomes"] == [None] * len(path.target_dates)

    def test_history_of_a_date(self, site: Served) -> None:
        day = date(2026, 11, 20)
        found = site.document(f"/api/dates/USDCLP/{day}")
        expected = site.ledger.for_date(USDCLP, day)
        assert [(one["forecast"]["number"], one["step"]) for one in found["said"]] == [
            (one.number, step) for one, step, _ in expected
        ]
        assert found["said"][0]["quantiles"]["0.9"] == expected[0][2][0.9]
        days, values, _ = site.ledger.rates(USDCLP, "close")
        assert found["outcomes"] == {"close": values[days == np.datetime64(day)][0]}
        nothing = site.document("/api/dates/USDJPY/2026-11-20")
        assert (nothing["said"], nothing["outcomes"]) == ([], {})

    def test_scores_by_lead(self, site: Served) -> None:
        found = site.document("/api/scores/USDCLP/7d")
        track = site.ledger.track(USDCLP, "close", H7)
        assert [one["step"] for one in found["leads"]] == np.unique(track.steps).tolist()
        second = track.at(track.steps == 2)
        lead = next(one for one in found["leads"] if one["step"] == 2)
        assert lead["forecasts"] == len(second)
        assert lead["rmse"] == pytest.approx(np.sqrt((second.errors**2).mean()))
        assert lead["coverage_80"] == pytest.approx(second.inside_80.mean())
        assert set(lead["rmse_by_model"]) == set(dashboards.MEMBERS)
        assert found["at_the_end"]["forecasts"] == len(track.last_lead)
        assert site.document("/api/scores/USDCLP/90d") == {
            "pair": "USDCLP",
            "rate": "close",
            "horizon": "90d",
            "at_the_end": None,
            "leads": site.document("/api/scores/USDCLP/90d")["leads"],
        }

    def test_champions(self, site: Served) -> None:
        found = site.document("/api/champions/USDCLP/7d")
        assert [one["forecasts"] for one in found["reigns"]] == [30]
        assert (found["reigns"][0]["first_version"], found["reigns"][0]["last_version"]) == (91, 120)
        (change,) = found["changes"]
        assert (change["action"], change["at"], change["to_version"]) == (
            "rollback",
            "2026-08-20T15:30:00Z",
            100,
        )
        assert site.document("/api/champions/USDCLP/15d")["changes"] == []

    def test_health(self, site: Served) -> None:
        found = site.document("/api/health")
        assert not found["is_well"], "copper is too old"
        assert {one["series"]: one["is_fresh"] for one in found["series"]} == {
            "copper": False,
            "usdclp_close": True,
        }
        assert [one["kind"] for one in found["alarms"]] == ["narrow bands"]
        assert len(found["forecasts"]) == 8
        assert not any(one["is_silent"] for one in found["forecasts"])

    def test_it_is_described(self, site: Served) -> None:
        described = site.document("/openapi.json")
        assert set(described["paths"]) == {
            "/api/forecasts",
            "/api/dates/{pair}/{day}",
            "/api/scores/{pair}/{horizon}",
            "/api/champions/{pair}/{horizon}",
            "/api/health",
        }
        assert {method for path in described["paths"].values() for method in path} == {"get"}
        assert "quantiles" in described["components"]["schemas"]["PathForecast"]["properties"]
        for ready_made in ("/docs", "/redoc"):
            assert site.ask(ready_made)[0] == 404, "they would ask others for scripts"

    @pytest.mark.parametrize(
        ("path", "status", "words"),
        [
            ("/api/scores/USDCLP/8d", 400, "'8d' is not a horizon"),
            ("/api/scores/nonsense/7d", 400, "is not a currency pair"),
            (
                "/api/scores/USDJPY/7d",
                404,
                "there is no forecast of USDJPY 7d close; there is EURUSD 7d close",
            ),
            ("/api/dates/USDCLP/tomorrow", 422, "valid date"),
            ("/usdjpy-7d.html", 404, "there is no such page"),
            ("/usdclp-7d-1999.html", 404, "there is no such page"),
            ("/usdclp-7d-%D9%A2%D9%A0%D9%A2%D9%A6.html", 404, "there is no such page"),
            ("/..%2f..%2fetc%2fpasswd", 404, ""),
        ],
    )
    def test_what_is_not_there_is_said(self, path: str, status: int, words: str, site: Served) -> None:
        found, _, text = site.ask(path)
        assert found == status
        assert words in text

    def test_an_empty_deployment_answers_and_stays_empty(self, empty: Served) -> None:
        assert empty.document("/api/forecasts") == []
        assert empty.document("/api/health")["forecasts"] == []
        assert "forex forecast 7d" in empty.ask("/")[2]
        assert "Tracking is off" in empty.ask("/runs.html")[2]
        assert not empty.settings.root.exists()


class TestReadingAlone:
    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
    def test_other_methods_are_refused_everywhere(self, method: str, site: Served) -> None:
        for path in ("/", "/api/health", "/usdclp-7d.html", "/login", "/no/such/thing"):
            status, headers, _ = site.ask(path, method, "{}" if method != "TRACE" else None)
            assert (status, headers["allow"]) == (405, "GET, HEAD"), path

    def test_heads_are_told_without_their_bodies(self, site: Served) -> None:
        for path in ("/", "/api/health"):
            status, headers, text = site.ask(path, "HEAD")
            assert (status, text) == (200, "")
            assert int(headers["content-length"]) > 100

    def test_every_answer_is_fenced(self, site: Served) -> None:
        for path in ("/", "/api/health", "/nothing.html"):
            _, headers, _ = site.ask(path)
            policy = dict(
                part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";")
            )
            assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
            assert policy["frame-ancestors"] == "'none'"
            assert policy["script-src"].startswith("'sha256-")
            assert "unsafe" not in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
            assert "server" not in headers

    def test_only_its_own_names_are_answered(self, site: Served) -> None:
        for known in ("localhost", f"localhost:{site.port}", "127.0.0.1", "[::1]:80", "192.168.1.5"):
            assert site.ask("/api/health", Host=known)[0] == 200, known
        for stranger in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "[::1"):
            status, _, text = site.ask("/api/health", Host=stranger)
            assert status == 400, stranger
            assert "FOREX_DASHBOARD__HOSTS" in text

    def test_a_name_behind_a_proxy_is_told(self, tmp_path: Path) -> None:
        settings = load_settings(data_dir=tmp_path / "data", dashboard={"hosts": "Forex.Example.org"})
        with served(settings) as found:
            assert found.ask("/", Host="forex.example.org")[0] == 200


class TestKeptPages:
    def test_what_is_written_meanwhile_is_shown(self, tmp_path: Path) -> None:
        settings = load_settings(data_dir=tmp_path / "data")
        with served(settings) as found:
            assert "No forecasts yet" in found.ask("/")[2]
            found.ledger.append(entry(dashboards.LAST))
            assert "USD/CLP" in found.ask("/")[2]
            first = time.process_time()
            found.ask("/")
            assert time.process_time() - first < 1, "of the server's thread among it"
            found.ledger.append(entry(dashboards.LAST, Horizon(30)))
            assert "30 days" in found.ask("/")[2]

    def test_runs_that_cannot_be_read_are_told_and_the_rest_stands(self, tmp_path: Path) -> None:
        class Away:
            def newest(self, *_: Any) -> Any:
                raise TrackingError("the store at http://me:***@gone cannot be reached")

            changes = newest

        settings = load_settings(data_dir=tmp_path / "data")
        Ledger(settings.store_url).append(entry(dashboards.LAST))
        with served(settings, Away()) as found:
            assert "cannot be reached" in found.ask("/runs.html")[2]
            page = found.ask("/usdclp-7d.html")[2]
            assert "cannot be reached" in page
            assert "The forecast of 27 Nov 2026" in page
            assert "cannot be reached" in found.document("/api/champions/USDCLP/7d")["untold"]

    def test_a_ledger_that_is_damaged_is_told(self, tmp_path: Path) -> None:
        settings = load_settings(data_dir=tmp_path / "data")
        path = tmp_path / "data" / "store" / "forex.db"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"no database at all" * 100)
        with served(settings) as found:
            status, _, text = found.ask("/api/forecasts")
            assert status == 500
            assert "restore it from a backup" in json.loads(text)["detail"]
            assert "restore it from a backup" in found.ask("/")[2]


class TestToken:
    def test_nobody_is_let_in_without_it(self, guarded: Served) -> None:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
            status, told, text = guarded.ask("/api/health", **headers)
            assert (status, told["www-authenticate"]) == (401, "Bearer")
            assert TOKEN not in text
        status, told, _ = guarded.ask("/usdclp-7d.html")
        assert (status, told["location"]) == (303, "login")
        assert guarded.ask("/openapi.json")[0] == 401
        assert guarded.ask("/api/health", Cookie="forex_dashboard=forged")[0] == 401
        assert guarded.ask("/api/health", Cookie=f"forex_dashboard={TOKEN}")[0] == 401

    @pytest.mark.parametrize(
        "path", ["/a/b", "/a/b/c.html", "/a/", "/login/", "//", "/a%2fb", "/login/login"]
    )
    def test_an_address_that_lies_deeper_is_no_page_and_leads_nowhere(
        self, path: str, guarded: Served
    ) -> None:
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(guarded.address + path, timeout=60)  # it follows where it is sent
        assert (refused.value.code, refused.value.url) == (404, guarded.address + path)
        assert "there is no such page" in refused.value.read().decode()

    @pytest.mark.parametrize("path", ["/", "/usdclp-7d.html", "/no-such-page"])
    def test_any_other_address_ends_in_the_form_and_the_form_in_the_pages(
        self, path: str, guarded: Served
    ) -> None:
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        with browser.open(guarded.address + path, timeout=60) as form:
            assert (form.status, form.url) == (200, f"{guarded.address}/login")
            assert 'action="login"' in form.read().decode()
        with browser.open(f"{guarded.address}/login", f"token={TOKEN}".encode(), timeout=60) as entered:
            assert (entered.status, entered.url) == (200, f"{guarded.address}/")
            assert "USD/CLP" in entered.read().decode()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            browser.open(f"{guarded.address}/a/b", timeout=60)

    def test_a_program_shows_it_in_a_header(self, guarded: Served) -> None:
        assert guarded.document("/api/health", Authorization=f"Bearer {TOKEN}")["forecasts"]
        assert guarded.ask("/api/health?token=" + TOKEN)[0] == 401, "an address is no place for it"
        _, told, _ = guarded.ask("/", Authorization=f"bearer {TOKEN}")
        assert told["cache-control"] == "no-store"

    def test_a_form_gives_a_cookie_that_does_not_tell_it(self, guarded: Served) -> None:
        form = {"Content_Type": "application/x-www-form-urlencoded"}
        status, told, text = guarded.ask("/login", "POST", "token=wrong", **form)
        assert (status, "set-cookie" in told) == (401, False)
        assert "not the token" in text
        assert guarded.ask("/login", "POST", "x" * 100_000, **form)[0] == 401
        status, told, _ = guarded.ask("/login", "POST", f"token={TOKEN}", **form)
        assert (status, told["location"]) == (303, "./")
        cookie = told["set-cookie"]
        assert TOKEN not in cookie
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
        assert "Secure" not in cookie
        assert guarded.ask("/usdclp-7d.html", Cookie=cookie.partition(";")[0])[0] == 200
        through_tls = guarded.ask("/login", "POST", f"token={TOKEN}", X_Forwarded_Proto="https", **form)[1]
        assert "Secure" in through_tls["set-cookie"]

    @pytest.mark.browser
    def test_everybody_can_use_the_form(self, guarded: Served, chromium: Browser) -> None:
        for width, scheme in ((1280, "light"), (390, "dark")):
            assert dashboards.findings(chromium, f"{guarded.address}/login", width, scheme) == []

    @pytest.mark.browser
    def test_in_a_browser(self, guarded: Served, chromium: Browser) -> None:
        page = chromium.new_page()
        said, asked = list[str](), list[str]()
        page.on("console", lambda message: said.append(message.text))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{guarded.address}/usdclp-7d.html")
        page.fill("#token", "wrong")
        page.keyboard.press("Enter")
        page.get_by_text("That is not the token").wait_for()
        page.fill("#token", TOKEN)
        page.get_by_role("button", name="Enter").click()
        page.get_by_role("heading", name="USD/CLP").wait_for()
        page.get_by_role("link", name="7 days", exact=True).click()
        page.get_by_role("heading", name="7 days ahead").wait_for()
        assert all(address.startswith(guarded.address) and TOKEN not in address for address in asked)
        assert [line for line in said if "401" not in line] == [], "the refusal is all that it says"
        page.close()


@pytest.mark.browser
def test_served_pages_work_in_a_browser(site: Served, chromium: Browser) -> None:
    page = chromium.new_page()
    said, asked = list[str](), list[str]()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(site.address)
    page.get_by_role("article").nth(5).get_by_role("link").click()
    page.get_by_role("heading", name="15 days ahead").wait_for()
    page.get_by_role("button", name="The forecast before").click()
    page.get_by_role("link", name="Health").click()
    page.get_by_role("link", name="Runs").click()
    page.locator("#compared table").first.wait_for()
    page.get_by_role("link", name="Interface (OpenAPI)").click()
    page.get_by_text('"openapi"').wait_for()
    assert said == []
    assert all(address.startswith(site.address) for address in asked)
    page.close()


@pytest.mark.browser
def test_what_got_into_a_served_page_is_refused_by_its_header(site: Served, chromium: Browser) -> None:
    """A page without the policy that it carries itself, as it would come from a server that lets others write."""
    page = chromium.new_page()
    with dashboards.outside() as elsewhere:

        def injected(route: Route) -> None:
            answer = route.fetch()
            text, own = re.subn(r"<meta http-equiv=.Content-Security-Policy.*?>", "", answer.text())
            assert own == 1
            text = text.replace('<main id="main">', f'<main id="main">{elsewhere.markup}', 1)
            route.fulfill(response=answer, body=text)

        page.route(f"{site.address}/", injected)
        elsewhere.assert_refused(page, f"{site.address}/")
    page.close()
