"""The commands snapshot, restore, compact, model and diff of `lookalike index`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from index.contract import JobControl, SnapshotError, Snapshots
from index.ranking.compare import Difference
from search_api.cli.on_store import OnStore, on_store
from search_api.cli.options import (
    FOLDER,
    Bars,
    counted,
    json_option,
    print_json,
    say,
    together,
)
from search_api.service.model_migration import compare_models
from search_api.service.storage.quotas import StorageQuotas
from search_api.service.storage.trash import remove_snapshot, sweep
from search_api.stores.model_store import keep_model, open_model, share_model
from search_api.text import displayed

kind_option = click.option(
    "--kind",
    help="Kind of index for this and all further builds: auto, exact, ivf, hnsw, rabitq, or a FAISS"
    " factory string.",
)


_allow_missing = click.option(
    "--allow-missing", is_flag=True, help="Even if bytes of added pictures are missing."
)


@click.command()
@click.argument("name", required=False)
@click.option("--list", "list_", is_flag=True, help="List the snapshots instead.")
@click.option("--delete", is_flag=True, help="Delete the snapshot NAME instead.")
@_allow_missing
@together(on_store(), json_option)
def snapshot(
    name: str | None,
    list_: bool,
    delete: bool,
    allow_missing: bool,
    store: OnStore,
    as_json: bool,
) -> None:
    """Take a snapshot of the store, under NAME if given.

    Servers keep running. It is checked before this command ends, so it can be restored.

    \b
    Examples:
      lookalike index snapshot before-the-sale
      lookalike index snapshot --list
    """
    with store.opened() as opened:
        if list_:
            _list(opened.snapshots, as_json)
        elif delete:
            if name is None:
                raise click.UsageError("--delete needs the NAME of the snapshot")
            remove_snapshot(opened, name)
            sweep(opened)
            say(f"Deleted the snapshot {name}.")
        else:
            storage = StorageQuotas(opened, store.location.var, store.quotas)
            made = storage.create_snapshot(name, allow_missing=allow_missing)
            if as_json:
                print_json(asdict(made))
            else:
                say(f"Snapshot {made.name}: {counted(made.count)}, {counted(made.size, 'byte')}.")


@click.command()
@click.argument("name")
@_allow_missing
@together(on_store(), json_option)
def restore(name: str, allow_missing: bool, store: OnStore, as_json: bool) -> None:
    """Restore the store's contents from the snapshot NAME.

    This is a single write, visible to the next search of every server. A snapshot of another model
    is refused.

    \b
    Example:
      lookalike index restore before-the-sale
    """
    with store.opened() as opened:
        StorageQuotas(opened, store.location.var, store.quotas).check_room()
        made, changed, deleted = opened.snapshots.restore(name, allow_missing=allow_missing)
    if as_json:
        print_json({"snapshot": made.name, "changed": changed, "deleted": deleted})
    else:
        say(f"Restored the snapshot {made.name}: {counted(changed)} restored, {deleted:,} deleted.")


@click.command()
@together(on_store("data", "bundle"), kind_option, json_option)
def compact(
    store: OnStore,
    kind: str | None,
    as_json: bool,
) -> None:
    """Build a new generation from the catalogue, without the corpus.

    It includes all changes since the last one. Also deletes for good what has expired in the trash,
    and the files that neither the store, its trash nor a snapshot needs.

    \b
    Example:
      lookalike index compact --kind auto
    """
    with store.engine() as engine:
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
@together(on_store("data", "bundle"), json_option)
def model(
    new: Path,
    commit: bool,
    store: OnStore,
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
    location = store.location
    encoder = open_model(new, location.var)
    with store.engine() as engine:
        engine.load()
        keep_model(location.var, new, encoder.digest)
        share_model(location, encoder.digest)
        with Bars() as bars:
            counts = engine.builder.embed(encoder, JobControl(bars))
        for source, why in counts.skipped.items():
            say(f"{displayed(source)}: {why}")
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
@together(on_store("data", "bundle"), json_option)
def diff(
    digest: str | None,
    queries: int,
    k: int,
    store: OnStore,
    as_json: bool,
) -> None:
    """Show how much the neighbours would change with a new model.

    Compares the model in use with one that `lookalike index model` has embedded.

    \b
    Example:
      lookalike index diff --queries 1000
    """
    with store.engine() as engine:
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
