"""Options that several commands share, and how they speak to people."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from tqdm import tqdm

from search_api.settings import ENGINES, Milvus, Place, Settings

Command = TypeVar("Command", bound=Callable[..., Any])
FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(path_type=Path)

_DEFAULTS = Settings()

data_option = click.option(
    "--data",
    type=click.Path(exists=True, path_type=Path),
    envvar="LOOKALIKE_DATA",
    show_envvar=True,
    help="Folder with CIFAR-10 or with pictures of your own, one sub-folder a class; or a CSV table"
    " of pictures with the columns file, label and, if wanted, split."
    " Default: look for CIFAR-10 in ../shared and ./data, else download it.",
)


def _note(context: click.Context, option: click.Parameter, value: Any) -> None:
    """Keep an option for `place`, so that commands need not hand it through."""
    context.meta[f"{__name__}.{option.name}"] = value


def _place_option(*words: str, **settings: Any) -> Callable[[Command], Command]:
    return click.option(*words, expose_value=False, callback=_note, show_envvar=True, **settings)


_store_options = (
    click.option(
        "--var",
        type=FOLDER,
        envvar="LOOKALIKE_VAR",
        show_envvar=True,
        default=_DEFAULTS.var,
        show_default=True,
        help="Folder of the catalogue and the index.",
    ),
    _place_option(
        "--index",
        type=click.Choice(ENGINES),
        envvar="LOOKALIKE_INDEX",
        default="faiss",
        show_default=True,
        help="What keeps the index: FAISS in the folder, or Milvus (docs/milvus.md).",
    ),
    _place_option(
        "--milvus-uri",
        envvar="MILVUS_URI",
        help="Address of Milvus, such as http://127.0.0.1:19530, or a file ending in .db.",
    ),
    _place_option(
        "--milvus-token",
        envvar="MILVUS_TOKEN",
        default="",
        help="user:password, or a key, for Milvus.",
    ),
    _place_option(
        "--milvus-prefix",
        envvar="LOOKALIKE_MILVUS_PREFIX",
        default="lookalike",
        show_default=True,
        help="Beginning of the names of the collections; another one is another store.",
    ),
    _place_option(
        "--milvus-flush/--no-milvus-flush",
        envvar="LOOKALIKE_MILVUS_FLUSH",
        default=True,
        show_default=True,
        help="Answer a write once it is in Milvus's storage, not in its log alone.",
    ),
    _place_option(
        "--pictures",
        envvar="LOOKALIKE_PICTURES",
        help="Folder, or address that fsspec knows (s3://…), of added pictures; by default in the"
        " store's folder.",
    ),
)


def var_option(command: Command) -> Command:
    """Where the store is: its folder, and what keeps the index."""
    return together(*_store_options)(command)


def place() -> Place:
    """Where the store of the command that runs is."""
    meta = click.get_current_context().meta

    def value(name: str) -> Any:
        return meta.get(f"{__name__}.{name}")

    if value("index") != "milvus":
        return Place(pictures=value("pictures"))
    if not value("milvus_uri"):
        raise click.UsageError(
            "the index is in Milvus, and its address is not known; set MILVUS_URI or --milvus-uri,"
            " for example http://127.0.0.1:19530"
        )
    return Place(
        Milvus(
            value("milvus_uri"),
            value("milvus_token"),
            value("milvus_prefix"),
            value("milvus_flush"),
        ),
        value("pictures"),
    )


bundle_option = click.option(
    "--bundle",
    type=FOLDER,
    envvar="LOOKALIKE_BUNDLE",
    show_envvar=True,
    help="Folder of the trained model. Default: the one that ships with the program.",
)
host_option = click.option(
    "--host",
    envvar="LOOKALIKE_HOST",
    show_envvar=True,
    default=_DEFAULTS.host,
    show_default=True,
    help="Address to listen on.",
)
port_option = click.option(
    "--port",
    type=click.IntRange(0, 65535),
    envvar="LOOKALIKE_PORT",
    show_envvar=True,
    default=_DEFAULTS.port,
    show_default=True,
    help="TCP port to listen on; 0 takes a free one.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def together(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Apply several options, in the order that --help lists them."""

    def apply(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return apply


def say(message: str) -> None:
    """A line for people, on stderr, so that stdout holds results alone."""
    click.echo(message, err=True)


def print_json(value: Any) -> None:
    """A result for programs, on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


class Bars:
    """Shows each stage of some work as a bar with rate and time left; use as a context."""

    def __init__(self, unit: str = "picture") -> None:
        self._unit = unit
        self._stage = ""
        self._bar: tqdm[Any] | None = None

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` are done in ``stage``."""
        if stage != self._stage:
            self._close()
            self._stage = stage
            if total:
                self._bar = progress_bar(total, stage, self._unit)
        if self._bar is not None:
            self._bar.update(done - self._bar.n)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def progress_bar(
    total: int, title: str, unit: str, leave: bool = True, show: bool = True
) -> tqdm[Any]:
    """A progress bar on stderr; in a log file it writes a line every ten seconds at most."""
    interval = 0.1 if sys.stderr.isatty() else 10.0
    return tqdm(
        total=total,
        desc=title.capitalize(),
        unit=f" {unit}s",
        leave=leave,
        disable=not show,
        mininterval=interval,
        dynamic_ncols=True,
    )
