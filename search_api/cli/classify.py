"""`lookalike classify`: classes and finer tags of files and folders."""

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
from search_api.cli import remote
from search_api.cli.options import (
    FILE,
    bundle_option,
    counted,
    progress_bar,
    say,
    store_options,
    together,
)
from search_api.cli.remote import server_options
from search_api.offline import sidecars, tables
from search_api.service.results import Prediction, Tagged
from search_api.settings import StoreLocation

if TYPE_CHECKING:
    # With --server neither torch nor FAISS is needed, so they are imported only for local work.
    from embed.encoder import PictureEncoder
    from search_api.service.tagging import Vote

_MANY = 256
"""With more files than this, there is a progress bar."""

Results = Iterator[list[Tagged]]


@click.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=FILE)
@click.option(
    "--out",
    type=FILE,
    help="Write a table with classes and tags to this file: .csv, .jsonl or .parquet.",
)
@click.option("--xmp", is_flag=True, help="Write cat.jpg.xmp with keywords next to cat.jpg.")
@click.option(
    "--recursive/--no-recursive",
    default=True,
    show_default=True,
    help="Include sub-folders.",
)
@together(store_options, bundle_option, server_options)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@click.pass_context
def classify(
    context: click.Context,
    paths: Sequence[Path],
    out: Path | None,
    xmp: bool,
    recursive: bool,
    location: StoreLocation,
    bundle: Path | None,
    server: str | None,
    api_key: str | None,
    as_json: bool,
) -> None:
    """Classify files and folders of pictures.

    Prints class, confidence and path, separated by tabs. A picture that cannot be used is reported
    on stderr and makes the exit code 1; the others are classified all the same. Hidden files, and
    links that lead out of a folder, are skipped.

    --out and --xmp add finer tags: those that at least three of the ten nearest pictures in the
    store (--var, or the server's) have in their payload, with their shares. A sidecar file that
    another program wrote or changed is never overwritten.

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
            f"no pictures in {', '.join(map(str, paths))}; expected files that end in"
            f" {', '.join(SUFFIXES)}"
        )
    source: AbstractContextManager[tuple[Results, str]]
    with_tags = out is not None or xmp
    if server:
        source = _on_server(files, server, api_key, with_tags)
    else:
        source = _locally(files, location, bundle, with_tags)
    failed, classes = 0, Counter[str]()
    with ExitStack() as stack:
        results, model = stack.enter_context(source)
        add = stack.enter_context(tables.table(out) if out else nullcontext(_printer(as_json)))
        bar = progress_bar(len(files), "classifying", "picture", False, len(files) > _MANY)
        stack.enter_context(bar)
        for batch in results:
            done = [_with_sidecar(result, model) for result in batch] if xmp else batch
            add(done)
            for result in done:
                if result.error is not None:
                    failed += 1
                    say(f"{result.path}: {result.error}")
                if result.prediction is not None:
                    classes[result.prediction.label] += 1
            bar.update(len(batch))
    if out is not None or xmp:
        found = ", ".join(f"{name} {n:,}" for name, n in classes.most_common(10)) or "none"
        say(f"Classified {counted(classes.total())} ({found}); {failed:,} had an error.")
    if failed:
        context.exit(1)


@contextmanager
def _on_server(
    files: Sequence[Path], server: str, api_key: str | None, with_tags: bool
) -> Iterator[tuple[Results, str]]:
    with remote.connect(server, api_key) as client:

        def results() -> Results:
            for batch in remote.classify(client, files, with_tags):
                yield [
                    Tagged(file, error=answer.error.detail if answer.error else "no result")
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
def _locally(
    files: Sequence[Path], location: StoreLocation, bundle: Path | None, with_tags: bool
) -> Iterator[tuple[Results, str]]:
    from search_api.service.tagging import tag_files
    from search_api.stores.model_store import find_bundle, open_model

    encoder = open_model(find_bundle(bundle, location))
    with _voters(location, encoder, len(files)) if with_tags else nullcontext() as vote:
        yield tag_files(encoder, files, vote), encoder.digest


@contextmanager
def _voters(location: StoreLocation, encoder: PictureEncoder, files: int) -> Iterator[Vote | None]:
    """The vote on the tags of ``files`` pictures; None, with a message, if no store can vote."""
    from index.contract import (
        CatalogueError,
        GenerationError,
        NoGenerationError,
    )
    from search_api.service.tagging import NeighbourTags
    from search_api.stores.opening import has_store, open_store

    with ExitStack() as stack:
        try:
            if not has_store(location):
                raise NoGenerationError(f"there is no store in {location.var}")
            store = stack.enter_context(
                closing(
                    open_store(
                        location, lambda digest: encoder if digest == encoder.digest else None
                    )
                )
            )
            store.served.load(encoder.digest)
        except (GenerationError, CatalogueError) as error:
            say(f"No finer tags: {error}")
            yield None
        else:
            yield NeighbourTags(store.served, store.catalogue, files)


def _with_sidecar(result: Tagged, model: str) -> Tagged:
    if result.prediction is None:
        return result
    try:
        sidecars.write(result, model)
    except (sidecars.ForeignSidecarError, OSError) as error:
        return replace(result, error=f"no sidecar file was written: {error}")
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
                continue  # links in a cycle
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
