"""Secrets are told to nobody: they are planted wherever one may stand, and looked for wherever anything is written.

Each secret has a form of its own, so that a find says which it is. Looked at are standard output and error of commands
that succeed and that fail, every file below the data folder (compressed ones unpacked), the tracking database on
PostgreSQL, the objects in S3, the spool, the database of Prefect's temporary server, archives and what is restored from
them, mails with their attachments, what webhooks are told, and the dashboard's pages. The logs and the database of a
server that lasts are looked at in `test_deployments.py`.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest

from flows.server import TemporaryServer
from forex_core.config import EngineConfig
from forex_core.testing import synthetic_table
from forex_core.tracking import copy_database
from tests.mailbox import PASSWORD, mail
from tests.planted import Secrets, told_in, written
from tests.ports import free_port

if TYPE_CHECKING:
    from tests.conftest import S3Bucket, Webhook
    from tests.mailbox import Mailbox

Forex = Callable[..., "subprocess.CompletedProcess[str]"]
LIGHT = EngineConfig(members=("random_walk", "theta", "drivers"), grid_origins=60, warmup_origins=8)


@pytest.fixture
def secret() -> Secrets:
    return Secrets()


@pytest.fixture
def gone() -> str:
    """Where nobody listens."""
    return f"127.0.0.1:{free_port()}"


def in_bucket(bucket: S3Bucket, prefix: str, copies: Path) -> Iterator[tuple[str, bytes]]:
    """Every object below a prefix, and what is packed in it; copies are made of them."""
    copies.mkdir()
    pages = bucket.client.get_paginator("list_objects_v2").paginate(Bucket=bucket.name, Prefix=prefix)
    for number, found in enumerate(one for page in pages for one in page["Contents"]):
        (copies / str(number)).write_bytes(
            bucket.client.get_object(Bucket=bucket.name, Key=found["Key"])["Body"].read()
        )
    yield from written(copies)


def said(done: subprocess.CompletedProcess[str]) -> Iterator[tuple[str, bytes]]:
    yield f"{done.args} stdout", done.stdout.encode()
    yield f"{done.args} stderr", done.stderr.encode()


def keys_of_sources(secret: Secrets, gone: str) -> dict[str, str]:
    """Settings of every source that takes a key, of which none answers."""
    sources = ("yahoo", "fred", "mindicador", "ecb", "calendar", "news", "bcch")
    return {
        "FOREX_DATA__FRED_API_KEY": secret("fred"),
        "FOREX_DATA__NEWS_API_KEY": secret("news"),
        "FOREX_DATA__BCCH_USER": secret("bcch-user"),
        "FOREX_DATA__BCCH_PASSWORD": secret("bcch-password"),
        "FOREX_DATA__ADDRESSES": json.dumps(dict.fromkeys(sources, f"http://{gone}")),
        "FOREX_DATA__DRIVERS": '["chile_tpm", "fed_rate"]',
        "FOREX_DATA__NEWS_FEEDS": "[]",
        "FOREX_DATA__TIMEOUT_S": "2",
    }


def test_the_search_finds_what_is_planted(secret: Secrets, tmp_path: Path) -> None:
    """In a log, in a database, in a snapshot, packed, and as an address writes it."""
    word = secret("any")
    (tmp_path / "log").write_text(f"GET /x?key={word}")
    (tmp_path / "header").write_bytes(b"Basic " + base64.b64encode(f"forex:{word}".encode()))
    with pyarrow.output_stream(tmp_path / "archived", compression="zstd") as out:
        out.write(word.encode())
    (tmp_path / "quoted").write_text(f"https://me:{secret.url('any')}@host")
    (tmp_path / "packed").write_bytes(gzip.compress(word.encode()))
    pd.DataFrame({"a": [word]}).to_parquet(tmp_path / "snapshot.parquet")
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection, connection:
        connection.execute("CREATE TABLE tags (value)")
        connection.execute("INSERT INTO tags VALUES (?)", (word,))
    found = {Path(place.partition(" ")[0]).name for place in told_in(secret, written(tmp_path))}
    assert found == {"log", "header", "quoted", "packed", "archived", "snapshot.parquet", "a.db"}


@pytest.fixture
def market(tmp_path: Path) -> Path:
    path = tmp_path / "market.csv"
    synthetic_table(900, start="2021-01-18").to_csv(path, index=False)
    return path


def mailed(mailbox: Mailbox, folder: Path) -> Iterator[tuple[str, bytes]]:
    """Mails as they came, and every part of each, which is written below a folder for what is packed in it."""
    for number, (_, message) in enumerate(mailbox.received):
        yield f"mail {number}", message.as_bytes()
        (folder / str(number)).mkdir(parents=True)
        for place, part in enumerate(message.walk()):
            if not part.is_multipart():
                name = Path(part.get_filename() or "body").name
                content = part.get_payload(decode=True)
                assert isinstance(content, bytes)
                (folder / str(number) / f"{place}-{name}").write_bytes(content)
    yield from written(folder)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS:UserWarning")  # of the mail server
def test_a_deployment_with_a_secret_in_every_place_tells_none(
    forex: Forex,
    forked: Forex,
    secret: Secrets,
    gone: str,
    market: Path,
    postgres_store: str,
    s3_bucket: S3Bucket,
    webhook: Webhook,
    mailbox: Mailbox,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    """PostgreSQL and S3 with passwords, targets, keys; secrets in the environment, in .env and in forex.toml."""
    database = postgres_store.replace("forex@", f"forex:{secret.url('database')}@")
    targets = [
        f"json://me:{secret.url('hook')}@127.0.0.1:{webhook.port}/{secret.url('path')}",
        f"mailto://me:{secret.url('mail')}@{gone}?to=a@example.com&from=b@example.com&smtp=127.0.0.1",
        mail(mailbox, to="desk@example.com"),
    ]
    secret.add("mailbox", PASSWORD)
    (tmp_path / ".env").write_text(f"FOREX_NOTIFY__URLS='{json.dumps(targets)}'\n")
    (tmp_path / "forex.toml").write_text(
        f'[tracking.mlflow]\ns3_secret_access_key = "{secret("toml")}"\n[notify]\nattempts = 1\ntimeout_s = 2\n'
    )
    own = {
        "FOREX_ENGINE": LIGHT.model_dump_json(),
        "FOREX_PAIR": "USDCLP",
        "FOREX_TRACKING_URI": database,
        "FOREX_ARTIFACT_URI": f"s3://{s3_bucket.name}/runs",
        "MLFLOW_S3_ENDPOINT_URL": s3_bucket.settings["MLFLOW_S3_ENDPOINT_URL"],
        "MLFLOW_S3_ACCESS_KEY_ID": "me",
        "MLFLOW_S3_SECRET_ACCESS_KEY": secret("s3"),
        "FOREX_REPORT__URLS": json.dumps(
            [
                mail(mailbox),
                f"json://me:{secret.url('reader')}@127.0.0.1:{webhook.port}/{secret.url('report')}",
                f"mailto://me:{secret.url('reader-mail')}@{gone}?to=a@example.com&from=b@example.com&smtp=127.0.0.1",
            ]
        ),
        "FOREX_BACKUP__TO": f"s3://{s3_bucket.name}/archives",
        "FOREX_BACKUP__S3_ENDPOINT_URL": s3_bucket.settings["MLFLOW_S3_ENDPOINT_URL"],
        "FOREX_BACKUP__S3_ACCESS_KEY_ID": "me",
        "FOREX_BACKUP__S3_SECRET_ACCESS_KEY": secret("archives"),
        "FOREX_DASHBOARD__TOKEN": secret("dashboard"),
        "PREFECT_API_AUTH_STRING": f"forex:{secret('prefect')}",
        "PREFECT_SERVER_API_AUTH_STRING": f"forex:{secret('prefect')}",
        **keys_of_sources(secret, gone),
    }
    forecast = ("forecast", "7d", "--source", "csv", "--path", market, "--verbose")
    stored = {"FOREX_SOURCE": "csv", "FOREX_PATHS": str(market)}
    lost = {**own, "FOREX_TRACKING_URI": f"postgresql://forex:{secret.url('database')}@{gone}/runs"}
    away = {**own, "MLFLOW_S3_ENDPOINT_URL": f"http://{gone}"}
    done = [forex(*forecast, **own), forex(*forecast, **lost)]  # each with a Prefect server of its own
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "data" / "prefect"))
    for name in ("PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING"):
        monkeypatch.setenv(name, own[name])
    server = TemporaryServer()
    request.addfinalizer(server.stop)
    server.wait()
    for one in (own, lost, away):
        one["PREFECT_API_URL"], one["PREFECT_HOME"] = server.api_url, os.environ["PREFECT_HOME"]
    done += [
        forked("monitor", "--verbose", **own, **stored),
        forked("monitor", "--json", **lost, **stored),
        forked("evaluate", "7d", "--verbose", **own, **stored),
        forked("rollback", "7d", "--reason", "to try it", "--verbose", **own),
        forked("rollback", "7d", "--verbose", **lost),
        forked("dashboard", "--html", tmp_path / "site", "--verbose", **own),
        forked("dashboard", "--verbose", **lost),
        forked("runs", "list", "7d", "--json", **own),
        forked("runs", "show", "0000", "--json", **own),
        forked("models", "list", **own),
        forked("tracking", "sweep", **own),
        forked("doctor", "--json", "--verbose", **own),
        forked("notify", "test", "--json", "--verbose", **own),
        forked("notify", "test", "--report", "--verbose", **own),
        forked("data", "fetch", "--verbose", "--json", **own),
        forked("backup", "create", "--verbose", "--json", **own),
        forked("backup", "create", "--verbose", "--to", tmp_path / "archives", **own),
        forked("backup", "list", "--verbose", **own),
        forked("backup", "verify", "latest", "--verbose", **own),
        forked("backup", "restore", "latest", "--to", tmp_path / "restored", "--verbose", **own),
        forked("backup", "prune", "--verbose", **own),
        forked("backup", "create", "--verbose", **lost),
        forked("forecast", "15d", *forecast[2:], **away),
        forked("backup", "list", **own | {"FOREX_BACKUP__S3_ENDPOINT_URL": f"http://{gone}"}),
    ]
    codes = [0, 1, 0, 0, 0, 2, 1, 0, 0, 0, 2, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 0, 1]
    assert [one.returncode for one in done] == codes, [one.stderr for one in done]
    assert {"USD/CLP, 7 days ahead", "Test of forex-forecast"} <= {
        body["title"].partition(":")[0] for _, body, _ in webhook.received
    }, "the secrets are used"

    assert {who for recipients, _ in mailbox.received for who in recipients} == {
        "cfo@example.com",
        "desk@example.com",
    }
    assert any(
        "report.html" in str(part.get_filename()) for _, one in mailbox.received for part in one.walk()
    )
    assert (tmp_path / "site" / "index.html").is_file()

    server.stop()
    for one in done:
        assert told_in(secret, said(one)) == {}
    assert told_in(secret, mailed(mailbox, tmp_path / "mails")) == {}
    assert [body for _, body, _ in webhook.received if secret.found_in(json.dumps(body).encode())] == []
    assert told_in(secret, written(tmp_path / "site")) == {}
    assert told_in(secret, written(tmp_path / "data")) == {}
    spooled = {path.name for path in (tmp_path / "data" / "spool").rglob("*") if path.is_file()}
    assert spooled >= {"run.json", "report.html"}, "what the bucket could not take is looked at"
    prefect = [path for path in (tmp_path / "data" / "prefect").rglob("*.db") if path.stat().st_size]
    assert prefect, "the temporary server's database is looked at"
    copy_database(postgres_store, tmp_path / "rows" / "runs.db")
    assert told_in(secret, written(tmp_path / "rows")) == {}
    for place in ("runs", "archives"):
        assert told_in(secret, in_bucket(s3_bucket, f"{place}/", tmp_path / f"copies of {place}")) == {}
        assert len(list((tmp_path / f"copies of {place}").iterdir())) > 10
    for folder in ("archives", "restored"):
        assert told_in(secret, written(tmp_path / folder)) == {}
    # What the archive leaves out it names, for whoever has to set it again.
    restored = next(one.stdout for one in done if "restore" in one.args)
    assert "set them again" in restored
    for name in ("data.fred_api_key", "tracking.mlflow.s3_secret_access_key", "notify.urls"):
        assert name in restored
    document = json.loads((tmp_path / "restored" / "settings.json").read_text(encoding="utf-8"))
    assert document["backup"]["to"] == f"s3://{s3_bucket.name}/archives"


COMMANDS = (
    ("doctor", "--verbose"),
    ("runs", "list", "7d"),
    ("models", "history"),
    ("tracking", "replay", "--verbose"),
    ("tracking", "sweep", "--verbose"),
    ("tracking", "relocate", "--from", "/old", "--to", "/new"),
    ("data", "status"),
    ("data", "sources"),
    ("data", "show", "usdclp_close"),
    ("notify", "test", "--verbose"),
    ("notify", "test", "--report", "--verbose"),
    ("backup", "create", "--verbose"),
    ("backup", "list", "--verbose"),
    ("backup", "restore", "latest", "--verbose"),
    ("dashboard", "--html", "site", "--verbose"),
    ("ui",),
)


def unusable(secret: Secrets, gone: str) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Settings that hold a secret and cannot be used."""
    word, coded = secret("word"), secret.url("word")
    yield "store", {"FOREX_DATA__STORE_URL": f"postgresql://me:{coded}@{gone}/data"}
    yield "store of no kind", {"FOREX_DATA__STORE_URL": f"oracle://me:{coded}@{gone}/data"}
    yield "store, in the query", {"FOREX_DATA__STORE_URL": f"postgresql://{gone}/d?user=me&password={coded}"}
    yield "tracking", {"FOREX_TRACKING_URI": f"postgresql://me:{coded}@{gone}/runs"}
    yield (
        "tracking, in the query",
        {"FOREX_TRACKING_URI": f"postgresql://{gone}/runs?user=me&password={coded}"},
    )
    yield "server", {"FOREX_TRACKING_URI": f"http://me:{coded}@{gone}"}
    yield "server of no kind", {"FOREX_TRACKING_URI": f"ftp://me:{coded}@{gone}"}
    yield (
        "place of archives",
        {
            "FOREX_BACKUP__TO": "s3://bucket/archives",
            "FOREX_BACKUP__S3_ENDPOINT_URL": f"http://me:{coded}@{gone}",
            "FOREX_BACKUP__S3_ACCESS_KEY_ID": "me",
            "FOREX_BACKUP__S3_SECRET_ACCESS_KEY": word,
        },
    )
    yield "files in a store of no kind", {"FOREX_ARTIFACT_URI": f"sftp://me:{coded}@{gone}/runs"}
    yield "place of archives of no kind", {"FOREX_BACKUP__TO": f"ftp://me:{coded}@{gone}/archives"}
    yield "targets", {"FOREX_NOTIFY__URLS": f"jsons://me:{coded}@{gone}/{coded}"}
    yield "targets of no kind", {"FOREX_NOTIFY__URLS": f"nonsense://me:{coded}@{gone}"}
    yield "readers", {"FOREX_REPORT__URLS": f"mailto://me:{coded}@{gone}?to=a@example.com&smtp=127.0.0.1"}
    yield "readers of no kind", {"FOREX_REPORT__URLS": f"nonsense://me:{coded}@{gone}"}
    yield "targets, no list", {"FOREX_NOTIFY__URLS": f'["jsons://me:{coded}@{gone}"'}
    yield "a table that is none", {"FOREX_NOTIFY": json.dumps(word)}
    yield "a key that is none", {"FOREX_DATA": json.dumps({"fred_api_key": [word]})}
    yield "a misspelt key", {"FOREX_DATA": json.dumps({"fred_api_kye": word})}


@pytest.mark.slow
@pytest.mark.parametrize("case", [name for name, _ in unusable(Secrets(), "x")])
def test_what_cannot_be_used_is_not_shown(
    case: str, entry: Forex, secret: Secrets, gone: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in dict(unusable(secret, gone))[case].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("FOREX_NOTIFY__ATTEMPTS", "1")
    monkeypatch.setenv("FOREX_PAIR", "USDCLP")
    failed = []
    for command in COMMANDS:
        done = entry(*command)
        assert told_in(secret, said(done)) == {}, command
        failed.append(done.returncode)
    assert any(failed)
    assert told_in(secret, written(tmp_path / "data")) == {}


@pytest.mark.slow
def test_a_flow_that_cannot_read_its_settings_tells_prefect_no_secret(
    prefect_server: None,
    secret: Secrets,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Prefect logs the trace of an error, and those that it came from."""
    from flows.forecast import forecast_7d
    from forex_core.errors import ConfigError

    monkeypatch.setenv("FOREX_DATA", json.dumps({"fred_api_key": [secret("flow")]}))
    with pytest.raises(ConfigError):
        forecast_7d()
    out = capfd.readouterr()
    told = caplog.text + out.err + out.out
    assert "Traceback" in told
    assert "fred_api_key" in told
    assert secret.found_in(told.encode()) == set()
