"""The package as a whole: its methods and what it imports."""

from __future__ import annotations

import inspect
import subprocess
import sys

from search_api.api.app import bare_app
from search_api.api.openapi import operations
from search_api.client import AsyncClient, Client


def test_a_method_for_every_operation() -> None:
    ids = {operation["operationId"] for _, _, operation in operations(bare_app().openapi())}
    for client in (Client, AsyncClient):
        own = {
            name
            for name, member in inspect.getmembers(client, inspect.isfunction)
            if not name.startswith("_") and name not in ("close", "aclose")
        }
        assert own == ids


def test_it_needs_neither_model_nor_index_nor_server() -> None:
    code = "import sys, search_api.client; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(done.stdout.split())
    assert "search_api.client" in modules
    heavy = {"torch", "faiss", "numpy", "fastapi", "starlette", "PIL", "embed", "index"}
    assert not heavy & modules
