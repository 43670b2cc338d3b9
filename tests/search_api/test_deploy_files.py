"""What is in deploy/ names things that exist and keeps its promises; nothing is started here."""

from __future__ import annotations

import logging
import re
import runpy
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from embed.private_cache import default_cache
from search_api.cli.main import cli
from search_api.file_modes import VARIABLE

DEPLOY = Path(__file__).parents[2] / "deploy"
OWN = ("api", "build", "password")
DIGEST = re.compile(r"[\w./-]+:v?\w[\w.-]*@sha256:[0-9a-f]{64}")


def variables() -> set[str]:
    """All environment variables that `lookalike serve` reads."""
    command = cli.get_command(None, "serve")  # type: ignore[arg-type]
    assert command is not None
    named = {"LOOKALIKE_READ_KEYS", "LOOKALIKE_WRITE_KEYS", "LOOKALIKE_CACHE", VARIABLE}
    for option in command.params:
        if option.envvar:
            named.update([option.envvar] if isinstance(option.envvar, str) else option.envvar)
    return named


def ours(names: set[str]) -> set[str]:
    return {name for name in names if name.startswith(("LOOKALIKE_", "MILVUS_"))}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    yaml = pytest.importorskip("yaml")
    text = (DEPLOY / "compose.yaml").read_text("utf-8")
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def options() -> dict[str, list[str]]:
    """The settings of the unit, each with its values in order."""
    found = defaultdict(list)
    for line in (DEPLOY / "lookalike.service").read_text("utf-8").splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found[name].append(value)
    return found


def test_every_variable_exists(compose: dict[str, Any]) -> None:
    for name in OWN:
        named = set(compose["services"][name]["environment"])
        assert named and named <= variables(), name
    image = (DEPLOY / "Dockerfile").read_text("utf-8")
    assert ours(set(re.findall(r"\b([A-Z_]+)=", image))) <= variables()
    unit = {value.partition("=")[0] for value in options()["Environment"]}
    assert unit and unit <= variables()
    assert default_cache()  # LOOKALIKE_CACHE is read there


def test_images_are_pinned_and_services_exist(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert set(services) == {"etcd", "minio", "milvus", "prometheus", "grafana", *OWN}
    for name, service in services.items():
        if name == "milvus":  # its digest could not be confirmed; see the top of the file
            assert service["image"] == "${MILVUS_IMAGE:-milvusdb/milvus:v2.3.5}"
        elif name in OWN:
            assert service["image"] == "lookalike:0.1.0"
        else:
            assert DIGEST.fullmatch(service["image"]), name
        assert set(service.get("depends_on", {})) <= set(services)
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert source.startswith(("$", "/var/", "./")) or source in compose["volumes"]
    assert services["api"]["environment"]["LOOKALIKE_INDEX"] == "milvus"


def test_every_container_is_locked_in(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service["read_only"] is True, name
        assert service["mem_limit"] and service["pids_limit"], name
        assert service["tmpfs"], name
        assert not {"privileged", "cap_add", "pid", "network_mode"} & set(service), name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name
    for name in ("api", "build", "password", "prometheus", "grafana"):
        assert not compose["services"][name]["user"].startswith(("0", "root")), name


def test_nothing_has_a_password_that_comes_with_it(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        for key, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|TOKEN|ACCESS_KEY|ROOT_USER|_KEYS?$", key):
                assert value.startswith("/run/secrets/") or ":?" in value, (name, key)
                assert ":-" not in value
    for secret in compose["secrets"].values():
        assert secret["file"].startswith("${LOOKALIKE_SECRETS:?")
    text = (DEPLOY / "compose.yaml").read_text("utf-8")
    assert not re.search("minioadmin|:-admin|changeme", text)


def test_the_parts_know_each_other(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert services["milvus"]["environment"]["COMMON_SECURITY_AUTHORIZATIONENABLED"] == "true"
    for name in OWN:
        assert "milvus-token" in services[name]["secrets"], name
        assert services[name]["environment"]["MILVUS_TOKEN_FILE"] == "/run/secrets/milvus-token"
    # Nothing writes before the password of Milvus has been changed.
    assert set(services["build"]["depends_on"]) == {"password"}
    assert set(services["api"]["depends_on"]) == {"build"}
    assert services["api"]["environment"]["LOOKALIKE_KEY_FILE"] == "/run/secrets/keys"
    assert services["api"]["environment"]["LOOKALIKE_ALLOWED_HOSTS"]
    # What asks for no password is reached by Milvus alone.
    for name in ("etcd", "minio"):
        assert services[name]["networks"] == ["storage"]
    users = {name for name, service in services.items() if "storage" in service["networks"]}
    assert users == {"etcd", "minio", "milvus"}
    inside = {name for name, network in compose["networks"].items() if network.get("internal")}
    assert inside == {"storage", "engine", "monitoring"}


def test_prometheus_has_a_key(compose: dict[str, Any]) -> None:
    yaml = pytest.importorskip("yaml")
    job = yaml.safe_load((DEPLOY / "prometheus.yml").read_text("utf-8"))["scrape_configs"][0]
    secret = compose["services"]["prometheus"]["secrets"][0]
    assert job["authorization"]["credentials_file"] == secret["target"]
    assert secret["source"] in compose["secrets"]


def test_the_image_is_of_what_was_tested() -> None:
    text = (DEPLOY / "Dockerfile").read_text("utf-8")
    for package in ("embed", "index", "search_api", "train"):
        assert f"COPY {package} {package}\n" in text
    base = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert len(base) == 1 and DIGEST.fullmatch(base[0]) and base[0].startswith("python:3.1")
    assert (
        text.index("USER lookalike\n") < text.index("HEALTHCHECK") < text.index('CMD ["lookalike')
    )
    assert "USER root" not in text


def test_the_password_of_milvus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pymilvus")
    script = runpy.run_path(str(DEPLOY / "milvus_password.py"))
    passwords = {"root": "Milvus"}

    class Client:
        def __init__(self, uri: str, token: str) -> None:
            user, _, password = token.partition(":")
            if passwords[user] not in (password, "any"):
                raise script["MilvusException"](message="denied")

        def list_collections(self) -> list[str]:
            return []

        def update_password(self, user: str, old: str, new: str) -> None:
            assert passwords[user] in (old, "any")
            if passwords[user] != "any":
                passwords[user] = new

        def close(self) -> None: ...

    main = script["main"]
    monkeypatch.setattr(logging, "disable", lambda: None)
    monkeypatch.setitem(main.__globals__, "MilvusClient", Client)
    token = tmp_path / "token"
    monkeypatch.setenv("MILVUS_URI", "http://milvus:19530")
    monkeypatch.setenv("MILVUS_TOKEN_FILE", str(token))
    for text in ("root:Milvus", "user:0123456789abcdef", "0123456789abcdef"):
        token.write_text(text)
        assert main() == 2
    token.write_text("root:0123456789abcdef\n")
    assert main() == main() == 0
    assert passwords == {"root": "0123456789abcdef"}
    passwords["root"] = "any"  # authorization is off: every password is right
    assert main() == 1


UNIT = {
    "DynamicUser": "yes",
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "StateDirectoryMode": "0700",
    "CacheDirectoryMode": "0700",
    "UMask": "0077",
    "CapabilityBoundingSet": "",
    "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
    "LoadCredential": "keys:/etc/lookalike/keys",
    "LimitCORE": "0",
}


def test_the_unit_is_locked_in() -> None:
    found = options()
    assert {name: found[name] for name in UNIT} == {name: [value] for name, value in UNIT.items()}
    assert found["SystemCallFilter"] == ["@system-service", "~@privileged"]
    assert re.fullmatch(r"\d+G", found["MemoryMax"][0]) and found["TasksMax"]
    assert "LOOKALIKE_KEY_FILE=%d/keys" in found["Environment"]
    assert not [v for v in found["Environment"] if re.search("_KEYS=|_TOKEN=|PASSWORD", v)]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "lookalike.service"
    text = (DEPLOY / "lookalike.service").read_text("utf-8")
    unit.write_text(text.replace("/opt/lookalike/bin/lookalike up", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    assert str(unit) not in done.stderr and "lookalike.service:" not in done.stderr, done.stderr
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=15", unit],
        capture_output=True,
        text=True,
    )
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd cannot rate a file")
    assert done.returncode == 0, done.stdout[-200:]
