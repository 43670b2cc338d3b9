"""The pins and the hashes of requirements/ agree; what an audit says is understood."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
AUDIT = ROOT / "requirements" / "audit.py"
_LINE = re.compile(
    r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==(\S+)(?: ; (.+?))? \\\n((?:    --hash=.*\n?)+)"
)
_HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}(?: \\)?")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(name: str) -> dict[tuple[str, str, str], frozenset[str]]:
    """Name, version and marker of each package in a file, and its hashes."""
    text = (ROOT / "requirements" / name).read_text("utf-8")
    found = {
        (normal(m[1]), m[2], m[3] or ""): frozenset(m[4].splitlines()) for m in _LINE.finditer(text)
    }
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(lines) == len(found) + sum(map(len, found.values()))  # nothing else is in it
    return found


def pins(*extras: str) -> dict[str, str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = list(project["dependencies"])
    for extra in extras:
        wanted += project["optional-dependencies"][extra]
    found = {}
    for each in wanted:
        name, _, version = each.partition(";")[0].partition("==")
        if not name.startswith("lookalike["):
            found[normal(name.strip())] = version.strip()
    return found


@pytest.mark.parametrize(
    ("name", "extras"),
    [("run.txt", ()), ("milvus.txt", ("milvus",)), ("dev.txt", ("dev", "milvus"))],
)
def test_the_pins_and_the_hashes_agree(name: str, extras: tuple[str, ...]) -> None:
    """After a change of a dependency: make constraints."""
    found = {package: version for package, version, _ in locked(name)}
    for package, version in pins(*extras).items():
        assert found.get(package) == (version or found[package]), f"make constraints: {package}"


def test_smaller_files_are_part_of_the_larger() -> None:
    dev = locked("dev.txt").items()
    assert locked("run.txt").items() <= locked("milvus.txt").items() <= dev
    assert all(_HASH.fullmatch(line) for _, hashes in dev for line in hashes)


def test_no_file_names_a_host() -> None:
    for path in (ROOT / "requirements").glob("*.txt"):
        assert "://" not in path.read_text("utf-8")


def test_everything_is_installed_with_its_hash() -> None:
    """What is installed without is this package itself, which brings nothing with it."""
    for path in (ROOT / "Makefile", ROOT / "deploy" / "Dockerfile"):
        for line in path.read_text("utf-8").splitlines():
            if "install " in line and ("$(PIP)" in line or "pip install" in line):
                own = "--no-deps" in line and "--no-build-isolation" in line
                assert "--require-hashes -r " in line or own or "uv==" in line, line


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    return runpy.run_path(str(AUDIT))


CLEAN = {"name": "a", "version": "1", "vulns": []}
SKIPPED = {"name": "b", "skip_reason": "not found"}
BAD = {
    "name": "c",
    "version": "2",
    "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["3"]}],
}


def run(monkeypatch: pytest.MonkeyPatch, audit: dict[str, Any], **answers: tuple[int, str]) -> int:
    """The exit code if each service makes pip-audit end and print like this."""
    asked: list[str] = []

    def done(command: tuple[str, ...], **_: object) -> subprocess.CompletedProcess[str]:
        service = command[command.index("--vulnerability-service") + 1]
        asked.append(service)
        code, out = answers[service]
        return subprocess.CompletedProcess(command, code, out, "ConnectionError: no route")

    monkeypatch.setattr(subprocess, "run", done)
    try:
        code: int = audit["main"]()
    except SystemExit as error:
        assert "cannot be run" in str(error.code)
        return 2
    assert asked[0] == "pypi"
    return code


def answer(*packages: dict[str, Any]) -> str:
    return json.dumps({"dependencies": packages, "fixes": []})


@pytest.mark.parametrize(
    ("pypi", "osv", "code", "words"),
    [
        ((0, answer(CLEAN, SKIPPED)), (1, ""), 0, "1 packages checked by pypi, 0 vuln"),
        ((1, answer(CLEAN, BAD)), (1, ""), 1, "c 2: PYSEC-1, fixed in 3"),
        # Nothing was found because nothing was known: the other service is asked.
        ((0, answer(SKIPPED, SKIPPED)), (1, answer(BAD)), 1, "c 2: PYSEC-1"),
        ((0, answer(SKIPPED)), (1, ""), 0, "no data can be reached, so nothing was checked"),
        ((1, "Traceback"), (1, ""), 0, "no data can be reached, so nothing was checked"),
        ((2, ""), (2, ""), 2, ""),
    ],
)
def test_what_an_audit_says(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    audit: dict[str, Any],
    pypi: tuple[int, str],
    osv: tuple[int, str],
    code: int,
    words: str,
) -> None:
    assert run(monkeypatch, audit, pypi=pypi, osv=osv) == code
    captured = capsys.readouterr()
    assert words in captured.out + captured.err


def test_what_is_ignored_has_a_reason(
    monkeypatch: pytest.MonkeyPatch, audit: dict[str, Any]
) -> None:
    for name, reason in audit["IGNORED"].items():
        assert re.fullmatch(r"(PYSEC|CVE|GHSA)-\S+", name) and len(reason) > 20
    audit["IGNORED"]["CVE-1"] = "by its alias"
    assert run(monkeypatch, audit, pypi=(1, answer(BAD)), osv=(1, "")) == 0


def test_the_audit_is_of_what_is_installed(audit: dict[str, Any]) -> None:
    assert audit["PACKAGES"] == ROOT / "requirements" / "dev.txt"
