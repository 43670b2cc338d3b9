"""A typed client of the HTTP API, synchronous and asynchronous; it needs no model and no index.

What the API's responses look like is in `search_api.schemas`; nothing here imports the service.

    import os

    from search_api.client import Client

    with Client("http://127.0.0.1:8000", os.environ.get("LOOKALIKE_API_KEY")) as lookalike:
        answer = lookalike.search(Path("cat.jpg"), limit=5)
        print(answer.prediction.label, [point.id for point in answer.points])
"""

from search_api.client.asynchronous import AsyncClient
from search_api.client.calls import Picture, Retry
from search_api.client.errors import ProblemError, UnreachableError
from search_api.client.synchronous import Client

__all__ = ["AsyncClient", "Client", "Picture", "ProblemError", "Retry", "UnreachableError"]
