"""The group `lookalike index`, and its commands build, status and verify."""

from __future__ import annotations

from typing import Any

import click

from index.blobs.checking import check_pictures
from index.contract import JobControl
from search_api.cli import remote
from search_api.cli.index.maintenance import (
    compact,
    diff,
    kind_option,
    model,
    restore,
    snapshot,
)
from search_api.cli.index.shards import embed, import_
from search_api.cli.on_store import FOLDER_NAMES, OnStore, on_store
from search_api.cli.options import (
    Bars,
    json_option,
    print_json,
    removal_option,
    say,
    together,
)
from search_api.cli.remote import server_options
from search_api.text import displayed


@click.group()
def index() -> None:
    """Build, inspect and maintain the index."""


for _command in (snapshot, restore, compact, model, diff, embed, import_):
    index.add_command(_command)


@index.command()
@together(on_store("data", *FOLDER_NAMES, "bundle"), server_options)
@click.option("--reembed", is_flag=True, help="Embed all pictures again, including known ones.")
@click.option(
    "--refit",
    is_flag=True,
    help="Fit the photo encoder's embedding to the pictures again and switch to it.",
)
@kind_option
@removal_option
@click.option(
    "--replace-corpus",
    is_flag=True,
    help="Let --data be another corpus than the store's, whose pictures are then removed from it.",
)
@json_option
def build(
    store: OnStore,
    server: str | None,
    api_key: str | None,
    reembed: bool,
    refit: bool,
    kind: str | None,
    allow_removal: bool,
    replace_corpus: bool,
    as_json: bool,
) -> None:
    """Bring the store up to date with the corpus.

    Embeds new pictures and those whose file has changed, follows those that moved, removes those
    that are gone, builds a new index next to the old one and switches to it. A server on the same
    store keeps running and loads the new index by itself.

    Pictures that cannot be looked at stay. If more than a tenth of the pictures are gone, or all,
    nothing is removed unless --allow-removal is given: perhaps a drive is missing.

    The store remembers its corpus and how it is read: name it once. A corpus that was moved is
    recognised by its pictures; another one is refused, unless --replace-corpus is given.

    \b
    Examples:
      lookalike index build --data ~/Pictures --var ~/lookalike
      lookalike index build --var ~/lookalike
      lookalike index build --server http://127.0.0.1:8000
    """
    if replace_corpus and store.data is None:
        raise click.UsageError("--replace-corpus needs --data, the corpus to replace it with")
    if refit and (server or store.bundle):
        raise click.UsageError(
            "--refit fits the store's own model on this machine; leave out --server and --bundle"
        )
    if server:
        with remote.connect(server, api_key) as client:
            result = remote.rebuild(client, reembed, allow_removal).result or {}
        say(", ".join(f"{name} {count:,}" for name, count in result.items()))
        if as_json:
            print_json(result)
        return
    # With --server torch is not needed, so it is imported only for local work.
    from search_api.cli.index.building import build as build_index

    with (
        Bars() as bars,
        store.engine(progress=bars, refit=refit, replacing=replace_corpus) as engine,
    ):
        counts = build_index(engine, reembed, kind, replace_corpus, allow_removal)
        if as_json:
            print_json(
                {
                    "generation": engine.manifest.generation,
                    "total": counts.total,
                    "embedded": counts.embedded,
                    "changed": counts.changed,
                    "kept": counts.kept,
                    "moved": counts.moved,
                    "removed": counts.removed,
                    "unreachable": counts.unreachable,
                    "skipped": counts.skipped,
                    "skipped_kinds": counts.kinds,
                }
            )


@index.command()
@together(on_store(), server_options, json_option)
def status(store: OnStore, server: str | None, api_key: str | None, as_json: bool) -> None:
    """Show the contents of the store, without loading a model.

    \b
    Examples:
      lookalike index status --json
      lookalike index status --server http://127.0.0.1:8000
    """
    if server:
        with remote.connect(server, api_key) as client:
            values = remote.status(client)
    else:
        values = _local_status(store)
    if as_json:
        print_json(values)
        return
    for name, value in values.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {count:,}" for key, count in value.items()) or "none"
        elif isinstance(value, int):
            value = f"{value:,}"
        click.echo(f"{name:<11} {displayed(str(value))}")


def _local_status(store: OnStore) -> dict[str, Any]:
    with store.opened() as opened:
        return dict(opened.status())


@index.command()
@on_store()
@click.option(
    "--rate",
    default=100.0,
    show_default=True,
    type=click.FloatRange(min=0.0, min_open=True),
    help="Read added pictures at this many MB per second at most.",
)
@click.option("--no-pictures", is_flag=True, help="Leave out the bytes of added pictures.")
@json_option
@click.pass_context
def verify(
    context: click.Context,
    store: OnStore,
    rate: float,
    no_pictures: bool,
    as_json: bool,
) -> None:
    """Verify the checksums of generations, snapshots, records and added pictures.

    Names each damaged or missing picture, its id and key, and the snapshots that it is in. Add such
    a picture again to mend it. The exit code is 1 if anything is damaged.

    \b
    Examples:
      lookalike index verify
      lookalike index verify --rate 20
    """
    with store.opened() as opened, Bars() as bars:
        found_all = list(opened.verify())
        if not no_pictures:
            found_all += check_pictures(opened, rate * 1e6, JobControl(bars))
        findings = [
            {"part": found.part, "ok": found.problem is None, "problem": found.problem}
            for found in found_all
        ]
    if as_json:
        print_json({"ok": all(finding["ok"] for finding in findings), "findings": findings})
    else:
        for finding in findings:
            click.echo(f"{finding['part']:<14} {'ok' if finding['ok'] else finding['problem']}")
    if not all(finding["ok"] for finding in findings):
        context.exit(1)
