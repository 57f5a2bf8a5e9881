"""What could not be audited is not taken for sound, and a licence that binds others is refused."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PROGRAM = Path(__file__).parents[2] / ".ci" / "audit.py"

# As pip-audit says them.
SOUND = {"name": "numpy", "version": "2.4.6", "vulns": []}
SKIPPED = {
    "name": "torch",
    "skip_reason": "Dependency not found on PyPI and could not be audited: torch (2.13.0)",
}
OURS = {"name": "forex-forecast", "skip_reason": "distribution marked as editable"}
KNOWN = {
    "name": "flask",
    "version": "0.5",
    "vulns": [{"id": "PYSEC-2019-179", "fix_versions": ["1.0"], "aliases": [], "description": "…"}],
}


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["audit"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("found", "code"),
    [
        ([SOUND], 0),
        ([SOUND, OURS], 0),
        ([SOUND, SKIPPED], 3),
        ([SKIPPED], 3),
        ([], 3),
        ([OURS], 3),
        ([SOUND, KNOWN], 1),
        ([SKIPPED, KNOWN], 1),
    ],
)
def test_what_the_answers_come_to(audit: ModuleType, found: list[dict[str, Any]], code: int) -> None:
    assert audit.audit_of({"dependencies": found, "fixes": []}).code == code


def test_a_vulnerability_is_told_with_its_cure(audit: ModuleType) -> None:
    found = audit.audit_of({"dependencies": [KNOWN]})
    assert found.vulnerable == {"flask 0.5": ["PYSEC-2019-179, mended in 1.0"]}


@pytest.mark.slow
def test_an_index_that_does_not_answer_is_no_audit(tmp_path: Path) -> None:
    """The real pip-audit, behind a proxy that is not there."""
    nobody = "http://127.0.0.1:1"
    done = subprocess.run(
        [sys.executable, str(PROGRAM)],
        env=os.environ
        | {"HTTPS_PROXY": nobody, "https_proxy": nobody, "NO_PROXY": "", "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 3, done.stdout + done.stderr
    (said,) = [line for line in done.stdout.splitlines() if line.startswith("NOT AUDITED: ")]
    assert "127.0.0.1" in said


def test_an_index_that_answers_nothing_is_no_audit(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """pip-audit itself ends with 0 or 1 then, as it likes. Mocked: no server here can be pypi.org, which it asks."""
    for answer in (
        subprocess.CompletedProcess(
            [], 0, json.dumps({"dependencies": [SKIPPED]}), "No known vulnerabilities found"
        ),
        subprocess.CompletedProcess([], 1, "", ""),
    ):
        monkeypatch.setattr(audit.subprocess, "run", lambda *_, answer=answer, **__: answer)
        assert audit.main() == 3
        assert "NOT AUDITED: " in capsys.readouterr().out


def test_licences_of_what_is_given_out(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {found.metadata["Name"].lower() for found in audit.given_out()}
    assert {"numpy", "mlflow", "prefect", "sqlalchemy", "psycopg", "apprise"} <= names
    assert not {"pytest", "ruff", "moto"} & names, "what is for development alone is given to nobody"
    answer = subprocess.CompletedProcess([], 0, json.dumps({"dependencies": [SOUND]}), "")
    monkeypatch.setattr(audit.subprocess, "run", lambda *_, **__: answer)
    assert audit.main() == 0, capsys.readouterr().out
    monkeypatch.setattr(audit, "licence", lambda _: "AGPL-3.0-only")
    assert audit.main() == 1
    assert "LICENCE not acceptable: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("MIT", False),
        ("LGPL-3.0-only", False),
        ("GNU Lesser General Public License v3 (LGPLv3)", False),
        ("GNU Affero General Public License v3", True),
        ("GPL-3.0-or-later", True),
        ("GPL-2.0-only OR MIT", False),
        ("unknown", False),
        ("(MIT OR GPL-2.0-only) AND GPL-3.0-only", True),
        ("MIT AND (Apache-2.0 OR (GPL-2.0-only AND ISC))", False),
        ("MIT AND (GPL-2.0-only OR (AGPL-3.0-only AND ISC))", True),
        ("MIT License; GNU General Public License v3 (GPLv3)", True),
        ("GNU Library or Lesser General Public License (LGPL)", False),
        ("SSPL-1.0", True),
        ("CC-BY-NC-4.0", True),
        ("CC-BY-4.0", False),
    ],
)
def test_licences_that_bind_others(audit: ModuleType, text: str, refused: bool) -> None:
    assert audit.is_refused(text) is refused


@pytest.mark.parametrize("finder", ["importlib.metadata", "importlib_metadata"])
def test_a_package_that_states_no_licence(audit: ModuleType, tmp_path: Path, finder: str) -> None:
    """By the standard library and by the package that may have taken its place in the process."""
    place = tmp_path / "bare-1.0.dist-info"
    place.mkdir()
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: bare\nVersion: 1.0\n")
    distributions = importlib.import_module(finder).distributions
    (found,) = distributions(path=[str(tmp_path)])
    assert audit.licence(found) == "unknown"
