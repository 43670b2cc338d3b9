"""The size that a video codec's own header gives its picture: HEVC and AV1.

The boxes around it may claim another size; a decoder allocates what the codec's header says.
"""

from __future__ import annotations

from collections.abc import Iterator

_HEAD = 512
"""Bytes read of each header; an HEVC one is longer only after what is needed here."""
_SPS = 33
_SEQUENCE = 1
_MOST_UNITS = 256

Size = tuple[int, int]
"""Width and height in pixels; zeros where none is stated."""


class _Bits:
    """Reads bits, the most significant first.

    Raises:
        IndexError: where they end.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> int:
        value = 0
        for at in range(self._at, self._at + count):
            value = value << 1 | self._data[at >> 3] >> (7 - (at & 7)) & 1
        self._at += count
        return value

    def golomb(self) -> int:
        """An unsigned Exp-Golomb code: ITU-T H.265, 9.2."""
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)


def hevc(configuration: bytes, data: bytes) -> Size:
    """The largest in the parameter sets of an ``hvcC`` box, and in those of the picture's data."""
    sizes = [(0, 0)]
    units = [*_configured(configuration), *_delimited(data, (configuration[21] & 3) + 1)]
    for unit in units:
        if unit[0] >> 1 & 0x3F == _SPS:
            sizes.append(_sps(unit[2:].replace(b"\0\0\3", b"\0\0")))
    return max(sizes, key=_area)


def _area(size: Size) -> int:
    return size[0] * size[1]


def _configured(box: bytes) -> Iterator[bytes]:
    """The units in an ``hvcC`` box: ISO/IEC 14496-15, 8.3.3.1."""
    at = 23
    for _ in range(box[22]):
        count = int.from_bytes(box[at + 1 : at + 3], "big")
        at += 3
        for _ in range(min(count, _MOST_UNITS)):
            length = int.from_bytes(box[at : at + 2], "big")
            if not length or at + 2 >= len(box):
                return
            yield box[at + 2 : at + 2 + min(length, _HEAD)]
            at += 2 + length


def _delimited(data: bytes, size: int) -> Iterator[bytes]:
    """The units of a picture, each after its length in ``size`` bytes."""
    at = 0
    for _ in range(_MOST_UNITS):
        length = int.from_bytes(data[at : at + size], "big")
        if not length or at + size >= len(data):
            return
        yield data[at + size : at + size + min(length, _HEAD)]
        at += size + length


def _sps(unit: bytes) -> Size:
    """The size in a sequence parameter set: ITU-T H.265, 7.3.2.2.1."""
    bits = _Bits(unit)
    bits.take(4)
    layers = bits.take(3)
    bits.take(1)
    bits.take(96)  # profile, tier and level
    present = [(bits.take(1), bits.take(1)) for _ in range(layers)]
    if layers:
        bits.take(2 * (8 - layers))
    for profile, level in present:
        bits.take(88 * profile + 8 * level)
    bits.golomb()
    if bits.golomb() == 3:
        bits.take(1)
    return bits.golomb(), bits.golomb()


def av1(configuration: bytes, data: bytes) -> Size:
    """The largest in the sequence headers of an ``av1C`` box, and in those of the data."""
    sizes = [(0, 0)]
    for part in (configuration[4:], data):
        sizes += [_sequence(unit) for kind, unit in _obus(part) if kind == _SEQUENCE]
    return max(sizes, key=_area)


def _obus(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and head of each unit: AV1 specification, 5.3.2."""
    at = 0
    for _ in range(_MOST_UNITS):
        if at >= len(data):
            return
        first = data[at]
        at += 2 if first & 4 else 1
        length = len(data) - at
        if first & 2:
            length, at = _leb128(data, at)
        yield first >> 3 & 15, data[at : at + min(length, _HEAD)]
        at += length


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    """A number in up to eight bytes, and where it ends."""
    value = 0
    for n in range(8):
        value |= (data[at + n] & 0x7F) << 7 * n
        if data[at + n] < 0x80:
            return value, at + n + 1
    return value, at + 8


def _sequence(unit: bytes) -> Size:
    """The largest frame that a sequence header allows: AV1 specification, 5.5.1."""
    bits = _Bits(unit)
    bits.take(4)
    if bits.take(1):  # reduced_still_picture_header
        bits.take(5)
    else:
        _operating_points(bits)
    wide, high = bits.take(4) + 1, bits.take(4) + 1
    return bits.take(wide) + 1, bits.take(high) + 1


def _operating_points(bits: _Bits) -> None:
    decoder_model, delay = 0, 0
    if bits.take(1):  # timing_info_present_flag
        bits.take(64)
        if bits.take(1):  # equal_picture_interval
            bits.golomb()
        decoder_model = bits.take(1)
        if decoder_model:
            delay = bits.take(5) + 1
            bits.take(42)
    initial_delay = bits.take(1)
    for _ in range(bits.take(5) + 1):
        bits.take(12)
        if bits.take(5) > 7:
            bits.take(1)
        if decoder_model and bits.take(1):
            bits.take(2 * delay + 1)
        if initial_delay and bits.take(1):
            bits.take(4)
