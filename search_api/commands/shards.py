"""`lookalike index embed` and `lookalike index import`: a corpus too large for one machine."""

from __future__ import annotations

from pathlib import Path

import click

from embed.bundle import PRETRAINED
from embed.corpus import find_corpus
from search_api.commands.open import open_engine, open_model
from search_api.commands.options import (
    FOLDER,
    Bars,
    bundle_option,
    data_option,
    json_option,
    print_json,
    say,
    together,
    var_option,
)
from search_api.shards import Shard, embed_shard, import_shards, shard_folders


@click.command()
@click.option("--shard", "text", required=True, help="Which part of the corpus, as 3/8.")
@click.option("--out", type=FOLDER, required=True, help="Folder of all shards.")
@together(data_option, bundle_option, json_option)
def embed(text: str, out: Path, data: Path | None, bundle: Path | None, as_json: bool) -> None:
    """Embed one part of the corpus into files, without a store; any machine may do any part.

    Interrupted, it goes on where it stopped.

    \b
    Example:
      lookalike index embed --shard 3/8 --out /shared/shards --data /shared/pictures
    """
    shard = Shard.parse(text)
    encoder = open_model(bundle or PRETRAINED)
    with Bars() as bars:
        skipped = embed_shard(encoder, find_corpus(data, say), shard, out, bars)
    for source, why in skipped.items():
        say(f"{source}: {why}")
    if as_json:
        print_json({"folder": str(shard.folder(out)), "skipped": skipped})
    else:
        say(f"{shard.folder(out)} is complete.")


@click.command("import")
@click.argument("folder", type=FOLDER)
@together(data_option, var_option, bundle_option, json_option)
def import_(folder: Path, data: Path | None, var: Path, bundle: Path | None, as_json: bool) -> None:
    """Record what all shards in FOLDER hold, and build the index.

    All shards must be there, whole, and of this model and corpus. Importing again is harmless.

    \b
    Example:
      lookalike index import /shared/shards --data /shared/pictures
    """
    folders = shard_folders(folder)
    with open_engine(data, var, bundle) as engine, Bars("part") as bars:
        engine.check_corpus()
        imported = import_shards(
            engine.catalogue, folders, engine.encoder.digest, engine.corpus.name, bars
        )
        engine.catalogue.set_meta("corpus", engine.corpus.name)
        manifest = engine.compact()
    if as_json:
        print_json({"imported": imported, "generation": manifest.generation})
    else:
        say(f"{imported:,} pictures imported; generation {manifest.generation} serves.")
