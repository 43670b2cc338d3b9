"""The commands snapshot, restore, compact, model and diff of `lookalike index`."""

from __future__ import annotations

from contextlib import AbstractContextManager, closing
from dataclasses import asdict
from pathlib import Path

import click

from embed.encoder import PictureEncoder
from embed.folders.options import FolderOptions
from index.contract import JobControl, SnapshotError, Snapshots, Store
from index.ranking.compare import Difference
from search_api.cli.instance import quota_options
from search_api.cli.options import (
    FOLDER,
    Bars,
    bundle_option,
    counted,
    data_options,
    json_option,
    print_json,
    say,
    store_options,
    together,
)
from search_api.service.engine import open_engine
from search_api.service.model_migration import compare_models
from search_api.service.storage.quotas import StorageQuotas
from search_api.service.storage.trash import remove_snapshot, sweep
from search_api.settings import Quotas, StoreLocation
from search_api.stores.model_store import keep_model, open_model, share_model
from search_api.stores.opening import open_existing_store

kind_option = click.option(
    "--kind",
    help="Kind of index for this and all further builds: auto, exact, ivf, hnsw, rabitq, or a FAISS"
    " factory string.",
)


def existing_store(location: StoreLocation) -> AbstractContextManager[Store[PictureEncoder]]:
    """Open an existing store; it is closed when the block ends."""
    return closing(open_existing_store(location))


_allow_missing = click.option(
    "--allow-missing", is_flag=True, help="Even if bytes of added pictures are missing."
)


@click.command()
@click.argument("name", required=False)
@click.option("--list", "list_", is_flag=True, help="List the snapshots instead.")
@click.option("--delete", is_flag=True, help="Delete the snapshot NAME instead.")
@_allow_missing
@together(store_options, quota_options, json_option)
def snapshot(
    name: str | None,
    list_: bool,
    delete: bool,
    allow_missing: bool,
    location: StoreLocation,
    quotas: Quotas,
    as_json: bool,
) -> None:
    """Take a snapshot of the store, under NAME if given.

    Servers keep running. It is checked before this command ends, so it can be restored.

    \b
    Examples:
      lookalike index snapshot before-the-sale
      lookalike index snapshot --list
    """
    with existing_store(location) as store:
        if list_:
            _list(store.snapshots, as_json)
        elif delete:
            if name is None:
                raise click.UsageError("--delete needs the NAME of the snapshot")
            remove_snapshot(store, name)
            sweep(store)
            say(f"Deleted the snapshot {name}.")
        else:
            made = StorageQuotas(store, location.var, quotas).create_snapshot(
                name, allow_missing=allow_missing
            )
            if as_json:
                print_json(asdict(made))
            else:
                say(f"Snapshot {made.name}: {counted(made.count)}, {counted(made.size, 'byte')}.")


@click.command()
@click.argument("name")
@_allow_missing
@together(store_options, quota_options, json_option)
def restore(
    name: str, allow_missing: bool, location: StoreLocation, quotas: Quotas, as_json: bool
) -> None:
    """Restore the store's contents from the snapshot NAME.

    This is a single write, visible to the next search of every server. A snapshot of another model
    is refused.

    \b
    Example:
      lookalike index restore before-the-sale
    """
    with existing_store(location) as store:
        StorageQuotas(store, location.var, quotas).check_room()
        made, changed, deleted = store.snapshots.restore(name, allow_missing=allow_missing)
    if as_json:
        print_json({"snapshot": made.name, "changed": changed, "deleted": deleted})
    else:
        say(f"Restored the snapshot {made.name}: {counted(changed)} restored, {deleted:,} deleted.")


@click.command()
@together(data_options, store_options, bundle_option, kind_option, quota_options, json_option)
def compact(
    data: Path | None,
    folder_options: FolderOptions,
    location: StoreLocation,
    bundle: Path | None,
    kind: str | None,
    quotas: Quotas,
    as_json: bool,
) -> None:
    """Build a new generation from the catalogue, without the corpus.

    It includes all changes since the last one. Also deletes for good what has expired in the trash,
    and the files that neither the store, its trash nor a snapshot needs.

    \b
    Example:
      lookalike index compact --kind auto
    """
    with open_engine(
        data, location, bundle, quotas=quotas, say=say, folder_options=folder_options
    ) as engine:
        engine.load()
        with Bars() as bars:
            manifest = engine.builder.compact(engine.encoder, JobControl(bars), kind=kind)
    if as_json:
        print_json({"generation": manifest.generation, "count": manifest.count})
    else:
        say(f"Index: generation {manifest.generation} with {counted(manifest.count)}.")


@click.command()
@click.argument("new", metavar="BUNDLE", type=FOLDER)
@click.option(
    "--switch", "commit", is_flag=True, help="Switch to the new model when embedding completes."
)
@together(data_options, store_options, bundle_option, quota_options, json_option)
def model(
    new: Path,
    commit: bool,
    data: Path | None,
    folder_options: FolderOptions,
    location: StoreLocation,
    bundle: Path | None,
    quotas: Quotas,
    as_json: bool,
) -> None:
    """Embed all pictures with another model, in the folder BUNDLE.

    The current model stays in use meanwhile. An interrupted run continues where it stopped. At the
    end it prints the report of `lookalike index diff`. With --switch, all servers on the store then
    switch to the new model.

    \b
    Example:
      lookalike index model runs/new/bundle
    """
    encoder = open_model(new, location.var)
    with open_engine(
        data, location, bundle, quotas=quotas, say=say, folder_options=folder_options
    ) as engine:
        engine.check_corpus()
        engine.load()
        keep_model(location.var, new, encoder.digest)
        share_model(location, encoder.digest)
        with Bars() as bars:
            counts = engine.builder.embed(encoder, JobControl(bars))
        for source, why in counts.skipped.items():
            say(f"{source}: {why}")
        report = compare_models(engine, encoder.digest)
        if commit:
            manifest, _ = engine.builder.switch(encoder)
            say(
                f"Switched to the model {manifest.model_digest}: generation {manifest.generation}"
                f" with {counted(manifest.count)}."
            )
    _report(encoder.digest, report, as_json)


@click.command()
@click.option("--model", "digest", help="Digest of the new model. Default: the only one embedded.")
@click.option(
    "--queries",
    type=click.IntRange(1),
    default=500,
    show_default=True,
    help="How many pictures to compare.",
)
@click.option(
    "--k",
    type=click.IntRange(1, 1000),
    default=10,
    show_default=True,
    help="How many neighbours to compare for each.",
)
@together(data_options, store_options, bundle_option, json_option)
def diff(
    digest: str | None,
    queries: int,
    k: int,
    data: Path | None,
    folder_options: FolderOptions,
    location: StoreLocation,
    bundle: Path | None,
    as_json: bool,
) -> None:
    """Show how much the neighbours would change with a new model.

    Compares the model in use with one that `lookalike index model` has embedded.

    \b
    Example:
      lookalike index diff --queries 1000
    """
    with open_engine(data, location, bundle, say=say, folder_options=folder_options) as engine:
        staged = engine.catalogue.staging.counts()
        if digest is None and len(staged) != 1:
            raise click.UsageError(
                "no other model is embedded; run `lookalike index model BUNDLE` first"
                if not staged
                else f"{len(staged)} other models are embedded; choose one with --model:"
                f" {', '.join(sorted(staged))}"
            )
        digest = digest or next(iter(staged))
        report = compare_models(engine, digest, queries, k)
    _report(digest, report, as_json)


def _report(digest: str, found: Difference, as_json: bool) -> None:
    if as_json:
        print_json({"model": digest, **asdict(found)})
        return
    rows = {
        "new model": digest,
        "queries": f"{found.queries:,}",
        "k": str(found.k),
        "neighbours kept": f"{found.overlap:.1%}",
        "queries unchanged": f"{found.unchanged:.1%}",
        "nearest neighbour kept": f"{found.first_kept:.1%}",
    }
    if found.label_before is not None and found.label_after is not None:
        rows["same-label neighbours"] = f"{found.label_before:.1%} -> {found.label_after:.1%}"
    rows["most changed ids"] = ", ".join(map(str, found.worst))
    for name, value in rows.items():
        click.echo(f"{name:<24}{value}")


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
