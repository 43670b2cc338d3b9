"""A server over a store of plain pictures with the fake encoder; run as a program."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import uvicorn

from embed.corpus import FolderCorpus
from search_api.api.app import create_app
from search_api.service.engine import SearchEngine
from search_api.settings import Limits
from tests.search_api.conftest import MeanColour


def main() -> None:
    """Serve until killed."""
    engine = SearchEngine(MeanColour(), FolderCorpus(Path(sys.argv[1])), Path(sys.argv[2]))
    engine.load()
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    app = create_app(engine, Limits(compact_min_changes=10**9))
    uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_keep_alive=600)).run(
        sockets=[listener]
    )


if __name__ == "__main__":
    main()
