"""Opening what the commands work with: corpus, model, store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from embed.bundle import MANIFEST, PRETRAINED, Bundle
from embed.corpus import ArrayCorpus, Corpus, find_corpus
from embed.encoder import Encoder
from embed.pictures import PictureLimits
from embed.runtime import available_cores
from search_api.commands.options import Bars, place, say
from search_api.engine import SearchEngine
from search_api.ingest import Counts
from search_api.local_store import Cached, catalogue_path
from search_api.places import fetched_model, opener, store_in
from search_api.settings import Place


def find_bundle(bundle: Path | None, var: Path, where: Place | None = None) -> Path:
    """The folder of the model: the one asked for, the store's, the shipped, or one trained here.

    ``where`` is what keeps the store; None for what the command that runs was told.
    """
    if bundle is not None:
        return bundle
    where = where or place()
    if where.milvus is not None or ((var / "models").is_dir() and catalogue_path(var).is_file()):
        with closing(store_in(where, var)) as store:
            kept = fetched_model(where, var, store.catalogue.model() or "")
        if kept is not None:
            return kept
    trained = var / "bundle"
    return trained if not has_bundle(PRETRAINED) and has_bundle(trained) else PRETRAINED


def has_bundle(folder: Path) -> bool:
    """Whether a trained model lies there."""
    return (folder / MANIFEST).is_file()


def open_model(folder: Path) -> Encoder:
    """The encoder of a trained model, on all cores that this process may use.

    What its runtime exports is kept beside the model.
    """
    return Encoder(Bundle.load(folder), threads=available_cores(), cache=folder)


@contextmanager
def open_engine(
    data: Path | None,
    var: Path,
    bundle: Path | None,
    limits: PictureLimits = PictureLimits(),
    cached: Cached = Cached(),
    where: Place | None = None,
) -> Iterator[SearchEngine]:
    """The engine over a store that is not built yet, or not loaded yet; see `find_bundle`."""
    encoder = open_model(find_bundle(bundle, var, where))
    corpus = find_corpus(data, say, limits)
    with engine_over(corpus, var, encoder, limits, cached, where) as engine:
        yield engine


@contextmanager
def engine_over(
    corpus: Corpus,
    var: Path,
    encoder: Encoder,
    limits: PictureLimits = PictureLimits(),
    cached: Cached = Cached(),
    where: Place | None = None,
) -> Iterator[SearchEngine]:
    """The engine over parts that are there already; closed at the end."""
    if isinstance(corpus, ArrayCorpus):
        corpus.keep_in(var / "corpus" / "-".join(corpus.name.lower().split()))
    where = where or place()
    engine = SearchEngine(
        encoder,
        corpus,
        var,
        limits,
        open_model,
        opener(where, var, cached),
        lambda digest: fetched_model(where, var, digest),
    )
    try:
        yield engine
    finally:
        engine.close()


def build(engine: SearchEngine, reembed: bool = False) -> Counts:
    """Rebuild with progress, and say what was done."""
    with Bars() as bars:
        manifest, counts = engine.rebuild(bars, reembed=reembed)
    say(
        f"Index: generation {manifest.generation} with {manifest.count:,} pictures"
        f" ({counts.embedded:,} embedded now, {counts.kept:,} known, {counts.removed:,} removed)."
    )
    if counts.skipped:
        say(
            f"{len(counts.skipped):,} pictures could not be read;"
            f" {engine.var / 'skipped.json'} says why."
        )
    return counts
