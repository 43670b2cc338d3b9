"""The compose file and the Dockerfile name things that exist; no container is started here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from search_api.cli.main import cli

DEPLOY = Path(__file__).parents[2] / "deploy"


def variables() -> set[str]:
    """All environment variables that `lookalike serve` reads."""
    command = cli.get_command(None, "serve")  # type: ignore[arg-type]
    assert command is not None
    named = {"LOOKALIKE_READ_KEYS", "LOOKALIKE_WRITE_KEYS"}
    for option in command.params:
        if option.envvar:
            named.update([option.envvar] if isinstance(option.envvar, str) else option.envvar)
    return named


@pytest.mark.parametrize("name", ["compose.yaml", "Dockerfile"])
def test_every_variable_exists(name: str) -> None:
    text = (DEPLOY / name).read_text("utf-8")
    named = set(re.findall(r"\b(?:LOOKALIKE_[A-Z_]+|MILVUS_[A-Z]+)\b", text))
    assert named
    assert named <= variables()


def test_images_are_pinned_and_services_exist() -> None:
    yaml = pytest.importorskip("yaml")
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
    services = compose["services"]
    assert set(services) == {"etcd", "minio", "milvus", "build", "api"}
    for service in services.values():
        tag = service["image"].rpartition(":")[2]
        assert tag != "latest"
        assert re.search(r"\d", tag)
        assert set(service.get("depends_on", {})) <= set(services)
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert source.startswith("$") or source in compose["volumes"]
    assert services["api"]["ports"][0].startswith("127.0.0.1:")
    assert services["api"]["environment"]["LOOKALIKE_INDEX"] == "milvus"


def test_the_dockerfile_copies_every_package() -> None:
    text = (DEPLOY / "Dockerfile").read_text("utf-8")
    for package in ("embed", "index", "search_api", "train"):
        assert f"COPY {package} {package}\n" in text
    assert re.search(r"^FROM python:3\.1\d\.\d+-", text, re.MULTILINE)
