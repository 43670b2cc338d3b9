from __future__ import annotations

import pytest

from embed.architecture import Architecture

SMALL = Architecture(classes=3, widths=(24, 24, 32), dropout=0.5)


def test_round_trip() -> None:
    assert Architecture.from_dict(SMALL.to_dict()) == SMALL
    assert Architecture.from_dict({**SMALL.to_dict(), "widths": [24, 24, 32]}) == SMALL


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"name": "vgg"},
            "architecture is 'vgg'; expected 'whitened-resnet' or 'resnet18'",
        ),
        ({"classes": 1}, "classes is 1; a classifier needs at least 2"),
        ({"widths": (24, 24)}, r"widths is \(24, 24\); expected three numbers of at least 24"),
        ({"widths": (24, 8, 24)}, "expected three numbers of at least 24"),
        ({"depth": 4}, "depth is 4; expected 2 or 3"),
        ({"dropout": 1.0}, "dropout is 1.0; expected 0 <= dropout < 1"),
    ],
)
def test_bad_architectures(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Architecture(**values)  # type: ignore[arg-type]


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(TypeError, match="height"):
        Architecture.from_dict({**SMALL.to_dict(), "height": 3})
