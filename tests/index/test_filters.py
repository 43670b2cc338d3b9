from typing import Any

import pytest
from hypothesis import strategies as st

from index.contract import FilterError
from index.filters import parse_filter

ENTRIES: list[dict[str, Any]] = [
    {"id": 1, "label": "cat", "split": "train", "source": "a.png", "payload": {"n": 1}},
    {"id": 2, "label": "cat", "split": "test", "source": "b.png", "payload": {"n": True}},
    {"id": 3, "label": "dog", "split": None, "source": "c.png", "payload": {"n": "1"}},
    {"id": 4, "label": None, "split": None, "source": "d.png", "payload": {"n": [1.0, "x"]}},
    {"id": 5, "label": "1", "split": "train", "source": "e", "payload": {"m": {"year": 1999.5}}},
    {"id": 6, "label": "Cat", "split": "train", "source": "f", "payload": {"m": [{"year": 1}]}},
    {"id": 7, "label": "dog", "split": "x", "source": "g", "payload": {"n": None, "m": "year"}},
    {"id": 8, "label": "dog", "split": "x", "source": "h", "payload": {"n": {}, "label": "zebra"}},
    {"id": 9, "label": "dog", "split": "x", "source": "i", "payload": {"n": [[1], True], 'a"b': 3}},
    {"id": 10, "label": "o'x", "split": "x", "source": "j", "payload": {"é\\\n": "ü\u0001"}},
]


def match(key: str, value: object) -> dict[str, Any]:
    return {"key": key, "match": {"value": value}}


MEANINGS: list[tuple[dict[str, Any], list[int]]] = [
    ({}, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
    ({"must": [], "should": [], "must_not": None}, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
    ({"must": [match("label", "cat")]}, [1, 2]),
    ({"must_not": [match("label", "cat")]}, [3, 4, 5, 6, 7, 8, 9, 10]),
    ({"must": [match("label", 1)]}, []),
    ({"must_not": [match("label", 1)]}, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
    ({"must": [match("label", "zebra")]}, []),
    ({"must": [match("label", "o'x")]}, [10]),
    ({"must": [match("split", "train"), match("label", "cat")]}, [1]),
    ({"should": [match("split", "test"), match("label", "1")]}, [2, 5]),
    ({"must": [match("label", "cat")], "should": [match("source", "b.png")]}, [2]),
    ({"must": [{"key": "label", "match": {"any": ["1", "Cat", 7]}}]}, [5, 6]),
    ({"must": [{"key": "split", "range": {"gt": 0}}]}, []),
    ({"must": [match("n", 1)]}, [1, 4]),
    ({"must": [match("n", 1.0)]}, [1, 4]),
    ({"must": [match("n", True)]}, [2, 9]),
    ({"must": [match("n", False)]}, []),
    ({"must": [match("n", "1")]}, [3]),
    ({"must": [{"key": "n", "match": {"any": ["x", True]}}]}, [2, 4, 9]),
    ({"must": [{"key": "n", "range": {"gte": 1, "lt": 2}}]}, [1, 4]),
    ({"must": [{"key": "n", "range": {"gt": 1}}]}, []),
    ({"must_not": [{"key": "n", "range": {"lte": 1, "gt": None}}]}, [2, 3, 5, 6, 7, 8, 9, 10]),
    ({"must": [{"key": "m.year", "range": {"gt": 1999, "lte": 1999.5}}]}, [5]),
    ({"must": [match("m", "year")]}, [7]),
    ({"must": [match('a"b', 3)]}, [9]),
    ({"must": [match("é\\\n", "ü\u0001")]}, [10]),
    ({"must": [{"has_id": [2, 3, 99, -1]}]}, [2, 3]),
    ({"must_not": [{"has_id": [2, 3]}, match("split", "x")]}, [1, 4, 5, 6]),
    ({"must": [{"should": [match("n", "1"), {"must_not": [match("label", "dog")]}]}]},
     [1, 2, 3, 4, 5, 6, 10]),
]  # fmt: skip


@pytest.mark.parametrize(("obj", "expected"), MEANINGS)
def test_meaning(obj: object, expected: list[int]) -> None:
    where = parse_filter(obj)
    assert [entry["id"] for entry in ENTRIES if where.matches(entry)] == expected


def nested(depth: int) -> dict[str, Any]:
    obj: dict[str, Any] = {"must": [match("a", 1)]}
    for _ in range(depth - 1):
        obj = {"must": [obj]}
    return obj


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        ([], r"filter is \[\]; expected an object with must, should, must_not"),
        ({"musst": []}, "filter has the unknown word 'musst'"),
        ({"must": {"key": "a"}}, r"must is \{'key': 'a'\}; expected a list"),
        ({"must": [1]}, r"must\[0\] is 1; expected an object"),
        ({"must": [{}]}, r"must\[0\] has \[\]; expected key with either match or range"),
        ({"should": [{"key": "a"}]}, r"should\[0\] has \['key'\]"),
        ({"should": [{"match": {"value": 1}}]}, r"should\[0\] has \['match'\]"),
        ({"must": [{"key": "a", "match": {"value": 1}, "range": {"gt": 1}}]}, "either match or"),
        ({"must": [{"key": "a", "geo": 1}]}, r"must\[0\] has the unknown word 'geo'"),
        ({"must": [{"key": "a", "match": 3}]}, r"must\[0\]\.match is 3; expected an object"),
        ({"must": [{"key": "a", "match": {}}]}, r"must\[0\]\.match has \[\]; expected either"),
        ({"must": [match("a", None)]}, r"must\[0\]\.match\.value is None; expected text, a number"),
        ({"must": [match("a", [1])]}, r"must\[0\]\.match\.value is \[1\]"),
        ({"must": [match("a", float("nan"))]}, r"match\.value is nan; expected a finite number"),
        ({"must": [match("a", 2**63)]}, "integer of at most 64 bits"),
        ({"must": [match("a", "\x00")]}, "without NUL"),
        ({"must": [{"key": "a", "match": {"any": []}}]}, r"any is \[\]; expected a list"),
        ({"must": [{"key": "a", "match": {"any": ["x", {}]}}]}, r"match\.any\[1\] is \{\}"),
        ({"must": [{"key": "a", "match": {"any": [1] * 16385}}]}, "at most 16384 in all"),
        ({"must": [{"key": "a", "range": {}}]}, r"must\[0\]\.range has no bound"),
        ({"must": [{"key": "a", "range": {"gt": "1"}}]}, r"range\.gt is '1'; expected a number"),
        ({"must": [{"key": "a", "range": {"gt": True}}]}, r"range\.gt is True; expected a number"),
        ({"must": [{"key": "a", "range": {"min": 1}}]}, "unknown word 'min'"),
        ({"must": [match("", 1)]}, r"must\[0\]\.key is ''; expected names with dots"),
        ({"must": [match("a..b", 1)]}, r"key is 'a\.\.b'"),
        ({"must": [match(".".join("abcdefghi"), 1)]}, "expected at most 8 names"),
        ({"must": [match(3, 1)]}, "key is 3"),  # type: ignore[arg-type]
        ({"must": [{"has_id": [1, "2"]}]}, r"must\[0\]\.has_id\[1\] is '2'; expected an integer"),
        ({"must": [{"has_id": [True]}]}, "expected an integer id"),
        ({"must": [{"has_id": 5}]}, r"has_id is 5; expected a list"),
        ({"must": [{"has_id": [1], "key": "a"}]}, "expected has_id alone"),
        ({"must": [{"must": [match("a", 1), {"should": [4]}]}]},
         r"must\[0\]\.must\[1\]\.should\[0\] is 4"),
        (nested(6), "nested too deep; expected at most 5"),
        ({"must": [match("a", 1)] * 257}, r"must\[256\] is one too many; expected at most 256"),
        ({"must": [{"must": [match("a", 1)] * 128}] * 2}, r"must\[1\]\.must\[126\] is one too"),
    ],
)  # fmt: skip
def test_refused_with_the_location(obj: object, message: str) -> None:
    with pytest.raises(FilterError, match=message) as caught:
        parse_filter(obj)
    assert isinstance(caught.value, ValueError)


NAMES = st.sampled_from(["a", "b", 'q"', "é", "c d", "\\"])
TEXTS = st.sampled_from(["", "1", "true", "x", "X", "é", "'", '"', "a.b", "\u0001", "null"])
NUMBERS = st.one_of(
    st.integers(-2, 2),
    st.sampled_from([0.0, -0.0, 1.0, 0.5, -1.5, 2**53, 2**53 + 1, float(2**53), 2**63 - 1]),
    st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False, width=32),
)
SCALARS = st.one_of(st.booleans(), NUMBERS, TEXTS)
VALUES = st.recursive(
    st.one_of(st.none(), SCALARS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=6,
)
RECORDS = st.fixed_dictionaries(
    {
        "source": TEXTS,
        "split": st.one_of(st.none(), TEXTS),
        "label": st.one_of(st.none(), TEXTS),
        "payload": st.dictionaries(NAMES, VALUES, max_size=4),
    }
)
KEYS = st.one_of(
    st.sampled_from(["label", "split", "source"]),
    st.lists(NAMES, min_size=1, max_size=3).map(".".join),
)
CONDITIONS = st.one_of(
    st.builds(match, KEYS, SCALARS),
    st.builds(lambda key, values: {"key": key, "match": {"any": values}}, KEYS,
              st.lists(SCALARS, min_size=1, max_size=4)),
    st.builds(lambda key, bounds: {"key": key, "range": bounds}, KEYS,
              st.dictionaries(st.sampled_from(["gt", "gte", "lt", "lte"]), NUMBERS, min_size=1)),
    st.builds(lambda ids: {"has_id": ids}, st.lists(st.integers(0, 6), min_size=1, max_size=4)),
)  # fmt: skip


def clauses(condition: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    words = st.sampled_from(["must", "should", "must_not"])
    return st.dictionaries(words, st.lists(condition, max_size=3), min_size=1)


FILTERS = clauses(st.one_of(CONDITIONS, clauses(st.one_of(CONDITIONS, clauses(CONDITIONS)))))
