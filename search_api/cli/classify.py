"""`lookalike classify`: classes and finer tags of files and folders."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from embed.corpus import CIFAR10_CLASSES
from embed.folders.kinds import Skipped, count_kinds, in_words
from embed.folders.options import FolderOptions
from embed.folders.scan import scan_folder
from embed.pictures import SUFFIXES
from search_api.cli import remote
from search_api.cli.on_store import OnStore, on_store
from search_api.cli.options import (
    FILE,
    classes_option,
    counted,
    progress_bar,
    say,
    say_skipped,
    together,
)
from search_api.cli.remote import server_options
from search_api.offline import sidecars, tables
from search_api.schemas import Classes
from search_api.schemas import Prediction as PredictionResponse
from search_api.service.results import Prediction, Predictions, Tagged
from search_api.settings import StoreLocation
from search_api.text import displayed

if TYPE_CHECKING:
    # With --server neither torch nor FAISS is needed, so they are imported only for local work.
    from embed.encoder import PictureEncoder
    from search_api.service.labelling.tagging import StoreJudge

_MANY = 256
"""With more files than this, there is a progress bar."""

Results = Iterator[list[Tagged]]

_NO_CLASS_IN_SIDECARS = (
    "No class is written into the sidecar files: the model's own classes are those of CIFAR-10, and"
    " the store has no classifier of its own labels."
)


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
@together(
    classes_option, on_store("bundle", "follow_links", "hidden", "program_folders"), server_options
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@click.pass_context
def classify(
    context: click.Context,
    paths: Sequence[Path],
    out: Path | None,
    xmp: bool,
    recursive: bool,
    classes: Classes,
    store: OnStore,
    server: str | None,
    api_key: str | None,
    as_json: bool,
) -> None:
    """Classify files and folders of pictures.

    Prints class, confidence and path, separated by tabs. The classes are those of the store's
    classifier (--var, or the server's), or the model's own where it has none. The class is a dash
    where the picture is unlike everything stored: none of these. A picture that cannot be used is
    reported on stderr and makes the exit code 1; the others are classified all the same. What is
    skipped in a folder, such as hidden files, is counted by kind.

    --out and --xmp add finer tags: those that at least three of the ten nearest pictures in the
    store have in their payload, with their shares. A sidecar file gets no class from a model that
    knows only those of CIFAR-10. One that another program wrote or changed is never overwritten.

    \b
    Examples:
      lookalike classify cat.jpg dog.png
      lookalike classify ~/Pictures --out tags.csv --xmp
      lookalike classify ~/Pictures --server http://127.0.0.1:8000
    """
    if out is not None:
        tables.check(out)
    files, skipped = _files(paths, store.folder_options, recursive)
    say_skipped(skipped, "`lookalike classify --help` names the switches that take some of them.")
    source: AbstractContextManager[tuple[Results, str, Sequence[str]]]
    with_tags = out is not None or xmp
    if server:
        source = _on_server(files, server, api_key, classes, with_tags)
    else:
        source = _locally(files, store, classes, with_tags)
    failed, names = 0, Counter[str]()
    with ExitStack() as stack:
        results, model, own_classes = stack.enter_context(source)
        of_cifar10 = set(own_classes) == set(CIFAR10_CLASSES)
        warned = False
        add = stack.enter_context(tables.table(out) if out else nullcontext(_printer(as_json)))
        bar = progress_bar(len(files), "classifying", "picture", False, len(files) > _MANY)
        stack.enter_context(bar)
        for batch in results:
            done = batch
            if xmp:
                done = [_with_sidecar(result, model, of_cifar10) for result in batch]
                if not warned and any(_is_cifar10(result, of_cifar10) for result in batch):
                    warned = True
                    say(_NO_CLASS_IN_SIDECARS)
            add(done)
            for result in done:
                if result.error is not None:
                    failed += 1
                    say(f"{displayed(str(result.path))}: {result.error}")
                if result.prediction is not None:
                    names[result.prediction.label or "none of these"] += 1
            bar.update(len(batch))
    if out is not None or xmp:
        found = ", ".join(f"{name} {n:,}" for name, n in names.most_common(10)) or "none"
        say(f"Classified {counted(names.total())} ({found}); {failed:,} had an error.")
    if failed:
        context.exit(1)


@contextmanager
def _on_server(
    files: Sequence[Path], server: str, api_key: str | None, classes: Classes, with_tags: bool
) -> Iterator[tuple[Results, str, Sequence[str]]]:
    with remote.connect(server, api_key) as client:

        def results() -> Results:
            for batch in remote.classify(client, files, with_tags, classes):
                yield [
                    Tagged(file, error=answer.error.detail)
                    if answer.error is not None
                    else Tagged(
                        file,
                        _prediction(answer.prediction),
                        tuple(answer.tags.items()),
                        predictions=None
                        if answer.predictions is None
                        else Predictions(
                            _prediction(answer.predictions.store),
                            _prediction(answer.predictions.network),
                        ),
                    )
                    for file, answer in batch
                ]

        info = client.index_info()
        yield results(), info.model, info.classes


def _prediction(answer: PredictionResponse | None) -> Prediction | None:
    return None if answer is None else Prediction(**answer.model_dump())


@contextmanager
def _locally(
    files: Sequence[Path],
    store: OnStore,
    classes: Classes,
    with_tags: bool,
) -> Iterator[tuple[Results, str, Sequence[str]]]:
    from search_api.service.labelling.tagging import tag_files
    from search_api.stores.model_store import find_bundle, open_model
    from search_api.stores.opening import has_store

    if has_store(store.location):
        store.check()
    encoder = open_model(find_bundle(store.bundle, store.location), store.location.var)
    with judging(store.location, encoder, len(files), classes, with_tags) as judge:
        yield tag_files(encoder, files, judge), encoder.digest, encoder.classes


@contextmanager
def judging(
    location: StoreLocation,
    encoder: PictureEncoder,
    files: int,
    classes: Classes = "auto",
    with_tags: bool = False,
) -> Iterator[StoreJudge]:
    """What judges ``files`` pictures: the store's classes and tags, or the network alone.

    A message says so if there are no tags, or if the store cannot be used.

    Raises:
        NoClassesError: there are no such ``classes``.
    """
    from index.contract import CatalogueError, GenerationError, NoGenerationError
    from search_api.service.labelling.classes import ClassStore, NoClassesError
    from search_api.service.labelling.tagging import NeighbourTags, StoreJudge
    from search_api.stores.classifier_store import ClassifierFiles
    from search_api.stores.opening import has_store, open_store

    judge = StoreJudge(encoder, classes)
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
            known = ClassStore(store.catalogue, ClassifierFiles(location))
            known.check(classes, encoder)
            stored = known.of(encoder.digest)
            if with_tags or stored.novelty is not None:
                store.served.load(encoder.digest)
            tags = NeighbourTags(store.served, store.catalogue, files)
            judge = StoreJudge(encoder, classes, stored, tags, with_tags=with_tags)
        except (GenerationError, CatalogueError) as error:
            if classes == "store":
                raise NoClassesError(f"the store's classes cannot be used: {error}") from error
            if with_tags:
                say(f"No finer tags: {error}")
            elif has_store(location):
                say(f"The model's own classes, without the store: {error}")
        yield judge


def _is_cifar10(result: Tagged, of_cifar10: bool) -> bool:
    """Whether the class is one of CIFAR-10's, which says nothing of other pictures."""
    return of_cifar10 and result.prediction is not None and result.prediction.source == "network"


def _with_sidecar(result: Tagged, model: str, of_cifar10: bool) -> Tagged:
    if result.error is not None:
        return result
    try:
        written = replace(result, prediction=None) if _is_cifar10(result, of_cifar10) else result
        sidecars.write(written, model)
    except (sidecars.ForeignSidecarError, OSError) as error:
        return replace(result, error=f"no sidecar file was written: {error}")
    return result


def _files(
    paths: Sequence[Path], options: FolderOptions, recursive: bool
) -> tuple[list[Path], list[Skipped]]:
    """The files to classify, each once, and what the folders hold besides."""
    files: list[Path] = []
    skipped: list[Skipped] = []
    for path in paths:
        if not path.exists():
            raise click.UsageError(f"{path} does not exist; expected a picture or a folder")
        if not path.is_dir():
            files.append(path)
            continue
        found = scan_folder(path.resolve(), options, recursive=recursive)
        files += [path / place for place in found.taken]
        skipped += found.skipped.values()
    if not files:
        instead = in_words(count_kinds(skipped))
        raise click.UsageError(
            f"no pictures in {', '.join(map(str, paths))}; expected files that end in"
            f" {', '.join(SUFFIXES)}" + (f"; skipped {instead}" if instead else "")
        )
    return list(dict.fromkeys(files)), skipped


def _printer(as_json: bool) -> Callable[[Sequence[Tagged]], None]:
    def show(results: Sequence[Tagged]) -> None:
        for result in results:
            if as_json:
                click.echo(json.dumps(_value(result), ensure_ascii=False))
            elif result.prediction is not None:
                prediction = result.prediction
                label = displayed(prediction.label or "-")
                click.echo(f"{label}\t{prediction.confidence:.4f}\t{displayed(str(result.path))}")
            elif result.error is None:
                click.echo(f"-\t-\t{displayed(str(result.path))}")

    return show


def _value(result: Tagged) -> dict[str, object]:
    path = tables.row(result)["path"]
    if result.error is not None and result.prediction is None:
        return {"path": path, "error": tables.row(result)["error"]}
    values: dict[str, object] = {"path": path, **tables.prediction_values(result.prediction)}
    if result.predictions is not None:
        values["predictions"] = {
            name: None if one is None else tables.prediction_values(one)
            for name, one in vars(result.predictions).items()
        }
    return values
