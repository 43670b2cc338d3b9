"""`lookalike up` and `lookalike serve`."""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
import threading

import click

from index.contract import GenerationError, ModelMismatchError, NoGenerationError
from index.local.store import CacheSizes
from index.memory import machine_memory
from search_api import logs
from search_api.api.app import create_app
from search_api.api.server import Server
from search_api.cli.index.building import build
from search_api.cli.instance import instance_options
from search_api.cli.options import Bars, removal_option, say
from search_api.jobs.worker_process import WorkerProcess
from search_api.keys import is_loopback
from search_api.service.engine import SearchEngine, engine_over, find_store_corpus, open_engine
from search_api.service.first_model import first_model
from search_api.settings import Settings
from search_api.stores.model_store import has_bundle, open_model
from search_api.stores.store_corpus import CorpusMismatchError, remember, remembered
from search_api.threads import limit_arenas, limit_blas_threads


@click.command()
@instance_options
@removal_option
def up(settings: Settings, allow_removal: bool) -> None:
    """Prepare everything and serve.

    Finds the pictures, loads the model (or trains one), builds the index if needed, and serves the
    API and the web page; `make run` does the same. The next start takes seconds.

    \b
    Examples:
      lookalike up
      LOOKALIKE_VAR=/tmp/second LOOKALIKE_PORT=8001 lookalike up --data ~/Pictures
    """
    limit_arenas()
    picture = settings.limits.picture
    with _listen(settings.host, settings.port) as listener:
        corpus = find_store_corpus(
            settings.data, settings.store, say, picture, settings.folder_options, building=True
        )
        with Bars() as bars:
            folder = first_model(settings.bundle, corpus, settings.store, say, bars)
        if settings.bundle is None and not has_bundle(folder):
            # Serving an existing model must not import train.
            from search_api.cli.training import train_default

            folder = train_default(corpus, settings.store.var)
        model = open_model(folder, settings.store.var)
        with engine_over(
            corpus,
            settings.store,
            model,
            picture,
            _cache_sizes(settings),
            settings.limits.quotas,
        ) as engine:
            _make_ready(engine, allow_removal)
            _serve(engine, listener, settings)


@click.command()
@instance_options
def serve(settings: Settings) -> None:
    """Serve an existing index.

    The store knows its corpus and model. Another one that is named is refused, and nothing is
    rebuilt.

    \b
    Example:
      lookalike serve --port 8080
    """
    limit_arenas()
    with (
        _listen(settings.host, settings.port) as listener,
        open_engine(
            settings.data,
            settings.store,
            settings.bundle,
            settings.limits.picture,
            cache_sizes=_cache_sizes(settings),
            quotas=settings.limits.quotas,
            say=say,
            folder_options=settings.folder_options,
        ) as engine,
    ):
        engine.load()
        say(engine.load_report)
        _serve(engine, listener, settings)


def _cache_sizes(settings: Settings) -> CacheSizes:
    limits = settings.limits
    return CacheSizes(limits.max_cached_entries, limits.max_cached_selections)


def _make_ready(engine: SearchEngine, allow_removal: bool = False) -> None:
    """Load the index, or build it if there is none for this model and corpus."""
    if remembered(engine.catalogue) is None:
        # For this server's worker process, and for whoever continues after an interruption.
        remember(engine.catalogue, engine.corpus, engine.var)
    try:
        engine.check_corpus()
    except CorpusMismatchError:
        # Nothing is lost with a stored sample; any other corpus is refused.
        say(f"Replacing what is in the store with {engine.corpus.name}.")
        build(engine, allow_removal=allow_removal)
    try:
        engine.load()
        say(engine.load_report)
    except NoGenerationError:
        say(f"Building the index of {engine.corpus.name} in {engine.var}.")
        build(engine, allow_removal=allow_removal)
    except ModelMismatchError as error:
        say(f"{error} Embedding everything with the new model.")
        build(engine, allow_removal=allow_removal)
    except GenerationError as error:
        say(f"{error} Rebuilding it from the catalogue.")
        build(engine, allow_removal=allow_removal)


def _listen(host: str, port: int) -> socket.socket:
    """Bind a socket; done before any long work, so that a conflict is reported at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only if the protocol is given; without it each response waits 40 ms
    # for the client's delayed acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        remedy = (
            "; another program uses the port, so choose another with --port or LOOKALIKE_PORT"
            if error.errno == errno.EADDRINUSE
            else "; choose another address with --host or LOOKALIKE_HOST"
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
    # Of all addresses, one that is answered: no request is for 0.0.0.0.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    shown = f"[{host}]" if ":" in host else host
    worker = None
    if not settings.store.single_process:
        worker = WorkerProcess(
            engine,
            settings.store,
            settings.data,
            settings.bundle,
            settings.limits.picture,
            settings.limits.quotas,
            settings.log_format,
            int(settings.limits.job_memory_share * machine_memory()),
            folder_options=settings.folder_options,
        )
    if not (settings.access.keys or is_loopback(settings.host)):
        say(
            "\n*** WARNING *** No API key is set: whoever reaches this server may read, change and"
            " delete everything.\nIt answers to localhost, to its own addresses and to the hosts in"
            f" LOOKALIKE_ALLOWED_HOSTS ({', '.join(settings.access.hosts) or 'none'}); requests for"
            " any other name are refused.\n"
        )
    app = create_app(engine, settings.limits, settings.access, worker)

    def ready() -> None:
        click.echo(f"Lookalike is ready: http://{shown}:{port} (press Ctrl-C to stop)")

    limit_blas_threads()
    server = Server(app, settings.limits, settings.shutdown, ready)
    listener.listen(2048)
    # Read the pictures from disk now, not at the first request.
    threading.Thread(target=engine.warm, name="warm", daemon=True).start()
    server.run(sockets=[listener])
    # Everything is closed and on disk. A normal exit would run the destructors of native libraries,
    # and if one of those blocks, not even the timer of the grace period could end the process.
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)
