"""`lookalike add` and `lookalike delete`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from embed.corpus import FolderCorpus
from embed.pictures import PictureError, read_file
from index.filters import parse_filter
from search_api.commands.open import open_engine
from search_api.commands.options import (
    bundle_option,
    data_option,
    json_option,
    print_json,
    progress_bar,
    say,
    together,
    var_option,
)
from search_api.commands.stores import existing_store
from search_api.writer import Upload

_BATCH = 250


@click.command()
@click.argument(
    "paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option("--label", help="Label of all of them. Default: the sub-folder's name.")
@click.option(
    "--prefix",
    default="",
    help="Put before each file's path below its folder to make its key, so that two folders do"
    " not replace each other's pictures.",
)
@together(data_option, var_option, bundle_option, json_option)
@click.pass_context
def add(
    context: click.Context,
    paths: Sequence[Path],
    label: str | None,
    prefix: str,
    data: Path | None,
    var: Path,
    bundle: Path | None,
    as_json: bool,
) -> None:
    """Add pictures to the store: files, or folders with all pictures below them.

    The store keeps its own copy. Adding the same path again replaces the picture. A server that
    runs on the store finds each picture at once. A picture that cannot be used gets a line on
    stderr, and the exit code is 1; the others are added all the same.

    \b
    Example:
      lookalike add ~/new-arrivals --label shoes
    """
    files = [file for path in paths for file in _files(path)]
    failed: dict[str, str] = {}
    ids: dict[str, int] = {}
    with open_engine(data, var, bundle) as engine:
        engine.check_corpus()
        engine.load()
        with progress_bar(len(files), "adding", "picture", show=len(files) > _BATCH) as bar:
            for start in range(0, len(files), _BATCH):
                uploads: list[Upload] = []
                for path, key, found in files[start : start + _BATCH]:
                    try:
                        content = read_file(path)
                    except (PictureError, OSError) as error:
                        failed[str(path)] = str(error)
                        continue
                    uploads.append(Upload(content, prefix + key, label or found))
                for upload, result in zip(uploads, engine.writer.add(uploads), strict=True):
                    if isinstance(result, int):
                        ids[upload.key or ""] = result
                    else:
                        failed[upload.key or ""] = str(result)
                bar.update(len(files[start : start + _BATCH]))
    for name, why in failed.items():
        say(f"{name}: {why}")
    if as_json:
        print_json({"added": ids, "failed": failed})
    else:
        say(f"{len(ids):,} pictures are in the store.")
    if failed:
        context.exit(1)


@click.command()
@click.argument("ids", metavar="[ID]...", nargs=-1, type=click.IntRange(0))
@click.option("--key", "keys", multiple=True, help="The key that a picture was added under.")
@click.option("--filter", "text", help='All that match, as JSON: {"must": [...]}.')
@together(var_option, json_option)
def delete(
    ids: Sequence[int], keys: Sequence[str], text: str | None, var: Path, as_json: bool
) -> None:
    """Delete pictures from the store by id, by key or by a filter.

    They are gone from the next search of every server that runs on the store. A picture of the
    corpus is not brought back by `lookalike index build`; its file is left alone.

    \b
    Examples:
      lookalike delete 123 124
      lookalike delete --filter '{"must": [{"key": "label", "match": {"value": "cat"}}]}'
    """
    if not (ids or keys or text):
        raise click.UsageError("nothing to delete: give ids, --key or --filter")
    where = None
    if text:
        try:
            where = parse_filter(json.loads(text))
        except json.JSONDecodeError as error:
            raise click.UsageError(f"--filter is not JSON: {error}") from None
        if not (where.must or where.should or where.must_not):
            raise click.UsageError("--filter is empty and would delete everything")
    with existing_store(var) as store:
        catalogue = store.catalogue
        sources = catalogue.all_sources("added") if keys else {}
        unknown = [key for key in keys if f"key:{key}" not in sources]
        if unknown:
            raise click.UsageError(f"no picture was added under the key {unknown[0]!r}")
        named = [*ids, *(sources[f"key:{key}"] for key in keys)]
        deleted = 0
        if named:
            catalogue.get(named)  # names those that are not there, before anything is deleted
            deleted += catalogue.delete(named, remember=True)
        if where is not None:
            deleted += len(catalogue.delete_where(where))
    if as_json:
        print_json({"deleted": deleted})
    else:
        say(f"{deleted:,} pictures deleted.")


def _files(path: Path) -> list[tuple[Path, str, str | None]]:
    """Each picture's path, its key and the label that its folder gives it."""
    if not path.exists():
        raise click.UsageError(f"{path} does not exist; expected a picture or a folder")
    if not path.is_dir():
        return [(path, path.name, None)]
    return [(path / item.source, item.source, item.label) for item in FolderCorpus(path).items]
