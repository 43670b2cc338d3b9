"""`lookalike classifier`: the classifier that is fitted on the store's labels."""

from __future__ import annotations

from typing import Any

import click

from search_api.cli import remote
from search_api.cli.on_store import OnStore, on_store
from search_api.cli.options import (
    Bars,
    counted,
    json_option,
    print_json,
    say,
    together,
)
from search_api.cli.remote import server_options

_STAMP = {"model", "generation", "sequence"}
_SHOWN = 10


@click.group()
def classifier() -> None:
    """Show or fit the classifier of the store's labels.

    It is fitted on stored embeddings at every `lookalike index build`, and again by a server once
    5 % of the labels have changed.
    """


@classifier.command()
@together(on_store(), server_options, json_option)
def show(store: OnStore, server: str | None, api_key: str | None, as_json: bool) -> None:
    """Show the store's classifier, or why there is none.

    \b
    Examples:
      lookalike classifier show
      lookalike classifier show --server http://127.0.0.1:8000 --json
    """
    if server:
        with remote.connect(server, api_key) as client:
            _print(client.classifier().model_dump(exclude=_STAMP), as_json)
        return
    from search_api.service.labelling.classes import ClassStore
    from search_api.stores.classifier_store import ClassifierFiles

    with store.opened() as opened:
        classes = ClassStore(opened.catalogue, ClassifierFiles(store.location))
        _print(_description(classes, opened.catalogue.model() or ""), as_json)


@classifier.command()
@together(on_store("bundle"), server_options, json_option)
def fit(
    store: OnStore,
    server: str | None,
    api_key: str | None,
    as_json: bool,
) -> None:
    """Fit the classifier on the labels that the store has now.

    No picture is read. Servers on the store use the new classifier within a second or two.

    \b
    Examples:
      lookalike classifier fit
      lookalike classifier fit --server http://127.0.0.1:8000
    """
    if server:
        with remote.connect(server, api_key) as client:
            remote.followed(client, client.fit_classifier(), "fit")
            found = client.classifier().model_dump(exclude=_STAMP)
    else:
        found = _fit(store)
    _print(found, as_json)


def _fit(told: OnStore) -> dict[str, Any]:
    from contextlib import closing

    from index.contract import JobControl
    from search_api.service.labelling.classes import ClassStore
    from search_api.service.labelling.classifier_fit import ClassifierFitter, fit_now
    from search_api.service.storage.quotas import StorageQuotas
    from search_api.stores.classifier_store import ClassifierFiles
    from search_api.stores.model_store import find_bundle, open_model
    from search_api.stores.opening import open_store

    location = told.location
    with told.opened():
        encoder = open_model(find_bundle(told.bundle, location), location.var)
    with closing(
        open_store(location, lambda digest: encoder if digest == encoder.digest else None)
    ) as store:
        classes = ClassStore(store.catalogue, ClassifierFiles(location))
        StorageQuotas(store, location.var, told.quotas).check_room()
        store.served.load(encoder.digest)
        with Bars() as bars:
            fit_now(store, ClassifierFitter(store, classes), encoder, JobControl(bars))
        return _description(classes, encoder.digest)


def _description(classes: Any, model: str) -> dict[str, Any]:
    from search_api.service.labelling.classes import description

    classes.refresh()
    stored = classes.of(model)
    return {"source": "network" if stored.classifier is None else "store", **description(stored)}


def _print(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    if found["digest"] is None:
        click.echo(f"No classifier: {found['reason']}.")
        if found["novelty"] is not None:
            pictures = counted(found["novelty"]["pictures"])
            click.echo(f"What is usual was measured on {pictures} at {found['fitted']}.")
        return
    if found["reason"] is not None:
        say(f"This is an older classifier: {found['reason']}.")
    novelty = found["novelty"]
    rows = {
        "digest": found["digest"],
        "fitted": f"{found['fitted']}, after write {found['fitted_sequence']:,}",
        "classes": _counts(found["classes"]),
        "left out": _counts(found["left_out"]) if found["left_out"] else "none",
        "accuracy": f"{found['accuracy']:.1%}, cross-validated",
        "calibration error": f"{found['ece']:.1%}, cross-validated",
        "temperature": f"{found['temperature']:.3f}",
        "none of these": "never"
        if novelty is None
        else f"below a mean similarity of {novelty['threshold']:.3f} to the ten nearest",
    }
    for name, value in rows.items():
        click.echo(f"{name:<18}{value}")


def _counts(counts: dict[str, int]) -> str:
    largest = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(f"{name} {count:,}" for name, count in largest[:_SHOWN])
    more = f" and {len(counts) - _SHOWN:,} more" if len(counts) > _SHOWN else ""
    return f"{len(counts):,}: {shown}{more}"
