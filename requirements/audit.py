"""Asks pip-audit for known vulnerabilities of what `make test` installs.

The exit code is 1 if there is one that IGNORED does not name, and 2 if pip-audit cannot be run.
Where the data cannot be reached, that is said and the exit code is 0. pip-audit alone does not
tell: a registry that does not know the packages is "No known vulnerabilities found" to it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PACKAGES = Path(__file__).with_name("dev.txt")
SERVICES = ("pypi", "osv")
"""Where pip-audit looks; the first that answers is enough, since both have the same advisories."""
IGNORED: dict[str, str] = {}
"""Advisories that do not concern us: the id, and why."""


def ask(service: str) -> tuple[list[dict[str, Any]] | None, str]:
    """What a service says of each package, or None and why it says nothing."""
    command = (
        *(sys.executable, "-m", "pip_audit", "--vulnerability-service", service),
        *("--requirement", str(PACKAGES), "--require-hashes", "--disable-pip"),
        *("--format", "json", "--progress-spinner", "off", "--timeout", "10"),
    )
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=180)  # noqa: S603
    except subprocess.TimeoutExpired:
        return None, "no answer within 180 seconds"
    if done.returncode not in (0, 1):
        sys.exit(f"pip-audit cannot be run (exit code {done.returncode}): {done.stderr.strip()}")
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        return None, (done.stderr.strip().splitlines() or ["no answer"])[-1][:200]
    if all("skip_reason" in package for package in found):
        return None, "it knows none of the packages"
    return found, ""


def judge(found: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """A line for each vulnerability to report, and for what could not be checked."""
    bad, unknown = [], []
    for package in found:
        if "skip_reason" in package:
            unknown.append(package["name"])
            continue
        for each in package["vulns"]:
            names = {each["id"], *each.get("aliases", ())}
            if names.isdisjoint(IGNORED):
                fixed = ", ".join(each.get("fix_versions", ())) or "none"
                bad.append(
                    f"{package['name']} {package['version']}: {each['id']}, fixed in {fixed}"
                )
    return bad, unknown


def main() -> int:
    """Ask, print, and return the exit code."""
    for service in SERVICES:
        found, why = ask(service)
        if found is None:
            print(f"pip-audit: {service} cannot be used here: {why}", file=sys.stderr)
            continue
        bad, unknown = judge(found)
        checked = len(found) - len(unknown)
        print(f"pip-audit: {checked} packages checked by {service}, {len(bad)} vulnerabilities")
        if unknown:
            print(f"pip-audit: not known there: {', '.join(unknown)}", file=sys.stderr)
        print(*bad, sep="\n", end="\n" if bad else "")
        return 1 if bad else 0
    print("pip-audit: no data can be reached, so nothing was checked", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
