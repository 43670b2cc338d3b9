"""`lookalike up` and `lookalike serve`."""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
import threading
from concurrent.futures import Future

import click

from embed.corpus import CorpusError
from index.contract import GenerationError, ModelMismatchError, NoGenerationError
from index.local.store import CacheSizes
from index.memory import machine_memory
from search_api import logs
from search_api.api.app import create_app
from search_api.api.server import Server
from search_api.cli.index.building import build
from search_api.cli.instance import instance_options
from search_api.cli.options import Bars, counted, removal_option, say
from search_api.jobs.tasks import Task
from search_api.jobs.worker_process import WorkerProcess
from search_api.keys import is_loopback
from search_api.service.engine import SearchEngine, engine_over, find_store_corpus, open_engine
from search_api.service.first_model import choose_model, fitted_model
from search_api.settings import Settings
from search_api.stores.location_file import keep_location
from search_api.stores.model_store import has_bundle, open_model
from search_api.stores.store_corpus import CorpusMismatchError, remember, remembered
from search_api.threads import limit_arenas, limit_blas_threads

_SCAN_SECONDS = 1.5


@click.command()
@instance_options
@removal_option
def up(settings: Settings) -> None:
    """Prepare everything and serve.

    Finds the pictures, loads the model (or trains one), and serves the API and the web page;
    `make run` does the same. The first time it builds the index meanwhile: searches find what is
    embedded so far, and after Ctrl-C the next start goes on.

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
        folder, unfitted = choose_model(settings.bundle, corpus, settings.store, say)
        if unfitted and settings.store.single_process:
            with Bars() as bars:
                folder = fitted_model(folder, corpus, settings.store, bars)
            unfitted = False
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
            keep_location(settings.store)
            building = not _make_ready(engine, settings.allow_removal, unfitted=unfitted)
            if building:
                engine.storage.check_room()
            task = Task("rebuild", allow_removal=settings.allow_removal) if building else None
            _serve(engine, listener, settings, task)


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
        if engine.builder.unfinished():
            say("Its first build has not finished; `lookalike up` or `index build` continues it.")
        _serve(engine, listener, settings)


def _cache_sizes(settings: Settings) -> CacheSizes:
    limits = settings.limits
    return CacheSizes(limits.max_cached_entries, limits.max_cached_selections)


def _make_ready(
    engine: SearchEngine, allow_removal: bool = False, *, unfitted: bool = False
) -> bool:
    """Load the index, or build it again if it is of another model or of the rendered sample.

    Returns False if there is none, or only what a first build had embedded when it was stopped:
    then the server builds it while it serves. An ``unfitted`` model makes no index.
    """
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
        return False
    except ModelMismatchError as error:
        if unfitted:
            return False
        say(f"{error} Embedding everything with the new model.")
        build(engine, allow_removal=allow_removal)
    except GenerationError as error:
        say(f"{error} Rebuilding it from the catalogue.")
        build(engine, allow_removal=allow_removal)
    return not engine.builder.unfinished()


def _size(engine: SearchEngine) -> str:
    """How many pictures the corpus has; its name if that takes longer than a moment to find out.

    Raises:
        CorpusError: it cannot be used, and there is nothing else to serve.
    """
    outcome: Future[int] = Future()

    def look() -> None:
        try:
            outcome.set_result(len(engine.corpus.items))
        except BaseException as error:  # noqa: BLE001 - raised below
            outcome.set_exception(error)

    threading.Thread(target=look, name="scan", daemon=True).start()
    try:
        return counted(outcome.result(_SCAN_SECONDS))
    except TimeoutError:
        return engine.corpus.name
    except CorpusError:
        if not engine.ready:
            raise
        return engine.corpus.name


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


def _serve(
    engine: SearchEngine, listener: socket.socket, settings: Settings, building: Task | None = None
) -> None:
    doing = ""
    if building is not None:
        doing = f"indexing {_size(engine)}: searches find what is embedded so far; "
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
    app = create_app(
        engine,
        settings.limits,
        settings.access,
        worker,
        build=building,
        watch=settings.watch,
        warm=True,
    )

    def ready() -> None:
        click.echo(f"Lookalike is ready: http://{shown}:{port} ({doing}press Ctrl-C to stop)")

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
