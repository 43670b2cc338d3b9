"""`lookalike classify`: classes, and finer tags, of files and folders."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from embed.pictures import SUFFIXES
from search_api import tables, xmp
from search_api.commands import remote
from search_api.commands.options import (
    FILE,
    bundle_option,
    place,
    progress_bar,
    say,
    together,
    var_option,
)
from search_api.commands.remote import server_options
from search_api.results import Prediction, Tagged

if TYPE_CHECKING:
    # Torch and FAISS are imported only where the work is done here.
    from embed.encoder import PictureEncoder
    from search_api.tagging import Vote

_MANY = 256
"""Files from which on there is a progress bar."""

Results = Iterator[list[Tagged]]


@click.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=FILE)
@click.option(
    "--out", type=FILE, help="Write a table there instead: .csv, .jsonl or .parquet. Has tags too."
)
@click.option(
    "--xmp", "sidecars", is_flag=True, help="Write cat.jpg.xmp beside each cat.jpg, with keywords."
)
@click.option(
    "--recursive/--no-recursive",
    default=True,
    show_default=True,
    help="Take what lies in folders within a folder, too.",
)
@together(var_option, bundle_option, server_options)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line, for programs.")
@click.pass_context
def classify(
    context: click.Context,
    paths: Sequence[Path],
    out: Path | None,
    sidecars: bool,
    recursive: bool,
    var: Path,
    bundle: Path | None,
    server: str | None,
    api_key: str | None,
    as_json: bool,
) -> None:
    """Classes of pictures: files, or folders with all pictures below them.

    Prints the class, its confidence and the path, separated by tabs. A picture that cannot be
    used gets a line on stderr, and the exit code is 1; the others are classified all the same.
    Hidden files are left out, and links that lead out of a folder.

    With --out or --xmp there are finer tags too: those that at least three of the ten nearest
    pictures in the store (--var, or the server's) have in their payload, each with its share. A
    sidecar file that another program made or changed is never touched.

    \b
    Examples:
      lookalike classify cat.jpg dog.png
      lookalike classify ~/Pictures --out tags.csv --xmp
      lookalike classify ~/Pictures --server http://127.0.0.1:8000
    """
    if out is not None:
        tables.check(out)
    files = list(dict.fromkeys(_files(paths, recursive)))
    if not files:
        raise click.UsageError(
            f"no pictures in {', '.join(map(str, paths))}; expected files ending in"
            f" {', '.join(SUFFIXES)}"
        )
    source: AbstractContextManager[tuple[Results, str]]
    with_tags = out is not None or sidecars
    if server:
        source = _there(files, server, api_key, with_tags)
    else:
        source = _here(files, var, bundle, with_tags)
    failed, classes = 0, Counter[str]()
    with ExitStack() as stack:
        results, model = stack.enter_context(source)
        add = stack.enter_context(tables.table(out) if out else nullcontext(_printer(as_json)))
        bar = progress_bar(len(files), "classifying", "picture", False, len(files) > _MANY)
        stack.enter_context(bar)
        for batch in results:
            done = [_with_sidecar(result, model) for result in batch] if sidecars else batch
            add(done)
            for result in done:
                if result.error is not None:
                    failed += 1
                    say(f"{result.path}: {result.error}")
                if result.prediction is not None:
                    classes[result.prediction.label] += 1
            bar.update(len(batch))
    if out is not None or sidecars:
        found = ", ".join(f"{name} {n:,}" for name, n in classes.most_common(10)) or "none"
        say(f"{classes.total():,} pictures classified ({found}); {failed:,} with an error.")
    if failed:
        context.exit(1)


@contextmanager
def _there(
    files: Sequence[Path], server: str, api_key: str | None, with_tags: bool
) -> Iterator[tuple[Results, str]]:
    with remote.connect(server, api_key) as client:

        def results() -> Results:
            for batch in remote.classify(client, files, with_tags):
                yield [
                    Tagged(file, error=answer.error.detail if answer.error else "no answer")
                    if answer.prediction is None
                    else Tagged(
                        file,
                        Prediction(
                            answer.prediction.label,
                            answer.prediction.confidence,
                            answer.prediction.probabilities,
                        ),
                        tuple(answer.tags.items()),
                    )
                    for file, answer in batch
                ]

        yield results(), client.index_info().model


@contextmanager
def _here(
    files: Sequence[Path], var: Path, bundle: Path | None, with_tags: bool
) -> Iterator[tuple[Results, str]]:
    from search_api.commands.open import find_bundle, open_model
    from search_api.tagging import tag_files

    encoder = open_model(find_bundle(bundle, var))
    with _voters(var, encoder, len(files)) if with_tags else nullcontext() as vote:
        yield tag_files(encoder, files, vote), encoder.digest


@contextmanager
def _voters(var: Path, encoder: PictureEncoder, files: int) -> Iterator[Vote | None]:
    """What votes on the tags of ``files``; None, and a line that says why, where no store can."""
    from index.catalogue import CatalogueError
    from index.snapshots import ModelMismatchError, NoGenerationError, SnapshotError
    from search_api.local_store import catalogue_path
    from search_api.places import opener
    from search_api.tagging import NeighbourTags

    with ExitStack() as stack:
        try:
            where = place()
            if where.milvus is None and not catalogue_path(var).exists():
                raise NoGenerationError(f"there is no store in {var}")
            open_store = opener(where, var)
            store = stack.enter_context(
                closing(open_store(lambda digest: encoder if digest == encoder.digest else None))
            )
            store.served.load(encoder.digest)
        except (NoGenerationError, ModelMismatchError, SnapshotError, CatalogueError) as error:
            say(f"No finer tags: {error}")
            yield None
        else:
            yield NeighbourTags(store.served, store.catalogue, files)


def _with_sidecar(result: Tagged, model: str) -> Tagged:
    if result.prediction is None:
        return result
    try:
        xmp.write(result, model)
    except (xmp.ForeignSidecarError, OSError) as error:
        return replace(result, error=f"no sidecar file: {error}")
    return result


def _files(paths: Sequence[Path], recursive: bool) -> Iterator[Path]:
    for path in paths:
        if not path.exists():
            raise click.UsageError(f"{path} does not exist; expected a picture or a folder")
        if path.is_dir():
            yield from _below(path, recursive)
        else:
            yield path


def _below(root: Path, recursive: bool) -> Iterator[Path]:
    inside = root.resolve()
    for folder, names, files in os.walk(root):
        names[:] = sorted(name for name in names if recursive and not name.startswith("."))
        for name in sorted(files):
            path = Path(folder, name)
            if name.startswith(".") or not name.lower().endswith(SUFFIXES):
                continue
            try:
                if path.is_symlink() and not path.resolve().is_relative_to(inside):
                    continue
            except (OSError, RuntimeError):
                continue  # a loop of links
            yield path


def _printer(as_json: bool) -> Callable[[Sequence[Tagged]], None]:
    def show(results: Sequence[Tagged]) -> None:
        for result in results:
            if as_json:
                click.echo(json.dumps(_value(result), ensure_ascii=False))
            elif result.prediction is not None:
                prediction = result.prediction
                click.echo(f"{prediction.label}\t{prediction.confidence:.4f}\t{result.path}")

    return show


def _value(result: Tagged) -> dict[str, object]:
    values = tables.row(result)
    if result.prediction is None:
        return {"path": values["path"], "error": values["error"]}
    shares = result.prediction.probabilities.items()
    return {
        "path": values["path"],
        "class": values["class"],
        "confidence": values["confidence"],
        "probabilities": {name: round(share, 6) for name, share in shares},
    }
