"""Options and environment become the settings of an instance."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from embed.pictures import PictureLimits
from search_api.cli.instance import instance_options
from search_api.keys import Level
from search_api.settings import Limits, Settings, Shutdown


def made(*arguments: str, **env: str) -> Settings:
    got: list[Settings] = []
    result = invoke(got, *arguments, **env)
    assert result.exit_code == 0, result.output
    return got[0]


def invoke(got: list[Settings], *arguments: str, **env: str) -> Result:
    @click.command()
    @instance_options
    def command(settings: Settings) -> None:
        got.append(settings)

    names = {f"LOOKALIKE_{name}": value for name, value in env.items()}
    return CliRunner().invoke(command, arguments, env=names)


def test_defaults_are_those_of_the_dataclasses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATA", "VAR", "BUNDLE", "HOST", "PORT"):
        monkeypatch.delenv(f"LOOKALIKE_{name}", raising=False)
    assert made() == Settings()


def test_every_limit_has_an_option_and_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Limits, "check", lambda limits: None)
    plain = [field.name for field in fields(Limits) if field.name != "picture"]
    for number, name in enumerate(plain, 2):
        option = f"--{name.replace('_', '-')}"
        assert getattr(made(option, str(number)).limits, name) == number
        assert getattr(made(**{name.upper(): str(number)}).limits, name) == number
    names = [field.name.removeprefix("max_") for field in fields(PictureLimits)]
    env = {f"MAX_PICTURE_{name.upper()}": str(n) for n, name in enumerate(names, 5)}
    assert made(**env).limits.picture == PictureLimits(*range(5, 11))


def test_keys(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("write 0123456789-in-file\n")
    settings = made("--host", "0.0.0.0", "--key-file", str(file), READ_KEYS="0123456789-in-env")
    assert settings.access.keys.level("0123456789-in-env") is Level.READ
    assert settings.access.keys.level("0123456789-in-file") is Level.WRITE


def test_other_addresses_need_a_key_or_the_word() -> None:
    refused = invoke([], "--host", "0.0.0.0")
    assert refused.exit_code == 2
    assert "--insecure" in refused.output
    assert made("--host", "0.0.0.0", "--insecure").host == "0.0.0.0"
    assert made("--host", "::1").host == "::1"


def test_shutdown_and_origins() -> None:
    settings = made(GRACE_SECONDS="5", DRAIN_SECONDS="0.5", CORS_ORIGINS="http://a, https://b:8")
    assert settings.shutdown == Shutdown(0.5, 5)
    assert settings.access.origins == ("http://a", "https://b:8")


def test_hosts_and_proxies() -> None:
    access = made(ALLOWED_HOSTS="Shop.example, [2001:db8::1]", TRUSTED_PROXIES="10.0.0.0/8").access
    assert access.hosts == ("shop.example", "[2001:db8::1]")
    assert access.proxies == ("10.0.0.0/8",)
    named = made("--host", "here.example", "--insecure", "--allowed-host", "other.example")
    assert named.access.hosts == ("other.example", "here.example")
    keys = made("--host", "here.example", READ_KEYS="0123456789-in-env")
    assert keys.access.hosts == ()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--allowed-host", "*"], "pictures.example"),
        (["--allowed-host", "https://shop.example"], "without scheme and port"),
        (["--allowed-host", "shop.example:443"], "without scheme and port"),
        (["--trusted-proxy", "*"], "10.0.0.0/8"),
        (["--trusted-proxy", "10.0.0.1/8"], "has host bits set"),
        (["--max-images", "0"], "--max-images"),
        (["--max-images", "300"], "max_images is 300 and more than max_waiting, which is 256"),
        (["--body-seconds", "0"], "--body-seconds"),
        (["--drain-seconds", "30"], "less than --grace-seconds"),
        (["--cors-origins", "*"], "https://shop.example"),
        (["--cors-origins", "https://a/b"], "https://shop.example"),
        (["--key-file", "nowhere"], "cannot be read"),
        (["--log-format", "xml"], "--log-format"),
    ],
)
def test_bad_values(arguments: list[str], words: str) -> None:
    result = invoke([], *arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.output.replace("│", " ").split())


def test_the_limits_are_documented() -> None:
    text = (Path(__file__).parents[3] / "docs" / "running.md").read_text("utf-8")
    for field in fields(Limits):
        if field.name != "picture":
            line = f"| `LOOKALIKE_{field.name.upper()}` | {field.default:,} | "
            assert line + field.metadata["help"] in text
    for field in fields(PictureLimits):
        variable = f"LOOKALIKE_MAX_PICTURE_{field.name.removeprefix('max_').upper()}"
        assert f"| `{variable}` | {field.default:,} | " in text
    for name in ("DRAIN_SECONDS", "GRACE_SECONDS", "KEY_FILE", "CORS_ORIGINS"):
        assert f"LOOKALIKE_{name}" in text


@pytest.mark.parametrize(
    ("name", "old_name"),
    [("compact_min_changes", "fold_least"), ("compact_share", "fold_share")],
)
def test_renamed_options_work_under_their_old_names(name: str, old_name: str) -> None:
    old_option = f"--{old_name.replace('_', '-')}"
    assert getattr(made(old_option, "7").limits, name) == 7
    assert getattr(made(f"{old_option}=7").limits, name) == 7
    assert getattr(made(**{old_name.upper(): "7"}).limits, name) == 7
    both = {name.upper(): "3", old_name.upper(): "7"}
    assert getattr(made(**both).limits, name) == 3
    text = invoke([], "--help").output
    assert old_option not in text
    assert f"LOOKALIKE_{old_name.upper()}" not in text
    assert f"--{name.replace('_', '-')}" in text
    assert f"LOOKALIKE_{name.upper()}" in " ".join(text.split())


def test_watching() -> None:
    assert made().watch == ""
    assert made("--watch").watch == made(WATCH="1").watch == "auto"
    assert made("--watch-poll").watch == made(WATCH="1", WATCH_POLL="1").watch == "poll"
