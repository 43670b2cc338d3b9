"""The token of Milvus is shown nowhere."""

from __future__ import annotations

import json
import traceback
from dataclasses import asdict

import pytest

from index.milvus.connection import Connection, MilvusUnavailableError
from index.milvus.settings import MilvusSettings, Secret
from search_api.settings import Settings, StoreLocation

TOKEN = "root:very-secret-word"


def test_a_secret_is_shown_by_no_repr() -> None:
    location = StoreLocation(milvus=MilvusSettings("http://127.0.0.1:1", TOKEN))
    shown = [repr(location), str(location), repr(Settings(store=location)), repr(asdict(location))]
    assert not [text for text in shown if "secret" in text]
    assert repr(Secret(TOKEN)) == "'***'"
    assert location.milvus is not None
    assert location.milvus.token == TOKEN
    # The worker process gets it, over its standard input.
    assert StoreLocation.from_dict(json.loads(json.dumps(location.to_dict()))) == location


def test_no_error_shows_the_token(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("pymilvus")
    settings = MilvusSettings(f"http://{TOKEN}@127.0.0.1:1", TOKEN)
    with pytest.raises(MilvusUnavailableError) as caught:
        Connection(settings, 0.5)
    error = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert "very-secret-word" not in str(caught.value)
    ours = [frame for frame in error.stack if "/index/milvus/" in frame.filename]
    assert ours
    for frame in ours:
        assert "token='root" not in str(frame.locals)
    assert "very-secret-word" not in caplog.text


def test_what_the_client_says_of_the_token_is_left_out() -> None:
    connection = object.__new__(Connection)
    connection.settings = MilvusSettings("http://127.0.0.1:1", TOKEN)
    for said in (f"bad token {TOKEN}", "user root with very-secret-word", "code=1800 " + TOKEN * 9):
        assert "very-secret-word" not in connection._message(RuntimeError(said))
