import pytest

from index.ranking.vote import vote


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([], None),
        ([None, None], None),
        (["cat"], ("cat", 1.0)),
        (["dog", "cat", "cat", None], ("cat", 2 / 3)),
        (["dog", "cat", "cat", "dog"], ("dog", 0.5)),
        ([None, "b", "a"], ("b", 0.5)),
    ],
)
def test_vote(labels: list[str | None], expected: tuple[str, float] | None) -> None:
    assert vote(labels) == expected
