"""`lookalike index embed` and `lookalike index import`, for a corpus too large for one machine."""

from __future__ import annotations

from pathlib import Path

import click

from embed.bundle import PRETRAINED
from embed.corpus import find_corpus
from embed.folders.options import FolderOptions
from search_api.cli.on_store import FOLDER_NAMES, OnStore, on_store
from search_api.cli.options import (
    FOLDER,
    Bars,
    bundle_option,
    counted,
    data_options,
    json_option,
    print_json,
    say,
    say_skipped,
    together,
)
from search_api.offline.shards import Shard, embed_shard, import_shards, shard_folders
from search_api.stores.model_store import open_model
from search_api.stores.store_corpus import remember
from search_api.text import displayed


@click.command()
@click.option(
    "--shard", "text", required=True, help="Number of the shard and number of shards, such as 3/8."
)
@click.option("--out", type=FOLDER, required=True, help="Folder for all shards.")
@together(data_options, bundle_option, json_option)
def embed(
    text: str,
    out: Path,
    data: Path | None,
    folder_options: FolderOptions,
    bundle: Path | None,
    as_json: bool,
) -> None:
    """Embed one shard of the corpus into files, without a store.

    Any machine can embed any shard. An interrupted run continues where it stopped.

    \b
    Example:
      lookalike index embed --shard 3/8 --out /shared/shards --data /shared/pictures
    """
    shard = Shard.parse(text)
    encoder = open_model(bundle or PRETRAINED)
    corpus = find_corpus(data, say, options=folder_options)
    say_skipped(corpus.scan().skipped.values())
    with Bars() as bars:
        skipped = embed_shard(encoder, corpus, shard, out, bars)
    for source, why in skipped.items():
        say(f"{displayed(source)}: {why}")
    if as_json:
        print_json({"folder": str(shard.folder(out)), "skipped": skipped})
    else:
        say(f"The shard {shard.folder(out)} is complete.")


@click.command("import")
@click.argument("folder", type=FOLDER)
@together(on_store("data", *FOLDER_NAMES, "bundle"), json_option)
def import_(folder: Path, store: OnStore, as_json: bool) -> None:
    """Import all shards in FOLDER into the store, and build the index.

    The shards must be complete, undamaged, and of this model and corpus. Importing them again is
    harmless.

    \b
    Example:
      lookalike index import /shared/shards --data /shared/pictures
    """
    folders = shard_folders(folder)
    with store.engine(building=True) as engine, Bars("part") as bars:
        engine.storage.check_room()
        imported = import_shards(
            engine.catalogue, folders, engine.encoder.digest, engine.corpus.name, bars
        )
        remember(engine.catalogue, engine.corpus, store.location.var)
        manifest = engine.builder.compact(engine.encoder)
    if as_json:
        print_json({"imported": imported, "generation": manifest.generation})
    else:
        say(
            f"Imported {counted(imported)}. Index: generation {manifest.generation} with"
            f" {counted(manifest.count)}."
        )
