from index.contract import UnknownIdError


def test_unknown_ids_are_named_and_held() -> None:
    error = UnknownIdError(range(12), "the index")
    assert str(error) == "the index has no such id: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"
    assert error.ids == tuple(range(12))
    assert isinstance(error, KeyError)
