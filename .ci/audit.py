#!/usr/bin/env python
"""Known vulnerabilities of what is installed, and its licences. What could not be audited is not taken for sound.

pip-audit ends well when it could look nothing up ("No known vulnerabilities found"), as where the package index does
not answer; so its answers are counted here.

Exit code 0: everything was audited, nothing is known, every licence is acceptable; 1: a vulnerability or a licence;
3: no vulnerability is known, and not everything could be audited.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

OURS = "forex-forecast"
DEVELOPMENT = ("dev",)
"""Extras whose packages are not given to anybody."""
SOUND, AT_FAULT, NOT_AUDITED = 0, 1, 3
REFUSED = re.compile(
    r"\bA?GPL|Affero|(?<!Lesser )General Public License|\bSSPL|Server Side Public|\bCC-BY-(NC|ND)|\bBUSL",
    re.IGNORECASE,
)
CHOICES = {
    "pyphen": "GPL-2.0-or-later OR LGPL-2.1-or-later OR MPL-1.1",
    "text-unidecode": "Artistic-1.0-Perl OR GPL-2.0-or-later",
}
"""Of packages that name several licences and say in a text alone that one may choose."""
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Audit:
    """What pip-audit found: packages looked up, the reasons why others were not, and what is known of some."""

    audited: int
    skipped: Mapping[str, str]
    vulnerable: Mapping[str, Sequence[str]]

    @property
    def code(self) -> int:
        if self.vulnerable:
            return AT_FAULT
        return NOT_AUDITED if self.skipped or not self.audited else SOUND


def audit_of(report: Mapping[str, Any]) -> Audit:
    """Out of pip-audit's JSON; our own package, which no index has, is left out."""
    found = [one for one in report["dependencies"] if canonicalize_name(one["name"]) != OURS]
    return Audit(
        audited=sum("vulns" in one for one in found),
        skipped={one["name"]: one["skip_reason"] for one in found if "skip_reason" in one},
        vulnerable={
            f"{one['name']} {one['version']}": [
                f"{vuln['id']}, mended in {', '.join(vuln['fix_versions']) or 'no version'}"
                for vuln in one["vulns"]
            ]
            for one in found
            if one.get("vulns")
        },
    )


def asked() -> Audit | str:
    """What pip-audit says of this environment, or why it said nothing."""
    command = [
        sys.executable,
        "-m",
        "pip_audit",
        "--format",
        "json",
        "--progress-spinner",
        "off",
        "--skip-editable",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return audit_of(json.loads(done.stdout))
    except (json.JSONDecodeError, KeyError):
        said = [line for line in done.stderr.splitlines() if line.strip()]
        return said[-1] if said else f"pip-audit ended with {done.returncode} and said nothing"


def licence(found: Distribution) -> str:
    """As the package states it: an expression, classifiers, or the first line of a text."""
    metadata = found.metadata
    if (name := canonicalize_name(str(metadata["Name"]))) in CHOICES:
        return CHOICES[name]
    expression, text = (str((metadata.get_all(key) or ("",))[0]) for key in ("License-Expression", "License"))
    if expression:
        return expression
    named = [
        c.rpartition(" :: ")[2] for c in metadata.get_all("Classifier") or () if c.startswith("License ::")
    ]
    named = [name for name in named if name != "OSI Approved"]
    stated = text.strip().splitlines()
    return "; ".join(named) or (stated[0][:60] if stated else UNKNOWN)


def given_out(name: str = OURS) -> Iterator[Distribution]:
    """Every package that an installation with all extras but those of development has."""
    seen: set[str] = set()
    extras = distribution(name).metadata.get_all("Provides-Extra") or ()
    waiting = [(name, ("", *(extra for extra in extras if extra not in DEVELOPMENT)))]
    while waiting:
        one, wanted = waiting.pop()
        if canonicalize_name(one) in seen:
            continue
        seen.add(canonicalize_name(one))
        try:
            found = distribution(one)
        except PackageNotFoundError:  # of an extra that is not installed, or for another system
            continue
        yield found
        for text in found.requires or ():
            need = Requirement(text)
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in wanted):
                waiting.append((need.name, ("", *need.extras)))


def is_refused(text: str) -> bool:
    """Whether a licence, all of those that one may choose from, would bind whoever builds on this system.

    Several names without an `OR` hold together.

    >>> [is_refused(text) for text in ("MIT", "AGPL-3.0", "GNU General Public License v3", "LGPL-3.0-or-later")]
    [False, True, True, False]
    >>> is_refused("MIT OR GPL-2.0-only"), is_refused("(MIT OR GPL-2.0-only) AND GPL-3.0-only")
    (False, True)
    """

    def flat(expression: str) -> bool:  # AND binds closer
        return all(REFUSED.search(choice) for choice in re.split(r"\s+OR\s+", expression))

    inner = re.compile(r"\(([^()]*\s(?:OR|AND)\s[^()]*)\)")  # what else stands in brackets belongs to a name
    while found := inner.search(text):
        text = f"{text[: found.start()]}{'GPL' if flat(found[1]) else 'MIT'}{text[found.end() :]}"
    return flat(text)


def told(lines: Sequence[str]) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)


def main() -> int:
    packages = sorted(
        {found.metadata["Name"]: (found.version, licence(found)) for found in given_out()}.items(),
        key=lambda item: item[0].lower(),
    )
    told([f"{name} {version}: {text}" for name, (version, text) in packages])
    refused = [f"{name}: {text}" for name, (_, text) in packages if is_refused(text)]
    unknown = [name for name, (_, text) in packages if text == UNKNOWN and name != OURS]
    told(
        [f"{len(packages)} packages are given out; without a stated licence: {', '.join(unknown) or 'none'}"]
    )
    audit = asked()
    code = NOT_AUDITED if isinstance(audit, str) else audit.code
    if isinstance(audit, str):
        told([f"NOT AUDITED: {audit}"])
    else:
        told([f"VULNERABLE {name}: {text}" for name, texts in audit.vulnerable.items() for text in texts])
        if audit.skipped:
            reason = next(iter(audit.skipped.values()))
            told([f"NOT AUDITED: {len(audit.skipped)} packages, such as: {reason}"])
        told([f"{audit.audited} packages audited, {len(audit.vulnerable)} with known vulnerabilities"])
    if refused:
        told([f"LICENCE not acceptable: {text}" for text in refused])
        code = AT_FAULT
    return code


if __name__ == "__main__":
    sys.exit(main())
