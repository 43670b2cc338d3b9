"""Texts for clients: inputs shortened, the server's paths left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from search_api.text import PublicText, displayed, parsed_json, shortened, unknown_name


def test_shortened() -> None:
    assert shortened("x" * 200) == "x" * 200
    assert shortened("x" * 10_000) == "x" * 200 + "… (10,000 characters)"
    assert shortened("abcdef", 3) == "abc… (6 characters)"


def test_unknown_names() -> None:
    known = ("limit", "filter")
    text = "unknown parameter 'fliter'; did you mean 'filter'? expected limit, filter"
    assert unknown_name("parameter", "fliter", known) == text
    assert unknown_name("field", "x", known) == "unknown field 'x'; expected limit, filter"
    assert unknown_name("field", "x", ()) == "unknown field 'x'; expected none here"
    assert "did you mean 'limit'?" in unknown_name("field", "file", known, "limit")
    assert len(unknown_name("field", "x" * 10**6, known)) < 200


def test_json_written_by_hand() -> None:
    assert parsed_json('{"a": {"b": 1}, "b": [2]}') == {"a": {"b": 1}, "b": [2]}
    with pytest.raises(ValueError, match="'b' twice"):
        parsed_json('{"a": [{"b": 1, "b": 2}]}')
    with pytest.raises(ValueError, match="too deep"):
        parsed_json("[" * 100_000)


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("{var}/catalogue.sqlite: it is closed", "catalogue.sqlite: it is closed"),
        ("'{var}/generations/7/index.faiss' is damaged", "'generations/7/index.faiss' is damaged"),
        ("{var} is not a folder", "store is not a folder"),
        ("cannot write to {var}: full", "cannot write to store: full"),
        ("{var}/", "store/"),
        ("{var}-old/x/file is another", "my store/store-old/x/file is another"),
        ("[Errno 2] No such file: '/etc/ssl/private/key.pem'", "[Errno 2] No such file: 'key.pem'"),
        ("open(/usr/lib/python3/site.py)", "open(site.py)"),
        ("GET /v1/index reports the limits; see /docs", None),
        ("and/or image/png 1/2 https://shop.example/a/b s3://bucket/a/b", None),
        ("no paths", None),
    ],
)  # fmt: skip
def test_paths_are_left_out(tmp_path: Path, text: str, public: str | None) -> None:
    var = tmp_path / "my store" / "store"
    text = text.replace("{var}", str(var))
    assert PublicText([var, tmp_path])(text) == (text if public is None else public)


def test_names_are_displayed_on_one_line_whatever_they_hold() -> None:
    assert displayed("a\n\tb\x1b[31m\u202egnp.exe") == r"a\n\tb\x1b[31m\u202egnp.exe"
    assert displayed("caf\udce9 \ud800.png") == r"caf\xe9 \ud800.png"
    assert displayed("Zoë 🦄 日本") == "Zoë 🦄 日本"
    assert displayed("two\n\tlines\r", lines=True) == "two\n\tlines\\r"
