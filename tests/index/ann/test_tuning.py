from index.ann.approximate import ApproximateIndex
from tests.index.ann.test_build import IDS, XB, D
from tests.index.vectors import built


def test_the_effort_is_the_cheapest_that_reaches_the_target() -> None:
    index = built(IDS, XB, D, "rabitq", 0.9)
    assert isinstance(index, ApproximateIndex)
    assert isinstance(index.parameters["rescored"], int)
    assert index.recall is not None
    assert index.recall["value"] >= 0.95
    more = built(IDS, XB, D, "rabitq", 0.99)
    assert isinstance(more, ApproximateIndex)
    assert more.recall is not None
    assert more.recall["value"] >= 0.995
    assert more.parameters["effort"] * more.parameters["rescored"] > (
        index.parameters["effort"] * index.parameters["rescored"]
    )
