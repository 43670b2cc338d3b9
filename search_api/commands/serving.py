"""`lookalike up` and `lookalike serve`."""

from __future__ import annotations

import errno
import socket
import threading
from pathlib import Path

import click
import uvicorn

from embed.bundle import Bundle
from embed.corpus import find_corpus
from embed.encoder import Encoder
from index.snapshots import ModelMismatchError, NoGenerationError, SnapshotError
from search_api.app import create_app
from search_api.commands.open import build, engine_over, find_bundle, has_bundle, open_engine
from search_api.commands.options import (
    bundle_option,
    data_option,
    host_option,
    port_option,
    say,
    together,
    var_option,
)
from search_api.engine import SearchEngine

_serving_options = together(data_option, var_option, bundle_option, host_option, port_option)


@click.command()
@_serving_options
def up(data: Path | None, var: Path, bundle: Path | None, host: str, port: int) -> None:
    """Make everything ready and serve: what `make run` does.

    Finds the pictures, loads the model (or trains one), builds the index where that is needed,
    and serves the API and the page. The next start takes seconds.

    \b
    Examples:
      lookalike up
      LOOKALIKE_VAR=/tmp/second LOOKALIKE_PORT=8001 lookalike up --data ~/Pictures
    """
    with _listen(host, port) as listener:
        corpus = find_corpus(data, say)
        folder = find_bundle(bundle, var)
        if bundle is None and not has_bundle(folder):
            # Imports train only here: serving with a model that is there does not need it.
            from search_api.commands.training import train_default

            folder = train_default(corpus, var)
        with engine_over(corpus, var, Encoder(Bundle.load(folder))) as engine:
            _make_ready(engine)
            _serve(engine, listener)


@click.command()
@_serving_options
def serve(data: Path | None, var: Path, bundle: Path | None, host: str, port: int) -> None:
    """Serve an index that is built already.

    Refuses, rather than rebuild, where the index belongs to another model or corpus.

    \b
    Example:
      lookalike serve --port 8080
    """
    with _listen(host, port) as listener, open_engine(data, var, bundle) as engine:
        engine.check_corpus()
        engine.load()
        say(engine.loaded)
        _serve(engine, listener)


def _make_ready(engine: SearchEngine) -> None:
    """Load the index; build it where there is none that fits."""
    sample = engine.corpus.notice is not None
    stored = engine.catalogue.get_meta("corpus_is_sample") == "yes"
    if not (stored and not sample):
        # A stored sample has nothing to lose and gives way to real pictures.
        engine.check_corpus()
    elif engine.catalogue.get_meta("corpus") != engine.corpus.name:
        say("The store holds the rendered sample; replacing it.")
        build(engine)
    try:
        engine.load()
        say(engine.loaded)
    except NoGenerationError:
        say(f"Building the index of {engine.corpus.name} in {engine.var}.")
        build(engine)
    except ModelMismatchError as error:
        say(f"{error} Embedding everything with the new model.")
        build(engine)
    except SnapshotError as error:
        say(f"{error} Rebuilding it from the catalogue.")
        build(engine)


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; taken before any long work, so that a clash shows at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        remedy = (
            "; another program uses it, choose another with --port or LOOKALIKE_PORT"
            if error.errno == errno.EADDRINUSE
            else "; choose another with --host or LOOKALIKE_HOST"
        )
        raise click.ClickException(
            f"cannot listen on {host} port {port} ({error.strerror}){remedy}"
        ) from None
    return listener


def _serve(engine: SearchEngine, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    if engine.corpus.notice:
        say(f"\n*** SAMPLE *** {engine.corpus.notice}\n")
    shown = f"[{host}]" if ":" in host else host
    config = uvicorn.Config(create_app(engine), log_level="warning", access_log=False)
    server = uvicorn.Server(config)
    listener.listen(2048)
    # The first visitor should not wait for the pictures to be read from disk.
    threading.Thread(target=engine.warm, name="warm", daemon=True).start()
    click.echo(f"Lookalike is ready: http://{shown}:{port} (Ctrl-C stops it)")
    server.run(sockets=[listener])
