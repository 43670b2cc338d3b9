"""The options that all commands on a store take, so that each can be changed to another by name."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from embed.folders.options import FolderOptions
from search_api.cli.instance import quota_options
from search_api.cli.options import bundle_option, data_options, say, store_options, together
from search_api.settings import Quotas, StoreLocation

if TYPE_CHECKING:
    # With --server neither torch nor FAISS is needed, so they are imported only for local work.
    from embed.encoder import PictureEncoder
    from index.contract import Store
    from search_api.service.engine import SearchEngine


@dataclass(frozen=True)
class OnStore:
    """What a command on a store was told of it; the store itself knows the rest.

    Attributes:
        location: where the store is.
        data: its corpus, if that was named.
        folder_options: how its folder is read.
        bundle: its model, if that was named.
        quotas: how much it keeps.
    """

    location: StoreLocation
    data: Path | None = None
    folder_options: FolderOptions = FolderOptions()
    bundle: Path | None = None
    quotas: Quotas = Quotas()

    def engine(self, **options: Any) -> AbstractContextManager[SearchEngine]:
        """An engine over the store; ``options`` as in `search_api.service.engine.open_engine`."""
        from search_api.service.engine import open_engine

        return open_engine(
            self.data,
            self.location,
            self.bundle,
            quotas=self.quotas,
            say=say,
            folder_options=self.folder_options,
            **options,
        )

    @contextmanager
    def opened(self) -> Iterator[Store[PictureEncoder]]:
        """The store alone, which must exist; no model is loaded and no picture read."""
        from contextlib import closing

        from search_api.stores.opening import open_existing_store

        self.check()
        with closing(open_existing_store(self.location)) as store:
            yield store

    def check(self) -> None:
        """Refuse a corpus that is not the store's, if one was named for this command."""
        if self.data is None or not _is_on_command_line("data"):
            return
        from search_api.service.engine import find_store_corpus

        find_store_corpus(self.data, self.location, say, folder_options=self.folder_options)


Command = Callable[..., None]
FOLDER_NAMES = tuple(one.name for one in fields(FolderOptions) if one.name != "given")


def on_store(*shown: str) -> Callable[[Command], Command]:
    """Give a command the options that all commands on a store take, and pass them as ``store``.

    Args:
        shown: those of ``data``, ``bundle`` and `FOLDER_NAMES` that its --help shows; the others
            would hide what the command itself takes, and `lookalike up --help` shows them.
    """

    def decorate(command: Command) -> Command:
        @together(data_options, store_options, bundle_option, quota_options)
        @functools.wraps(command)
        def with_store(
            data: Path | None,
            folder_options: FolderOptions,
            location: StoreLocation,
            bundle: Path | None,
            quotas: Quotas,
            **values: Any,
        ) -> None:
            command(store=OnStore(location, data, folder_options, bundle, quotas), **values)

        rare = {"data", "bundle", *FOLDER_NAMES} - set(shown)
        made: Command = with_store
        for option in made.__click_params__:  # type: ignore[attr-defined]
            option.hidden = option.hidden or option.name in rare
        return made

    return decorate


def _is_on_command_line(name: str) -> bool:
    context = click.get_current_context()
    return context.get_parameter_source(name) is ParameterSource.COMMANDLINE
