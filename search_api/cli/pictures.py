"""`lookalike add`, `lookalike delete` and `lookalike purge`: single pictures of a store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import click

from embed.corpus import FolderCorpus, Item
from embed.encoder import PictureEncoder
from embed.folders.kinds import NOT_UTF8, Skipped
from embed.folders.names import is_utf8
from embed.folders.options import FolderOptions
from embed.pictures import PictureError, read_file
from index.contract import KEEP, Store
from index.filters import parse_filter
from index.payload import spellings
from search_api.cli.on_store import OnStore, on_store
from search_api.cli.options import (
    counted,
    json_option,
    print_json,
    progress_bar,
    say,
    say_skipped,
    together,
)
from search_api.service.ingest import KeyExistsError, Status, Stored, Upload
from search_api.service.storage.identity import Place
from search_api.service.storage.quotas import StorageQuotas
from search_api.service.storage.trash import TrashService
from search_api.text import displayed, parsed_json, printable

_BATCH = 250
_REPLACE = "; pass --replace to replace it"


@click.command()
@click.argument(
    "paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "--label",
    help="Label for all of the pictures. Default: the one that a picture has already or, for a new"
    " one, the name of the sub-folder.",
)
@click.option(
    "--key",
    help="Key of the picture, if PATH is one file. Default: its path within PATH, longer where"
    " another picture has that.",
)
@click.option("--prefix", default="", help="Prefix for the pictures' keys.")
@click.option(
    "--replace",
    is_flag=True,
    help="Replace pictures whose files have changed since they were added.",
)
@together(
    on_store("data", "bundle", "splits", "follow_links", "hidden", "program_folders"), json_option
)
@click.pass_context
def add(
    context: click.Context,
    paths: Sequence[Path],
    label: str | None,
    key: str | None,
    prefix: str,
    replace: bool,
    store: OnStore,
    as_json: bool,
) -> None:
    """Add pictures to the store.

    PATH is a file, or a folder whose pictures are all added. The store keeps its own copies, and
    servers on the store find them at once.

    Nothing is overwritten: files of the same name in different folders are different pictures. One
    that was added before is left as it is, with its label and payload, unless --label gives it
    another. One whose file has changed since is reported, and replaced with --replace.

    A picture that cannot be added is reported on stderr and makes the exit code 1; the others are
    added all the same. What a folder holds besides pictures is skipped, and counted by kind.

    \b
    Examples:
      lookalike add ~/new-arrivals --label shoes
      lookalike add cat.jpg --key shop/cat-1 --replace
    """
    for path in paths:
        if not path.exists():
            raise click.UsageError(f"{path} does not exist; expected a picture or a folder")
    if key is not None and (len(paths) > 1 or paths[0].is_dir()):
        raise click.UsageError("--key is the key of one picture; expected PATH to be one file")
    failed: dict[str, str] = {}
    stored: list[Stored] = []
    with store.engine() as engine:
        files, skipped = _files(paths, getattr(engine.corpus, "options", store.folder_options))
        say_skipped(skipped.values(), "--json lists them with the reasons.")
        engine.load()
        with progress_bar(len(files), "adding", "picture", show=len(files) > _BATCH) as bar:
            for start in range(0, len(files), _BATCH):
                uploads: dict[str, Upload] = {}
                for path, item in files[start : start + _BATCH]:
                    name = printable(str(path))
                    if not is_utf8(item.source):
                        failed[name] = NOT_UTF8.reason
                        continue
                    try:
                        content = read_file(path)
                    except (PictureError, OSError) as error:
                        failed[name] = printable(str(error))
                        continue
                    uploads[name] = Upload(
                        content,
                        None if key is None else prefix + key,
                        KEEP if label is None else label,
                        filename=path.name,
                        place=Place.of(path, item.source, prefix) if key is None else None,
                        default_label=item.label,
                        default_split=item.split,
                    )
                results = engine.ingest.add(list(uploads.values()), replace=replace)
                for name, result in zip(uploads, results, strict=True):
                    if isinstance(result, Stored):
                        stored.append(result)
                    else:
                        in_use = isinstance(result, KeyExistsError)
                        failed[name] = f"{result}{_REPLACE if in_use else ''}"
                bar.update(len(files[start : start + _BATCH]))
    for name, why in failed.items():
        say(f"{displayed(name)}: {why}")
    by_status = {
        status: {one.key or "": int(one) for one in stored if one.status == status}
        for status in get_args(Status)
    }
    if as_json:
        reasons = {place: one.reason for place, one in skipped.items()}
        print_json({**by_status, "failed": failed, "skipped": reasons})
    else:
        others = "".join(
            f", {len(found):,} {status}"
            for status, found in by_status.items()
            if found and status != "added"
        )
        say(f"Added {counted(len(by_status['added']))} to the store{others}.")
    if failed:
        context.exit(1)


@click.command()
@click.argument("ids", metavar="[ID]...", nargs=-1, type=click.IntRange(0))
@click.option("--key", "keys", multiple=True, help="Key of an added picture; can be repeated.")
@click.option("--filter", "text", help='Delete all pictures that match, as JSON: {"must": [...]}.')
@click.option("--undo", is_flag=True, help="Restore what the last delete removed instead.")
@together(on_store(), json_option)
def delete(
    ids: Sequence[int],
    keys: Sequence[str],
    text: str | None,
    undo: bool,
    store: OnStore,
    as_json: bool,
) -> None:
    """Delete pictures from the store.

    Select them by id, by key or by a filter. The next search of every server on the store no longer
    finds them. They stay in the trash for a while, where --undo finds them. The files of a corpus
    are left alone, but `lookalike index build` does not add a deleted picture again.

    \b
    Examples:
      lookalike delete 123 124
      lookalike delete --undo
      lookalike delete --filter '{"must": [{"key": "label", "match": {"value": "cat"}}]}'
    """
    if undo and (ids or keys or text is not None):
        raise click.UsageError(
            "--undo restores the last delete; expected no ids, --key or --filter"
        )
    if undo:
        _undo(store, as_json)
        return
    if not (ids or keys or text is not None):
        raise click.UsageError("nothing to delete; expected ids, --key, --filter or --undo")
    where = None
    if text is not None:
        try:
            found = parsed_json(text)
        except ValueError as error:
            raise click.UsageError(f"--filter is not JSON: {error}") from None
        where = parse_filter(found)
        if where.empty:
            raise click.UsageError(
                "--filter is empty and would delete everything; expected at least one condition"
            )
    with store.opened() as opened:
        catalogue = opened.catalogue
        sources = catalogue.all_sources("added") if keys else {}
        named = list(ids)
        for key in keys:
            found = [sources[one] for one in spellings(f"key:{key}") if one in sources]
            if not found:
                raise click.UsageError(f"there is no added picture with the key {key!r}")
            named += found[:1]
        deleted = 0
        if named:
            catalogue.get(named)  # raises for unknown ids before anything is deleted
            deleted += catalogue.delete(named, tombstone=True)
        if where is not None:
            deleted += len(catalogue.delete_where(where))
        trash = _trash_of(opened, store)
        trash.settle()
        final = trash.expiry(0) is None
    if as_json:
        print_json({"deleted": deleted})
    elif final or not deleted:
        say(f"Deleted {counted(deleted)}.")
    else:
        say(
            f"Deleted {counted(deleted)}; `lookalike delete --undo` brings"
            f" {'it' if deleted == 1 else 'them'} back for {store.quotas.trash_days:g} days."
        )


def _trash_of(opened: Store[PictureEncoder], store: OnStore) -> TrashService:
    """The trash of an open store."""
    return TrashService(opened, StorageQuotas(opened, store.location.var, store.quotas))


def _undo(store: OnStore, as_json: bool) -> None:
    with store.opened() as opened:
        found = _trash_of(opened, store).restore(None)
    if as_json:
        print_json({"restored": found.ids, "conflicts": dict(found.conflicts)})
        return
    say(f"Restored {counted(len(found.ids))}." if found.ids else "The trash is empty.")
    for id_, other in found.conflicts.items():
        say(f"{id_} stays in the trash: its key or source has been added again, as {other}")
    if found.unembedded:
        say(
            f"{counted(found.unembedded)} of an earlier model: searches find them after"
            " `lookalike index compact`"
        )


@click.command()
@click.argument("ids", metavar="[ID]...", nargs=-1, type=click.IntRange(0))
@click.option("--all", "all_", is_flag=True, help="Purge everything in the trash.")
@click.option("--list", "list_", is_flag=True, help="List what is in the trash instead.")
@together(on_store(), json_option)
def purge(
    ids: Sequence[int],
    all_: bool,
    list_: bool,
    store: OnStore,
    as_json: bool,
) -> None:
    """Delete pictures in the trash for good.

    Their records, embeddings and files are removed, and cannot be restored. What a snapshot holds
    stays in it: the snapshots are named, and can be deleted with `lookalike index snapshot
    --delete`. The files of a corpus are left alone.

    \b
    Examples:
      lookalike purge --list
      lookalike purge 123 124
      lookalike purge --all
    """
    if [bool(ids), all_, list_].count(True) != 1:
        raise click.UsageError("expected either ids, --all or --list")
    with store.opened() as opened:
        trash = _trash_of(opened, store)
        if list_:
            _list(trash, as_json)
            return
        report = trash.purge(None if all_ else ids)
    if as_json:
        print_json(asdict(report))
        return
    say(f"Purged {counted(report.purged)} and {counted(report.files, 'file')}.")
    for name, number in report.kept_by.items():
        say(f"The snapshot {name} still holds {counted(number)} of them.")
    if report.pending:
        say("Something is in use and could not be removed yet; a server on the store tries again.")
    if report.indexed:
        say("Index files may hold their embeddings until the next `lookalike index compact`.")


def _list(trash: TrashService, as_json: bool) -> None:
    found = trash.all()
    rows = [
        {
            "id": one.entry.id,
            "source": one.entry.source,
            "label": one.entry.label,
            "deleted": _day(one.deleted),
            "expires": _day(trash.expiry(one.deleted)),
        }
        for one in found
    ]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        click.echo("\t".join(displayed(str(row[name] or "")) for name in row))
    say(f"{counted(len(rows))} in the trash.")


def _day(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="minutes")


def _files(
    paths: Sequence[Path], options: FolderOptions
) -> tuple[list[tuple[Path, Item]], dict[str, Skipped]]:
    """The pictures to add, each once, as items of their folders, and what these hold besides."""
    files: dict[Path, tuple[Path, Item]] = {}
    skipped: dict[str, Skipped] = {}
    for path in paths:
        items = [(path, Item(path.name, None, None))]
        if path.is_dir():
            found = FolderCorpus(path, options=options).scan()
            items = [(path / item.source, item) for item in found.items]
            skipped |= {f"{path}/{place}": why for place, why in found.skipped.items()}
        for file, item in items:
            files.setdefault(file.resolve(), (file, item))
    return list(files.values()), skipped
