"""The options of `lookalike up` and `lookalike serve`, and the settings made from them."""

from __future__ import annotations

import functools
import ipaddress
import os
import re
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

import click

from embed.pictures import PictureLimits
from search_api.cli.options import (
    bundle_option,
    data_options,
    host_option,
    port_option,
    store_options,
    together,
)
from search_api.keys import Access, KeyFormatError, Keys, is_loopback, read_keys
from search_api.logs import FORMATS, configure
from search_api.settings import Limits, Quotas, Settings, Shutdown
from search_api.text import shortened

_DEFAULTS = Settings()
_HOST = re.compile(r"\[[0-9a-f:.]+\]|[a-z0-9_-][a-z0-9._-]*[a-z0-9_-]|[a-z0-9_-]")
_PICTURE_HELP = {
    "max_bytes": "Maximum size of an encoded picture, in bytes.",
    "max_pixels": "Maximum width times height of a picture; a JPEG may have five times as many.",
    "max_scans": "Maximum number of scans in a JPEG; each takes as long as decoding the picture.",
    "max_memory": "Maximum memory that decoding a picture may take, in bytes.",
    "max_seconds": "Time limit for decoding a picture in a worker process, in seconds.",
    "max_wait_seconds": "Time limit for waiting until a worker process can decode, in seconds.",
}


class _RenamedOption(click.Option):
    """An option that still accepts its old name and variable, which --help does not show."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        opts, envvar = self.opts, self.envvar
        self.opts, self.envvar = opts[:1], list(envvar or ())[:1]
        try:
            return super().get_help_record(ctx)
        finally:
            self.opts, self.envvar = opts, envvar


def _number(
    name: str,
    default: Any,
    help_: str,
    old_name: str = "",
    least: int = 1,
    *,
    hidden: bool = False,
) -> Callable[[Any], Any]:
    kind = (
        click.IntRange(least)
        if isinstance(default, int)
        else click.FloatRange(0, min_open=least > 0)
    )
    names = [name, *filter(None, [old_name])]
    return click.option(
        *(f"--{word.replace('_', '-')}" for word in names),
        name,
        cls=_RenamedOption if old_name else None,
        type=kind,
        envvar=[f"LOOKALIKE_{word.upper()}" for word in names],
        show_envvar=True,
        default=default,
        show_default=True,
        help=help_,
        hidden=hidden,
    )


def _metadata(field: Field[Any]) -> dict[str, Any]:
    """The further arguments of `_number`."""
    metadata = field.metadata
    return {"help_": metadata["help"], **{k: metadata[k] for k in ("old_name", "least")}}


def _plain_limits() -> list[Field[Any]]:
    return [field for field in fields(Limits) if field.default is not MISSING]


_limit_options = [
    _number(
        f"max_picture_{field.name.removeprefix('max_')}", field.default, _PICTURE_HELP[field.name]
    )
    for field in fields(PictureLimits)
] + [_number(field.name, field.default, **_metadata(field)) for field in _plain_limits()]

_options = together(
    data_options,
    store_options,
    bundle_option,
    host_option,
    port_option,
    click.option(
        "--watch",
        is_flag=True,
        envvar="LOOKALIKE_WATCH",
        show_envvar=True,
        help="Follow the folder or table while serving: what is new, changed, moved or gone is in"
        " the index within seconds.",
    ),
    click.option(
        "--watch-poll",
        is_flag=True,
        envvar="LOOKALIKE_WATCH_POLL",
        show_envvar=True,
        help="The same by looking at all files every few seconds, for drives whose changes the"
        " system does not tell of. Network drives are recognised.",
    ),
    click.option(
        "--key-file",
        type=click.Path(dir_okay=False, path_type=Path),
        envvar="LOOKALIKE_KEY_FILE",
        show_envvar=True,
        help="File of API keys, one `read KEY` or `write KEY` per line. LOOKALIKE_READ_KEYS and"
        " LOOKALIKE_WRITE_KEYS can hold keys too, separated by commas.",
    ),
    click.option(
        "--insecure",
        is_flag=True,
        envvar="LOOKALIKE_INSECURE",
        show_envvar=True,
        help="Allow listening on a public address without an API key.",
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
        "--allowed-host",
        default="",
        envvar="LOOKALIKE_ALLOWED_HOSTS",
        show_envvar=True,
        metavar="HOSTS",
        help="Hosts that requests may name besides localhost, separated by commas, such as"
        " pictures.example. Default: with API keys any host, otherwise none.",
    ),
    click.option(
        "--trusted-proxy",
        default="",
        envvar="LOOKALIKE_TRUSTED_PROXIES",
        show_envvar=True,
        metavar="ADDRESSES",
        help="Proxies whose X-Forwarded-For and X-Forwarded-Proto are believed: addresses or"
        " networks, separated by commas, such as 10.0.0.0/8. Default: none.",
    ),
    click.option(
        "--log-format",
        type=click.Choice(FORMATS),
        envvar="LOOKALIKE_LOG_FORMAT",
        show_envvar=True,
        help="Format of the log on stderr. Default: text on a terminal, json otherwise.",
    ),
    _number(
        "grace_seconds",
        _DEFAULTS.shutdown.grace_seconds,
        "Exit at most this long after SIGTERM, in seconds.",
    ),
    _number(
        "drain_seconds",
        _DEFAULTS.shutdown.drain_seconds,
        "Keep accepting connections for this long after SIGTERM, in seconds.",
    ),
    *_limit_options,
)


def quota_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give ``command`` the options for quotas, and pass their values as ``quotas``.

    `lookalike up --help` shows them; here they would hide what the command itself takes.
    """
    names = [field.name for field in fields(Quotas)]

    @together(*(_number(f.name, f.default, **_metadata(f), hidden=True) for f in fields(Quotas)))
    @functools.wraps(command)
    def with_quotas(**values: Any) -> None:
        command(quotas=Quotas(**{name: values.pop(name) for name in names}), **values)

    made: Callable[..., None] = with_quotas
    return made


def instance_options(command: Callable[[Settings], None]) -> Callable[..., None]:
    """Give ``command`` all options of an instance, and call it with the resulting settings."""

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
            f"other machines can reach {host}, but no API key is set; set LOOKALIKE_WRITE_KEYS,"
            " LOOKALIKE_READ_KEYS or --key-file, or pass --insecure"
        )
    shutdown = Shutdown(values["drain_seconds"], values["grace_seconds"])
    if shutdown.drain_seconds >= shutdown.grace_seconds:
        raise click.UsageError(
            f"--drain-seconds is {shutdown.drain_seconds:g}; expected less than --grace-seconds,"
            f" which is {shutdown.grace_seconds:g}"
        )
    limits = Limits(
        picture=PictureLimits(
            **{
                field.name: values[f"max_picture_{field.name.removeprefix('max_')}"]
                for field in fields(PictureLimits)
            }
        ),
        **{field.name: values[field.name] for field in _plain_limits()},
    )
    try:
        limits.check()
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if values["log_format"] == "json":
        configure("json")  # from the first line on
    return Settings(
        data=values["data"],
        store=values["location"],
        bundle=values["bundle"],
        host=host,
        port=values["port"],
        access=Access(
            keys,
            _origins(values["cors_origins"]),
            _hosts(values["allowed_host"], keys, host),
            _proxies(values["trusted_proxy"]),
        ),
        limits=limits,
        shutdown=shutdown,
        log_format=values["log_format"],
        watch="poll" if values["watch_poll"] else "auto" if values["watch"] else "",
        allow_removal=values.get("allow_removal", False),
        folder_options=values["folder_options"],
    )


def _origins(text: str) -> tuple[str, ...]:
    origins = tuple(text.replace(",", " ").split())
    for origin in origins:
        scheme, found, host = origin.partition("://")
        if scheme not in ("http", "https") or not found or not host or "/" in host or "*" in host:
            raise click.UsageError(
                f"--cors-origins contains {origin!r}; expected origins such as https://shop.example"
            )
    return origins


def _hosts(text: str, keys: Keys, listening: str) -> tuple[str, ...]:
    """The allowed hosts, with the name that the server listens on; empty for any host."""
    hosts = tuple(host.lower() for host in text.replace(",", " ").split())
    for host in hosts:
        if not _HOST.fullmatch(host):
            raise click.UsageError(
                f"--allowed-host contains {shortened(host)!r}; expected names or addresses without"
                " scheme and port, such as pictures.example or [2001:db8::1]"
            )
    if (hosts or not keys) and not _is_address(listening):
        return (*hosts, listening.lower())
    return hosts


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _proxies(text: str) -> tuple[str, ...]:
    proxies = tuple(text.replace(",", " ").split())
    for proxy in proxies:
        try:
            ipaddress.ip_network(proxy)
        except ValueError as error:
            raise click.UsageError(
                f"--trusted-proxy contains {shortened(proxy)!r} ({error}); expected addresses or"
                " networks such as 10.0.0.7 or 10.0.0.0/8"
            ) from None
    return proxies
