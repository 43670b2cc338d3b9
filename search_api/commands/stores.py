"""`lookalike index snapshot|restore|compact|model|diff`: operations on a whole store."""

from __future__ import annotations

from contextlib import AbstractContextManager, closing
from dataclasses import asdict
from pathlib import Path

import click

from embed.encoder import PictureEncoder
from index.difference import Difference
from index.manifest import SnapshotError
from index.stores import Snapshots, Store
from search_api import changeover
from search_api.commands.open import open_engine, open_model
from search_api.commands.options import (
    FOLDER,
    Bars,
    bundle_option,
    data_option,
    json_option,
    place,
    print_json,
    say,
    together,
    var_option,
)
from search_api.places import share_model, store_in
from search_api.shelf import shelve

kind_option = click.option(
    "--kind",
    help="Kind of index from now on: auto, exact, ivf, hnsw, rabitq, or a FAISS factory string.",
)


def existing_store(var: Path) -> AbstractContextManager[Store[PictureEncoder]]:
    """A store that exists, closed at the end."""
    return closing(store_in(place(), var))


@click.command()
@click.argument("name", required=False)
@click.option("--list", "list_", is_flag=True, help="List the snapshots instead.")
@click.option("--delete", is_flag=True, help="Delete the snapshot NAME instead.")
@together(var_option, json_option)
def snapshot(name: str | None, list_: bool, delete: bool, var: Path, as_json: bool) -> None:
    """Keep what is indexed now under a NAME, to go back to; servers go on meanwhile.

    \b
    Examples:
      lookalike index snapshot before-the-sale
      lookalike index snapshot --list
    """
    with existing_store(var) as store:
        if list_:
            _list(store.snapshots, as_json)
        elif delete:
            if name is None:
                raise click.UsageError("--delete needs the NAME of a snapshot")
            store.snapshots.remove(name)
            say(f"Snapshot {name} is deleted.")
        else:
            made = store.snapshots.create(name)
            if as_json:
                print_json(asdict(made))
            else:
                say(f"Snapshot {made.name}: {made.count:,} pictures, {made.size:,} bytes.")


@click.command()
@click.argument("name")
@together(var_option, json_option)
def restore(name: str, var: Path, as_json: bool) -> None:
    """Put what the snapshot NAME holds in the place of what is indexed.

    One write, seen by the next search of every server; refused if the snapshot is of another model.

    \b
    Example:
      lookalike index restore before-the-sale
    """
    with existing_store(var) as store:
        made, changed, deleted = store.snapshots.restore(name)
    if as_json:
        print_json({"snapshot": made.name, "changed": changed, "deleted": deleted})
    else:
        say(f"Back at {made.name}: {changed:,} pictures put back, {deleted:,} taken out.")


@click.command()
@together(data_option, var_option, bundle_option, kind_option, json_option)
def compact(
    data: Path | None, var: Path, bundle: Path | None, kind: str | None, as_json: bool
) -> None:
    """Fold what was added and deleted into a new generation, without looking at the corpus.

    Also removes the files of deleted pictures that no snapshot needs.

    \b
    Example:
      lookalike index compact --kind auto
    """
    with open_engine(data, var, bundle) as engine:
        engine.load()
        if kind is not None:
            engine.builder.set_kind(kind)
        with Bars() as bars:
            manifest = engine.compact(bars)
    if as_json:
        print_json({"generation": manifest.generation, "count": manifest.count})
    else:
        say(f"Index: generation {manifest.generation} with {manifest.count:,} pictures.")


@click.command()
@click.argument("new", metavar="BUNDLE", type=FOLDER)
@click.option("--switch", "commit", is_flag=True, help="Go over to it once all is embedded.")
@together(data_option, var_option, bundle_option, json_option)
def model(
    new: Path, commit: bool, data: Path | None, var: Path, bundle: Path | None, as_json: bool
) -> None:
    """Embed everything with the model in the folder BUNDLE, beside the one that serves.

    Interrupted, it goes on where it stopped. Without --switch it ends with the report of
    `lookalike index diff`, and the present model serves on; with it every server on the store
    goes over to the new model as soon as all is embedded.

    \b
    Example:
      lookalike index model runs/new/bundle
    """
    encoder = open_model(new)
    with open_engine(data, var, bundle) as engine:
        engine.check_corpus()
        engine.load()
        shelve(var, new, encoder.digest)
        share_model(place(), var, encoder.digest)
        with Bars() as bars:
            counts = changeover.embed(engine, encoder.digest, bars)
        for source, why in counts.skipped.items():
            say(f"{source}: {why}")
        report = changeover.compare(engine, encoder.digest)
        if commit:
            manifest, _ = changeover.switch(engine, encoder.digest)
            say(f"Generation {manifest.generation} serves with {manifest.model_digest}.")
    _report(encoder.digest, report, as_json)


@click.command()
@click.option("--model", "digest", help="Digest of the new model. Default: the one embedded last.")
@click.option("--queries", type=click.IntRange(1), default=500, show_default=True)
@click.option("--k", type=click.IntRange(1, 1000), default=10, show_default=True)
@together(data_option, var_option, bundle_option, json_option)
def diff(
    digest: str | None,
    queries: int,
    k: int,
    data: Path | None,
    var: Path,
    bundle: Path | None,
    as_json: bool,
) -> None:
    """Show how much the neighbours would change with the model that was embedded beside.

    \b
    Example:
      lookalike index diff --queries 1000
    """
    with open_engine(data, var, bundle) as engine:
        staged = engine.catalogue.staging.counts()
        if digest is None and len(staged) != 1:
            raise click.UsageError(
                f"{len(staged)} models are embedded beside the present one; "
                "run `lookalike index model BUNDLE` first, or name one with --model"
            )
        digest = digest or next(iter(staged))
        report = changeover.compare(engine, digest, queries, k)
    _report(digest, report, as_json)


def _report(digest: str, found: Difference, as_json: bool) -> None:
    if as_json:
        print_json({"model": digest, **asdict(found)})
        return
    click.echo(f"new model              {digest}")
    click.echo(f"queries, k             {found.queries:,}, {found.k}")
    click.echo(f"neighbours kept        {found.overlap:.1%}")
    click.echo(f"queries unchanged      {found.unchanged:.1%}")
    click.echo(f"nearest one kept       {found.first_kept:.1%}")
    if found.label_before is not None and found.label_after is not None:
        click.echo(f"neighbours of same label  {found.label_before:.1%} -> {found.label_after:.1%}")
    click.echo(f"changed most           {', '.join(map(str, found.worst))}")


def _list(snapshots: Snapshots, as_json: bool) -> None:
    rows = []
    for name in snapshots.names():
        try:
            rows.append(asdict(snapshots.read(name)))
        except SnapshotError as error:
            rows.append({"name": name, "problem": str(error)})
    if as_json:
        print_json(rows)
        return
    for row in rows:
        if "problem" in row:
            click.echo(f"{row['name']:<28} {row['problem']}")
        else:
            click.echo(f"{row['name']:<28} {row['created']}  {row['count']:>9,} pictures")
