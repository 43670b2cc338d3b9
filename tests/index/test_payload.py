from typing import Any

import pytest

from index.contract import IndexInputError
from index.payload import MAX_DEPTH, check_payload, nfc, spellings


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ([1], "payload is a list; expected a dict"),
        ({"a": float("nan")}, r"payload\.a is nan; expected a finite number"),
        ({"a": [1, float("inf")]}, r"payload\.a\[1\] is inf"),
        ({"a": {"b": 2**63}}, r"payload\.a\.b is 9223372036854775808"),
        ({"a": "x\x00y"}, "without NUL"),
        ({"a": "\ud800"}, "without lone surrogates"),
        ({"a\x00": 1}, "a key of payload"),
        ({1: 1}, "a key of payload is 1; expected text"),
        ({"a": b"x"}, r"payload\.a is a bytes"),
        ({"a": (1, 2)}, r"payload\.a is a tuple"),
    ],
)
def test_refused(payload: Any, message: str) -> None:
    with pytest.raises(IndexInputError, match=message):
        check_payload(payload)


def test_accepted() -> None:
    check_payload({"a": None, "b": [True, 1, -(2**63), 1.5, "é\n", {"c": []}], "": {}})


def test_depth() -> None:
    payload: dict[str, Any] = {}
    for _ in range(MAX_DEPTH - 1):
        payload = {"a": payload}
    check_payload(payload)
    with pytest.raises(IndexInputError, match="nested too deep; expected at most 16"):
        check_payload({"a": payload})


def test_spellings_that_look_alike() -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    assert nfc(decomposed) == nfc(composed) == composed
    assert spellings(composed) == (composed, decomposed)
    assert spellings(decomposed) == (decomposed, composed)
    mixed = composed + decomposed
    assert spellings(mixed) == (mixed, 2 * composed, 2 * decomposed)
    assert spellings("cafe") == ("cafe",)
    # The letter of a ligature or a number in a circle looks different, and stays so.
    assert nfc("ﬁ①") == "ﬁ①"
