"""`lookalike index build|status|verify`, and the group that the other index commands join."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from search_api.commands import remote
from search_api.commands.options import (
    bundle_option,
    data_option,
    json_option,
    print_json,
    say,
    together,
    var_option,
)
from search_api.commands.remote import server_options
from search_api.commands.shards import embed, import_
from search_api.commands.stores import (
    compact,
    diff,
    existing_store,
    kind_option,
    model,
    restore,
    snapshot,
)


@click.group()
def index() -> None:
    """Build, look at, verify and keep the index."""


for _command in (snapshot, restore, compact, model, diff, embed, import_):
    index.add_command(_command)


@index.command()
@together(data_option, var_option, bundle_option, server_options)
@click.option("--reembed", is_flag=True, help="Embed everything again, also what is known.")
@kind_option
@json_option
def build(
    data: Path | None,
    var: Path,
    bundle: Path | None,
    server: str | None,
    api_key: str | None,
    reembed: bool,
    kind: str | None,
    as_json: bool,
) -> None:
    """Bring the store up to date with the corpus.

    Embeds what is new, drops what is gone, builds a new index beside the old one and switches.
    A server that runs on the same store goes on answering and takes up the new index by itself.

    \b
    Examples:
      lookalike index build --data ~/Pictures --var ~/lookalike
      lookalike index build --server http://127.0.0.1:8000
    """
    if server:
        with remote.connect(server, api_key) as client:
            result = remote.rebuild(client, reembed).result or {}
        say(", ".join(f"{name} {count:,}" for name, count in result.items()))
        if as_json:
            print_json(result)
        return
    # Torch is imported only where the work is done here.
    from search_api.commands.open import build as build_engine
    from search_api.commands.open import open_engine

    with open_engine(data, var, bundle) as engine:
        if kind is not None:
            engine.builder.set_kind(kind)
        counts = build_engine(engine, reembed)
        if as_json:
            print_json(
                {
                    "generation": engine.manifest.generation,
                    "total": counts.total,
                    "embedded": counts.embedded,
                    "kept": counts.kept,
                    "removed": counts.removed,
                    "skipped": counts.skipped,
                }
            )


@index.command()
@together(var_option, server_options, json_option)
def status(var: Path, server: str | None, api_key: str | None, as_json: bool) -> None:
    """Show what is in the store, without loading a model.

    \b
    Examples:
      lookalike index status --json
      lookalike index status --server http://127.0.0.1:8000
    """
    if server:
        with remote.connect(server, api_key) as client:
            values = remote.status(client)
    else:
        values = _status_here(var)
    if as_json:
        print_json(values)
        return
    for name, value in values.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {count:,}" for key, count in value.items()) or "none"
        elif isinstance(value, int):
            value = f"{value:,}"
        click.echo(f"{name:<11} {value}")


def _status_here(var: Path) -> dict[str, Any]:
    with existing_store(var) as store:
        return dict(store.status())


@index.command()
@var_option
@json_option
@click.pass_context
def verify(context: click.Context, var: Path, as_json: bool) -> None:
    """Check the checksums of all generations, all snapshots and every record of the catalogue.

    Exit code 1 if anything is damaged.

    \b
    Example:
      lookalike index verify
    """
    with existing_store(var) as store:
        findings = [
            {"part": found.part, "ok": found.problem is None, "problem": found.problem}
            for found in store.verify()
        ]
    if as_json:
        print_json({"ok": all(finding["ok"] for finding in findings), "findings": findings})
    else:
        for finding in findings:
            click.echo(f"{finding['part']:<14} {'ok' if finding['ok'] else finding['problem']}")
    if not all(finding["ok"] for finding in findings):
        context.exit(1)
