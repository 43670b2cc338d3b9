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


SHOUT = "Straße, GOOD!"
HINDI = "\u0939\u093f\u0928\u094d\u0926\u0940"


def diet(food: str, likes: bool) -> dict[str, Any]:
    return {"food": food, "likes": likes}


# Odd values for the conditions on what is missing, dates, words and lists of objects.
ODD: list[dict[str, Any]] = [
    {"id": i, "label": label, "split": split, "source": f"s{i}", "payload": payload}
    for i, (label, split, payload) in enumerate(
        [
            (None, None, {}),
            ("2024-05-31", "x", {"r": None, "t": "2024-05-31"}),
            ("Rote Mütze", "x", {"r": [], "t": "2024-05-31T23:30:00-02:00"}),
            ("", "", {"r": [None], "t": "2024-06-01 01:30:00.5Z"}),
            ("x", None, {"r": "", 'q"': [], "t": ["2023-01-01t00:00:00z", "not a date", 7]}),
            ("x", None, {"r": {}, "t": 2024}),
            ("x", None, {"r": 0, "t": "2024-02-30"}),
            ("x", None, {"d": [diet("leaves", False), diet("meat", True)]}),
            ("x", None, {"d": [diet("leaves", True), diet("meat", False)]}),
            ("x", None, {"d": {"food": "leaves", "likes": True, "label": None}}),
            ("x", None, {"d": [{"food": ["leaves", "x"], "label": "cat"}, 5, [{"food": 1}], None]}),
            ("x", None, {"a.b": 1, "a[]": 2, "a": {"b.c": [3]}, "label": "cat", "w": SHOUT}),
            ("x", None, {"w": "a good hat: cheap"}),
            ("x", None, {"w": ["good", "cheap"]}),
            ("x", None, {"w": "goodcheap"}),
            ("x", None, {"w": "red_hat-0001.jpg \u212aelvin Cafe\u0301"}),
            ("x", None, {"w": f"\u7ea2\u8272\u5e3d\u5b50 hindi {HINDI}"}),
        ]
    )
]  # fmt: skip


def date(**bounds: object) -> dict[str, Any]:
    return {"must": [{"key": "t", "range": bounds}]}


def text(of: str, key: str = "w") -> dict[str, Any]:
    return {"must": [{"key": key, "match": {"text": of}}]}


def one_of(key: str, **filter_: object) -> dict[str, Any]:
    return {"must": [{"nested": {"key": key, "filter": filter_}}]}


ODD_MEANINGS: list[tuple[dict[str, Any], list[int]]] = [
    ({"must": [{"is_null": {"key": "label"}}]}, [0]),
    ({"must": [{"is_empty": {"key": "label"}}]}, [0]),
    ({"must_not": [{"is_null": {"key": "split"}}]}, [1, 2, 3]),
    ({"must": [{"is_empty": {"key": "r"}}], "must_not": [{"has_id": list(range(7, 17))}]},
     [0, 1, 2]),
    ({"must": [{"is_null": {"key": "r"}}]}, [1]),
    ({"must": [{"is_null": {"key": "r[]"}}]}, [3]),
    ({"must": [{"is_empty": {"key": "r[]"}}, {"has_id": list(range(7))}]}, [0, 1, 2, 3, 4, 5, 6]),
    ({"must": [{"key": "r", "is_null": True}]}, [1]),
    ({"must": [{"key": "r", "is_empty": False}]}, [3, 4, 5, 6]),
    ({"must": [{"is_null": {"key": "d[].label"}}]}, []),
    ({"must": [{"is_empty": {"key": "d.food"}}, {"has_id": [7, 8, 9, 10]}]}, [7, 8, 10]),
    ({"must": [{"is_empty": {"key": "d[].food"}}, {"has_id": [7, 8, 9, 10]}]}, [9]),
    ({"must": [{"key": "label", "match": {"except": ["x", "", 3]}}]}, [1, 2]),
    ({"must": [{"key": "r", "match": {"except": ["", False]}}]}, [5, 6]),
    ({"must": [{"key": '"r"[]', "match": {"except": [1]}}]}, []),
    ({"must": [{"key": 'q"', "match": {"except": [1]}}]}, []),
    ({"must": [{"key": "d[].food", "match": {"except": ["leaves", "meat"]}}]}, [10]),
    ({"must": [{"key": "split", "values_count": {"lt": 1}}, {"has_id": [0, 1, 4]}]}, [0, 4]),
    ({"must": [{"key": "r", "values_count": {"gte": 1}}]}, [3, 4, 5, 6]),
    ({"must": [{"key": "d", "values_count": {"gt": 1, "lte": 3}}]}, [7, 8]),
    ({"must": [{"key": "d[].food", "values_count": {"gte": 2}}]}, [10]),
    ({"must": [{"key": "d[].food", "values_count": {"lte": 0}}, {"has_id": [6, 7, 9]}]}, [6, 9]),
    # Dates are compared as instants; a date alone is its first.
    (date(gte="2024-05-31", lt="2024-06-01"), [1]),
    (date(gte="2024-05-31T00:00:00Z", lte="2024-06-01T01:30:00Z"), [1, 2]),
    (date(gt="2024-06-01T03:30:00+02:00"), [3]),
    (date(gte="2024-06-01T03:30:00.50000+02:00"), [3]),
    (date(gt="2024-06-01T01:30:00.5"), []),
    (date(lt="2024"+"-01-01T00:00Z"), [4]),
    (date(gte=2000), [5]),
    (date(gte=7, lt=8), [4]),
    ({"must": [{"key": "label", "range": {"lte": "2024-05-31"}}]}, [1]),
    ({"must_not": [{"key": "label", "range": {"lt": "2024-05-31"}}]}, list(range(17))),
    # Words, whatever their case and Unicode form.
    (text("good cheap"), [12]),
    (text("GOOD"), [11, 12, 13]),
    (text("STRASSE"), [11]),
    (text("hat"), [12, 15]),
    (text("0001 RED"), [15]),
    (text("kelvin caf\u00e9"), [15]),
    (text("cafe"), []),
    (text("\u5e3d\u5b50"), [16]),
    (text(HINDI), [16]),
    (text("\u0939"), []),
    (text("m\u00dcTZE", "label"), [2]),
    (text("food", "d"), []),
    # Names in quotes; keys of objects in lists.
    ({"must": [match('"a.b"', 1)]}, [11]),
    ({"must": [match('"a[]"', 2)]}, [11]),
    ({"must": [match('a."b.c"', 3)]}, [11]),
    ({"must": [match('a."b.c"[]', 3)]}, [11]),
    ({"must": [match('"label"', "cat")]}, [11]),
    ({"must": [match("a.b", 1)]}, []),
    ({"must": [match("d[].food", "leaves")]}, [7, 8, 10]),
    ({"must": [match("d.food", "leaves")]}, [9]),
    ({"must": [match("d[].food", "leaves"), match("d[].likes", True)]}, [7, 8]),
    (one_of("d", must=[match("food", "leaves"), match("likes", True)]), [8]),
    (one_of("d[]", must=[match("food", "meat")], must_not=[match("likes", False)]), [7]),
    (one_of("d", must=[match("label", "cat")]), [10]),
    (one_of("d", must=[{"is_empty": {"key": "likes"}}]), [10]),
    (one_of("d"), [7, 8, 10]),
    (one_of("label", must=[]), []),
]  # fmt: skip


@pytest.mark.parametrize(("obj", "expected"), ODD_MEANINGS)
def test_meaning_of_odd_values(obj: object, expected: list[int]) -> None:
    where = parse_filter(obj)
    assert [entry["id"] for entry in ODD if where.matches(entry)] == expected


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
        ({"must": [{}]}, r"must\[0\] has \[\]; expected key with one of match, range"),
        ({"should": [{"key": "a"}]}, r"should\[0\] has \['key'\]"),
        ({"should": [{"match": {"value": 1}}]}, r"should\[0\] has \['match'\]"),
        ({"must": [{"key": "a", "match": {"value": 1}, "range": {"gt": 1}}]}, "key with one"),
        ({"must": [{"key": "a", "geo": 1}]}, r"must\[0\] has the unknown word 'geo'"),
        ({"must": [{"key": "a", "match": 3}]}, r"must\[0\]\.match is 3; expected an object"),
        ({"must": [{"key": "a", "match": {}}]}, r"must\[0\]\.match has \[\]; expected one of"),
        ({"must": [match("a", None)]}, r"must\[0\]\.match\.value is None; .* false; is_null"),
        ({"must": [match("a", [1])]}, r"must\[0\]\.match\.value is \[1\]"),
        ({"must": [match("a", float("nan"))]}, r"match\.value is nan; expected a finite number"),
        ({"must": [match("a", 2**63)]}, "integer of at most 64 bits"),
        ({"must": [match("a", "\x00")]}, "without NUL"),
        ({"must": [{"key": "a", "match": {"any": []}}]}, r"any is \[\]; expected a list"),
        ({"must": [{"key": "a", "match": {"any": ["x", {}]}}]}, r"match\.any\[1\] is \{\}"),
        ({"must": [{"key": "a", "match": {"any": [1] * 16385}}]}, "at most 16384 in all"),
        ({"must": [{"key": "a", "range": {}}]}, r"must\[0\]\.range has no bound"),
        ({"must": [{"key": "a", "range": {"gt": "1"}}]}, r"gt is '1'; expected a number, or a"),
        ({"must": [{"key": "a", "range": {"gt": True}}]}, r"range\.gt is True; expected a number"),
        ({"must": [{"key": "a", "range": {"min": 1}}]}, "unknown word 'min'"),
        ({"must": [match("", 1)]}, r"must\[0\]\.key is ''; expected names with dots"),
        ({"must": [match("a..b", 1)]}, r"key is 'a\.\.b'"),
        ({"must": [match(".".join("abcdefghi"), 1)]}, "expected at most 8 names"),
        ({"must": [match(3, 1)]}, "key is 3"),  # type: ignore[arg-type]
        ({"must": [{"has_id": [1, "2"]}]}, r"must\[0\]\.has_id\[1\] is '2'; expected an integer"),
        ({"must": [{"has_id": [True]}]}, "expected an integer id"),
        ({"must": [{"has_id": 5}]}, r"has_id is 5; expected a list"),
        ({"must": [{"has_id": [1], "key": "a"}]}, r"has \['has_id', 'key'\]; expected key with"),
        ({"must": [{"has_id": [1], "is_null": {"key": "a"}}]}, r"has \['has_id', 'is_null'\]"),
        ({"musst": []}, "unknown word 'musst'; expected 'must' perhaps, or one of must, should"),
        ({"must": [{"is_nul": {"key": "a"}}]}, "word 'is_nul'; expected 'is_null' perhaps"),
        ({"must": [{"must_nott": []}]}, "expected 'must_not' perhaps"),
        ({"must": [{"key": "a", "match": {"txt": "b"}}]}, "expected 'text' perhaps"),
        ({"must": [{"is_null": "a"}]}, r"must\[0\]\.is_null is 'a'; expected an object with key"),
        ({"must": [{"is_empty": {}}]}, r"is_empty\.key is None; expected names"),
        ({"must": [{"key": "a", "is_null": 1}]}, "is_null is 1; expected true, false"),
        (text("?!"), r"match\.text is '\?!'; expected at least one word"),
        (text(3), r"match\.text is 3; expected text"),  # type: ignore[arg-type]
        (text("a" * 1001), "text has 1,001 characters; expected at most 1,000"),
        ({"must": [text(" ".join(map(str, range(200))))] * 2}, "too many words; .* most 256"),
        (date(gte="2024-05-31", lt=5), "range is .*; expected either numbers or dates, not both"),
        (date(gte="31.5.2024"), r"gte is '31\.5\.2024'; expected a number, or a date as in RFC"),
        (date(gte="2024-02-30"), r"expected a number, or a date as in RFC 3339: 2024-05-31, 2024"),
        ({"must": [{"key": "a", "values_count": {"gt": "1"}}]}, "gt is '1'; expected a number"),
        ({"must": [{"key": "a", "match": {"except": []}}]}, r"except is \[\]; expected a list"),
        ({"must": [match("a[0].b", 1)]}, r"a position in a list is not supported; write a\[\] for"),
        ({"must": [match("[].a", 1), match("a" + "[]" * 99, 1)]}, "expected at most 8 names"),
        ({"must": [{"nested": {"key": "a"}}]}, r"nested has \['key'\]; expected key and filter"),
        (one_of("a", must=[{"has_id": [1]}]), r"\.nested\.filter\.must\[0\] is in a nested"),
        (one_of("a", must=[nested(4)]), "nested too deep; expected at most 5"),
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


NAMES = st.sampled_from(["a", "b", 'q"', "é", "c d", "\\", "a.b", "label"])
STEPS = st.sampled_from(
    ["a", "b", 'q"', "é", "c d", "\\", "a[]", "b[]", '"a.b"', '"label"', "a[][]"]
)
DATES = st.sampled_from(
    ["2024-05-31", "2024-05-31T00:00:00Z", "2024-05-31t01:00:00.0+01:00", "2024-05-31 00:00:00.001",
     "2024-06-01T00:00:00+23:59", "2024-05-30T00:30-23:59", "2016-12-31T23:59:60Z", "2017-01-01",
     "0001-01-01T00:00:00+10:00", "9999-12-31T23:59:59-23:59"]
)  # fmt: skip
TEXTS = st.one_of(
    st.sampled_from(["", "1", "true", "x", "X", "é", "'", '"', "a.b", "\u0001", "null"]),
    st.sampled_from(
        ["e\u0301 x", "K", "\u212a k", "ß", "SS x", "\ufb01 1", "2024-02-30", "x%", "x_X"]
    ),
    DATES,
)
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
    st.lists(STEPS, min_size=1, max_size=3).map(".".join),
)
WORDS = st.sampled_from(["x", "K", "é", "e\u0301", "ss", "FI", "1 x", "a b", "2024"])
BOUNDS = st.sampled_from(["gt", "gte", "lt", "lte"])
PLAIN_CONDITIONS = st.one_of(
    st.builds(match, KEYS, SCALARS),
    st.builds(lambda key, values: {"key": key, "match": {"any": values}}, KEYS,
              st.lists(SCALARS, min_size=1, max_size=4)),
    st.builds(lambda key, bounds: {"key": key, "range": bounds}, KEYS,
              st.one_of(st.dictionaries(BOUNDS, NUMBERS, min_size=1),
                        st.dictionaries(BOUNDS, DATES, min_size=1))),
    st.builds(lambda key, values: {"key": key, "match": {"except": values}}, KEYS,
              st.lists(SCALARS, min_size=1, max_size=3)),
    st.builds(lambda key, words: {"key": key, "match": {"text": words}}, KEYS, WORDS),
    st.builds(lambda key, bounds: {"key": key, "values_count": bounds}, KEYS,
              st.dictionaries(BOUNDS, st.integers(-1, 3), min_size=1)),
    st.builds(lambda word, key: {word: {"key": key}}, st.sampled_from(["is_null", "is_empty"]),
              KEYS),
)  # fmt: skip
IDS = st.builds(lambda ids: {"has_id": ids}, st.lists(st.integers(0, 6), min_size=1, max_size=4))


def clauses(condition: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    words = st.sampled_from(["must", "should", "must_not"])
    return st.dictionaries(words, st.lists(condition, max_size=3), min_size=1)


NESTED = st.builds(
    lambda key, where: {"nested": {"key": key, "filter": where}}, KEYS, clauses(PLAIN_CONDITIONS)
)
CONDITIONS = st.one_of(PLAIN_CONDITIONS, PLAIN_CONDITIONS, NESTED, IDS)
FILTERS = clauses(st.one_of(CONDITIONS, clauses(st.one_of(CONDITIONS, clauses(CONDITIONS)))))
