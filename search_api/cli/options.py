"""Options that several commands share, and their console output."""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
from click.core import ParameterSource
from tqdm import tqdm

from embed.folders.kinds import Skipped, count_kinds, in_words
from embed.folders.options import FolderOptions
from index.milvus.settings import MilvusSettings
from search_api import logs
from search_api.file_modes import private_files
from search_api.keys import KeyFormatError, read_secret
from search_api.schemas.search import CLASSES_HELP, Classes
from search_api.settings import ENGINES, Settings, StoreLocation
from search_api.stores.location_file import LocationFileError, read_location
from search_api.text import displayed

_log = logging.getLogger("lookalike")

Command = TypeVar("Command", bound=Callable[..., Any])
FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(path_type=Path)

_DEFAULTS = Settings()


class _DataPath(click.Path):
    """A path that need not exist: the drive of a store's corpus may be unplugged."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        found = Path(os.fsdecode(super().convert(value, param, ctx)))
        with suppress(RuntimeError):  # nobody has that home
            # No shell expands the ~ in --data=~/Pictures, or in a file of variables.
            return found.expanduser()
        return found


_data_option = click.option(
    "--data",
    type=_DataPath(),
    envvar="LOOKALIKE_DATA",
    show_envvar=True,
    help="Folder with CIFAR-10, or with your own pictures in a sub-folder per class, or a CSV table"
    " with the columns file, label and, optionally, split."
    " Default: the store's own or, if there is no store yet, CIFAR-10 from ../shared or ./data,"
    " downloaded if it is in neither.",
)


def together(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Apply several options, listed by --help in this order."""

    def apply(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return apply


def _switch(name: str, help_: str) -> Callable[[Command], Command]:
    """``--name/--no-name``, None where neither is given."""
    return click.option(
        f"--{name}/--no-{name}",
        default=None,
        envvar=f"LOOKALIKE_{name.replace('-', '_').upper()}",
        show_envvar=True,
        help=help_,
    )


_folder_options = (
    click.option(
        "--splits",
        type=click.Choice(("auto", "yes", "no")),
        envvar="LOOKALIKE_SPLITS",
        show_envvar=True,
        help="Whether top-level folders named train, val or test are splits, or classes. Default:"
        " auto, by what they hold.",
    ),
    _switch(
        "follow-links",
        "Follow links to folders, and links that lead out of the folder of pictures, too.",
    ),
    _switch("hidden", "Take hidden files and folders, too."),
    _switch("program-folders", "Take the folders of other programs, such as @eaDir, too."),
    _switch("table-payload", "Keep the further columns of a CSV table as payload."),
    _switch("gps-place", "Keep where photographs were taken, not only whether that is known."),
)


def data_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give ``command`` the options for a corpus: it gets ``data`` and ``folder_options``.

    These know which of them were given.
    """

    @together(_data_option, *_folder_options)
    @functools.wraps(command)
    def with_folder(
        splits: str | None,
        follow_links: bool | None,
        hidden: bool | None,
        program_folders: bool | None,
        table_payload: bool | None,
        gps_place: bool | None,
        **values: Any,
    ) -> None:
        chosen = FolderOptions.chosen(
            splits=splits,
            follow_links=follow_links,
            hidden=hidden,
            program_folders=program_folders,
            table_payload=table_payload,
            gps_place=gps_place,
        )
        command(folder_options=chosen, **values)

    return with_folder


def secret_option(name: str, variable: str, help_: str) -> Callable[[Command], Command]:
    """``--NAME-file`` for a secret, which the command gets as the parameter NAME.

    The variable can hold the secret itself. As an option it is refused: other users of the machine
    can read command lines.
    """
    file_option, parameter = f"--{name}-file", name.replace("-", "_")

    def refuse(_: click.Context, __: click.Parameter, value: str | None) -> None:
        if value is not None:
            raise click.UsageError(
                f"--{name} is no option any more, because other users of this machine can read"
                f" command lines; write the secret to a file that only you can read and pass"
                f" {file_option}, or set {variable}"
            )

    def read(_: click.Context, __: click.Parameter, file: Path | None) -> str | None:
        if file is None:
            return os.environ.get(variable)
        try:
            return read_secret(file)
        except KeyFormatError as error:
            raise click.UsageError(str(error)) from None

    return together(
        click.option(
            file_option,
            parameter,
            type=FILE,
            callback=read,
            envvar=f"{variable}_FILE",
            show_envvar=True,
            help=f"{help_} {variable} can hold it instead.",
        ),
        click.option(
            f"--{name}", f"{parameter}_refused", hidden=True, expose_value=False, callback=refuse
        ),
    )


_store_options = (
    click.option(
        "--var",
        type=FOLDER,
        envvar="LOOKALIKE_VAR",
        show_envvar=True,
        default=_DEFAULTS.store.var,
        show_default=True,
        help="Folder for the catalogue and the index.",
    ),
    click.option(
        "--index",
        "engine",
        type=click.Choice(ENGINES),
        envvar="LOOKALIKE_INDEX",
        show_envvar=True,
        default="faiss",
        show_default=True,
        help="Where to keep the index: FAISS in the folder, or Milvus (see docs/milvus.md). A store"
        " remembers this and the settings below, apart from the token.",
    ),
    click.option(
        "--milvus-uri",
        envvar="MILVUS_URI",
        show_envvar=True,
        help="URL of Milvus, such as http://127.0.0.1:19530, or a milvus-lite file ending in .db.",
    ),
    secret_option(
        "milvus-token", "MILVUS_TOKEN", "File with the token for Milvus: user:password or a key."
    ),
    click.option(
        "--milvus-prefix",
        envvar="LOOKALIKE_MILVUS_PREFIX",
        show_envvar=True,
        default="lookalike",
        show_default=True,
        help="Prefix of the collection names in Milvus; each prefix is a separate store.",
    ),
    click.option(
        "--milvus-flush/--no-milvus-flush",
        envvar="LOOKALIKE_MILVUS_FLUSH",
        show_envvar=True,
        default=True,
        show_default=True,
        help="Acknowledge a write only when Milvus has it in storage, not just in its log.",
    ),
    click.option(
        "--pictures",
        envvar="LOOKALIKE_PICTURES",
        show_envvar=True,
        help="Folder or fsspec URL (such as s3://…) for added pictures. Default: in --var.",
    ),
)


def store_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give ``command`` the options for the store, and pass their values as ``location``.

    What it writes is then for its user alone; see `search_api.file_modes`.
    """

    @together(*_store_options)
    @functools.wraps(command)
    def with_location(
        var: Path,
        engine: str,
        milvus_uri: str | None,
        milvus_token: str | None,
        milvus_prefix: str,
        milvus_flush: bool,
        pictures: str | None,
        **values: Any,
    ) -> None:
        milvus = None
        known = _remembered(var)
        pictures = pictures or known.get("pictures")
        if not _is_given("engine") and "uri" in known:
            engine = "milvus"
        if engine == "milvus":
            milvus_uri = milvus_uri or known.get("uri")
            if not _is_given("milvus_prefix"):
                milvus_prefix = known.get("prefix", milvus_prefix)
            if not _is_given("milvus_flush"):
                milvus_flush = known.get("flush", milvus_flush)
            if not milvus_uri:
                raise click.UsageError(
                    "--index milvus needs the URL of Milvus; set MILVUS_URI or --milvus-uri, for"
                    " example to http://127.0.0.1:19530"
                )
            milvus = MilvusSettings(milvus_uri, milvus_token or "", milvus_prefix, milvus_flush)
        with private_files():
            command(location=StoreLocation(var, milvus, pictures), **values)

    return with_location


def _remembered(var: Path) -> dict[str, Any]:
    try:
        return read_location(var)
    except LocationFileError as error:
        raise click.UsageError(str(error)) from None


def _is_given(name: str) -> bool:
    """Whether a parameter is on the command line or in the environment."""
    source = click.get_current_context().get_parameter_source(name)
    return source is not ParameterSource.DEFAULT


bundle_option = click.option(
    "--bundle",
    type=FOLDER,
    envvar="LOOKALIKE_BUNDLE",
    show_envvar=True,
    help="Folder of the trained model. Default: the store's model, or the one that ships.",
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
    help="TCP port to listen on; 0 chooses a free one.",
)
classes_option = click.option(
    "--classes",
    type=click.Choice(get_args(Classes)),
    default="auto",
    show_default=True,
    help=CLASSES_HELP.replace("`", ""),
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

removal_option = click.option(
    "--allow-removal",
    is_flag=True,
    help="Remove pictures that are gone from the corpus even if they are more than a tenth of it.",
)


def say(message: str) -> None:
    """Print a message for people to stderr, so that stdout has only results; or log it as JSON."""
    if logs.in_json():
        logs.event(_log, " ".join(message.split()))
    else:
        click.echo(displayed(message, lines=True), err=True)


def say_skipped(skipped: Iterable[Skipped], where: str = "") -> None:
    """Say how many files were skipped of each kind, if any, and ``where`` the reasons are."""
    kinds = count_kinds(skipped)
    if kinds:
        say(f"Skipped {skipped_kinds(kinds)}{f'; {where}' if where else '.'}")


def counted(number: int, noun: str = "picture") -> str:
    """A number with its noun: ``1 picture``, ``2,000 pictures``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def skipped_kinds(kinds: Mapping[str, int]) -> str:
    """How many files were skipped, and of which kinds: ``9 files: .mov 5, .heic 2, links 2``."""
    return f"{counted(sum(kinds.values()), 'file')}: {in_words(kinds)}"


def print_json(value: Any) -> None:
    """Print a result for programs to stdout."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    # A lone surrogate becomes an escape of JSON.
    click.echo(text.encode("utf-8", "backslashreplace").decode())


class Bars:
    """Shows each stage of a job as a progress bar; the ``progress`` of a `JobControl`."""

    def __init__(self, unit: str = "picture") -> None:
        self._unit = unit
        self._stage = ""
        self._bar: tqdm[Any] | None = None

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` units of ``stage`` are finished."""
        if stage != self._stage:
            self._close()
            self._stage = stage
            if total:
                self._bar = progress_bar(total, stage, self._unit)
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
            if done >= total:
                self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def progress_bar(
    total: int, title: str, unit: str, leave: bool = True, show: bool = True
) -> tqdm[Any]:
    """A progress bar on stderr; redirected to a file, it writes at most every ten seconds."""
    interval = 0.1 if sys.stderr.isatty() else 10.0
    return tqdm(
        total=total,
        desc=title.capitalize(),
        unit=f" {unit}{'es' if unit.endswith('ch') else 's'}",
        leave=leave,
        disable=not show or logs.in_json(),
        mininterval=interval,
        dynamic_ncols=True,
    )
