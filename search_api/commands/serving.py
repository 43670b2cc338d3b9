"""`lookalike up` and `lookalike serve`."""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
import threading

import click

from embed.corpus import find_corpus
from index.snapshots import ModelMismatchError, NoGenerationError, SnapshotError
from search_api import logs
from search_api.app import create_app
from search_api.aside import Aside
from search_api.commands.instance import instance_options
from search_api.commands.open import (
    build,
    engine_over,
    find_bundle,
    has_bundle,
    open_engine,
    open_model,
)
from search_api.commands.options import place, say
from search_api.engine import SearchEngine
from search_api.local_store import Cached
from search_api.server import Server
from search_api.settings import Settings
from search_api.threads import bound_arenas, share_blas


@click.command()
@instance_options
def up(settings: Settings) -> None:
    """Make everything ready and serve: what `make run` does.

    Finds the pictures, loads the model (or trains one), builds the index where that is needed,
    and serves the API and the page. The next start takes seconds.

    \b
    Examples:
      lookalike up
      LOOKALIKE_VAR=/tmp/second LOOKALIKE_PORT=8001 lookalike up --data ~/Pictures
    """
    bound_arenas()
    picture = settings.limits.picture
    with _listen(settings.host, settings.port) as listener:
        corpus = find_corpus(settings.data, say, picture)
        folder = find_bundle(settings.bundle, settings.var)
        if settings.bundle is None and not has_bundle(folder):
            # Imports train only here: serving with a model that is there does not need it.
            from search_api.commands.training import train_default

            folder = train_default(corpus, settings.var)
        model = open_model(folder)
        with engine_over(corpus, settings.var, model, picture, _cached(settings)) as engine:
            _make_ready(engine)
            _serve(engine, listener, settings)


@click.command()
@instance_options
def serve(settings: Settings) -> None:
    """Serve an index that is built already.

    Refuses, rather than rebuild, where the index belongs to another model or corpus.

    \b
    Example:
      lookalike serve --port 8080
    """
    bound_arenas()
    with (
        _listen(settings.host, settings.port) as listener,
        open_engine(
            settings.data,
            settings.var,
            settings.bundle,
            settings.limits.picture,
            _cached(settings),
        ) as engine,
    ):
        engine.check_corpus()
        engine.load()
        say(engine.loaded)
        _serve(engine, listener, settings)


def _cached(settings: Settings) -> Cached:
    limits = settings.limits
    return Cached(limits.max_cached_entries, limits.max_cached_selections)


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
    # The protocol is named because asyncio sets TCP_NODELAY only where it is: without that each
    # answer waits 40 ms for the client's delayed acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
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


def _serve(engine: SearchEngine, listener: socket.socket, settings: Settings) -> None:
    logs.configure(settings.log_format)
    host, port = listener.getsockname()[:2]
    if engine.corpus.notice:
        say(f"\n*** SAMPLE *** {engine.corpus.notice}\n")
    shown = f"[{host}]" if ":" in host else host
    where, picture = place(), settings.limits.picture
    aside = None
    if not where.of_one_process:
        aside = Aside(engine, settings.data, settings.bundle, picture, settings.log_format, where)
    app = create_app(engine, settings.limits, settings.access, aside)

    def ready() -> None:
        click.echo(f"Lookalike is ready: http://{shown}:{port} (Ctrl-C stops it)")

    share_blas()
    server = Server(app, settings.limits, settings.shutdown, ready)
    listener.listen(2048)
    # The first visitor should not wait for the pictures to be read from disk.
    threading.Thread(target=engine.warm, name="warm", daemon=True).start()
    server.run(sockets=[listener])
    # All is closed and on disk. The interpreter's own way out runs the destructors of native
    # libraries, and where one of those waits, not even the timer of the grace time gets its turn.
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)
