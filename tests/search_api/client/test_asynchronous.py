"""The asynchronous client against a real server."""

from __future__ import annotations

import asyncio

import pytest

from search_api.client import AsyncClient, ProblemError
from tests.search_api.conftest import colour, png

RED = png(colour("red", 1))


def test_async(live_server: str) -> None:
    async def use() -> None:
        async with AsyncClient(live_server) as client:
            answers = await asyncio.gather(*(client.search(RED, limit=n) for n in range(1, 9)))
            assert [len(answer.points) for answer in answers] == list(range(1, 9))
            with pytest.raises(ProblemError) as caught:
                await client.get_image(999_999)
            assert caught.value.status == 404
            added = (await client.add_images([png((200, 100, 220))])).results[0].id
            assert added is not None
            assert (await client.change_image(added, {"label": "pink"})).payload["label"] == "pink"
            await client.create_snapshot("async")
            assert (await client.delete_images([added])).deleted == 1
            assert (await client.restore_snapshot("async")).changed == 1
            assert (await client.delete_image(added)).deleted == 1
            await client.delete_snapshot("async")
            assert (await client.list_snapshots()).snapshots == []
            assert (await client.list_models()).serving == "sha256:mean-colour"
            job = await client.compact_index()
            assert job.kind == "compact"

    asyncio.run(use())
