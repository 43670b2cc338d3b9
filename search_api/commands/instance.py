"""The options of `lookalike up` and `lookalike serve`, made into the settings of an instance."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

import click

from embed.pictures import PictureLimits
from search_api.access import Access, KeyFormatError, is_loopback, read_keys
from search_api.commands.options import (
    bundle_option,
    data_option,
    host_option,
    port_option,
    together,
    var_option,
)
from search_api.logs import FORMATS
from search_api.settings import Limits, Settings, Shutdown

_DEFAULTS = Settings()
_PICTURE_HELP = {
    "max_bytes": "Largest encoded picture, bytes.",
    "max_pixels": "Largest decoded picture, width times height.",
    "max_scans": "Most scans of a JPEG; each takes as long as the picture.",
}


def _number(name: str, default: Any, help_: str) -> Callable[[Any], Any]:
    kind = click.IntRange(1) if isinstance(default, int) else click.FloatRange(0, min_open=True)
    return click.option(
        f"--{name.replace('_', '-')}",
        name,
        type=kind,
        envvar=f"LOOKALIKE_{name.upper()}",
        show_envvar=True,
        default=default,
        show_default=True,
        help=help_,
    )


def _plain_limits() -> list[Field[Any]]:
    return [field for field in fields(Limits) if field.default is not MISSING]


_limit_options = [
    _number(
        f"max_picture_{field.name.removeprefix('max_')}", field.default, _PICTURE_HELP[field.name]
    )
    for field in fields(PictureLimits)
] + [_number(field.name, field.default, field.metadata["help"]) for field in _plain_limits()]

_options = together(
    data_option,
    var_option,
    bundle_option,
    host_option,
    port_option,
    click.option(
        "--key-file",
        type=click.Path(dir_okay=False, path_type=Path),
        envvar="LOOKALIKE_KEY_FILE",
        show_envvar=True,
        help="File of API keys: a line `read KEY` or `write KEY` for each. Keys may also stand in"
        " LOOKALIKE_READ_KEYS and LOOKALIKE_WRITE_KEYS, separated by commas.",
    ),
    click.option(
        "--insecure",
        is_flag=True,
        envvar="LOOKALIKE_INSECURE",
        show_envvar=True,
        help="Listen on an address that others reach although no API key is set.",
    ),
    click.option(
        "--cors-origins",
        default="",
        envvar="LOOKALIKE_CORS_ORIGINS",
        show_envvar=True,
        metavar="ORIGINS",
        help="Origins whose pages may call the API, separated by commas, such as"
        " https://shop.example. Default: none.",
    ),
    click.option(
        "--log-format",
        type=click.Choice(FORMATS),
        envvar="LOOKALIKE_LOG_FORMAT",
        show_envvar=True,
        help="Form of the log on stderr. Default: text on a terminal, else json.",
    ),
    _number(
        "grace_seconds",
        _DEFAULTS.shutdown.grace_seconds,
        "The process has ended by then after SIGTERM, seconds.",
    ),
    _number(
        "drain_seconds",
        _DEFAULTS.shutdown.drain_seconds,
        "New connections are still served so long after SIGTERM, seconds.",
    ),
    *_limit_options,
)


def instance_options(command: Callable[[Settings], None]) -> Callable[..., None]:
    """Give ``command`` all options of an instance; it is called with the settings made of them."""

    @_options
    @functools.wraps(command)
    def with_settings(**values: Any) -> None:
        command(_settings(values))

    made: Callable[..., None] = with_settings
    return made


def _settings(values: dict[str, Any]) -> Settings:
    try:
        keys = read_keys(
            os.environ.get("LOOKALIKE_READ_KEYS", ""),
            os.environ.get("LOOKALIKE_WRITE_KEYS", ""),
            values["key_file"],
        )
    except KeyFormatError as error:
        raise click.UsageError(str(error)) from None
    host = values["host"]
    if not (keys or values["insecure"] or is_loopback(host)):
        raise click.UsageError(
            f"others can reach {host}, and no API key is set; set LOOKALIKE_WRITE_KEYS,"
            " LOOKALIKE_READ_KEYS or --key-file, or say --insecure"
        )
    shutdown = Shutdown(values["drain_seconds"], values["grace_seconds"])
    if shutdown.drain_seconds >= shutdown.grace_seconds:
        raise click.UsageError(
            f"--drain-seconds is {shutdown.drain_seconds:g}; expected less than --grace-seconds,"
            f" which is {shutdown.grace_seconds:g}"
        )
    return Settings(
        data=values["data"],
        var=values["var"],
        bundle=values["bundle"],
        host=host,
        port=values["port"],
        access=Access(keys, _origins(values["cors_origins"])),
        limits=Limits(
            picture=PictureLimits(
                values["max_picture_bytes"],
                values["max_picture_pixels"],
                values["max_picture_scans"],
            ),
            **{field.name: values[field.name] for field in _plain_limits()},
        ),
        shutdown=shutdown,
        log_format=values["log_format"],
    )


def _origins(text: str) -> tuple[str, ...]:
    origins = tuple(text.replace(",", " ").split())
    for origin in origins:
        scheme, found, host = origin.partition("://")
        if scheme not in ("http", "https") or not found or not host or "/" in host or "*" in host:
            raise click.UsageError(
                f"--cors-origins has {origin!r}; expected origins such as https://shop.example"
            )
    return origins
