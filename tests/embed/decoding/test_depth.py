"""Each file shows the same grey picture, however its values are stored."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from embed.pictures import Opened, decode
from embed.scenes import SCENES, render
from tests.embed.helpers import encoded, tiff
from tests.torture.bombs import png_chunk

GREY = np.asarray(Image.fromarray(render(next(iter(SCENES)), 1)).convert("L").resize((80, 60)))
UNIT = GREY / np.float32(255)
INVERTED, NORMAL = 0, 1
UNSIGNED, SIGNED, REAL = 1, 2, 3
JPEG_2000 = base64.b85decode(
    "|4;u>051Rl0000G0000200000000000000G00002000000000000R#J0S^HI4*>!HQUDA90003200aa8"
    "0smY81VDiQWB?@q0Yh?SVRU6=AYyqSPjF>!N>D{dAa-SPb7^mGATlmBE;Rp;015yA0002100IA#&-^gp"
    "2$2;x<bVbQ6(D6TgKE*MP>;AK8bJ;RKdf7LcbQO<mtr2fU19;r?=Z~8Vorw3r<)JWforRO!Tt+CNONS4"
    "#*TVc%<12*@toLbJ#k=m2!<3J4h6TPQ%R^o+WvvqD@;JxaFfManZf=G00@tA&`9IY6asq5X1~sGjQ6iu"
    "c;5nTV%x*Ks$S#h!19h(A-HbVmd^62fB)G"
)
"""A ramp of 16 colours, of 12 bits in 16, which Pillow does not write."""

WHITE_IN_JPEG_2000 = {
    "12 bits with alpha": (
        "0000CYEU2`4GM<}0000KW^{RQYH%_j00000YH%_j0000jYH%`W0000MX=r3}000020000G00avM00000"
        "01sntY;pkr000005C8xG`D$=7WB*V8Q2;Uk000005C8xG0ssI200000000005C8xG0ssI200000000CF"
        "0RamE0Sf^E3jqQDQUDA90003100aa80smY81VCW_WB?@q0Yh?SVRU6=AYyqSPjF>!N>D{dAa-SPb7^mG"
        "ATlmBE;Rp;015yA0001f00IA#-{80jS0#NB>Ow48;yI5zab2o>$lX&j5;o;`n3?X@B_l7{sy+`UoSwn{"
        "tz}hJf8XG^Ns%^3WjS{N(^12*p(vHVB|LhmH<_<iHYR62?PolH>S_;z$)_i<f2&zlRaejC5CPc%JkR71"
        "0oegO|Je"
    ),
    "16 bits": (
        "|4;u>051Rl0000G0000200000000000000G00002000000000000R#J0S^HI4*>!HQUDA90003200aa8"
        "0smY81VDiQWB?@q0Yh?SVRU6=AYyqSPjF>!N>D{dAa-SPb7^mGATlmBE;Rp;015yA0002c00IA#$Nmg("
        "0oc(IgbfHw5P^!U;_se{Hu9;ix~pk*!b#=lNCReQ0rMc*uM@5H4VN!88LnnVZ>WA|{OW_m-}sUsDyKU`"
        "u(H=duiwLDKb1`FC=`xni!>f2ctvg3*y!2LbH+*=5KQ$N4<QE{+pp_!&U2tLnXv-WGeP5&2Da<@WQ3gO"
        "-}sTx2#<2mNaN2G0(!}2zs_)s_pe!a-vVu7+rzx7UgPM%@{U#^xNg>#&hn{ykD~+1Iar3_yINa2%BBC="
    ),
    "12 bits, lossy": (
        "|4;u>051Rl0000G0000200000000000000G00002000000000000RpF0Sf^E3jqQDQUDDB0ssL400aa8"
        "0Equw00lx|0RLnFB>(|Ka%Ew3Wn>^?c_2@4Wo}APMMofZWpZ<AZ*CwmE;TMR|BwI*000000E_?u|C7h$"
        "N&(kn9!rKY808H_ooA`jX9scO;4t<%yArLrsklQCD2)R*yPwb0q$;O7`AeXn_M@82JLr%`&m)1I#4`li"
        "wtK!(F|#jNzMh%SuLg_I!Ya?moCuIX1FZ~CwyO6B2vSn*f$8#BDTWQTa!vFs_ZmJ9t9a9D;^xJ}|Je"
    ),
}
"""Ramps of red and green, with blue (and alpha) at their largest."""

WHITE_IN_9_BITS = base64.b85decode(
    "0000CYEU2`4GM<}0000KW^{RQYH%_j00000YH%_j0000jYH%`W0000MX=r3}000020000G009UG00000"
    "01sntY;pkr000005dZ)HqiS$6WB*V8Q2;3b000005C8xG0ssI200000000005C8xG0ssI20000000039"
    "0RjI~01N;C009611Oxy9|6BkBKuG^&03`qcLvm$dbY)~9VtF7>aAj^vP(?=|c4cyNX>V>IGA=bPH2;tQ"
    "3IG5A001!n0soWVnE(k_C4CX<LM&P0IgdPXU8;r4Pn^Vp-#)EnRaIVTbw~f%"
)
"""A grey ramp, in a JP2."""


def scaled(top: float, dtype: str = "uint16") -> NDArray[Any]:
    return np.rint(UNIT * top).astype(dtype)


def shown(data: bytes) -> NDArray[np.uint8]:
    decoded = decode(data)
    assert (decoded == decoded[:, :, :1]).all()
    return decoded[:, :, 0]


def assert_grey(data: bytes, tolerance: float = 1.0, where: Any = np.s_[:]) -> None:
    difference = np.abs(shown(data).astype(int) - GREY)[where]
    assert difference.mean() <= tolerance


def png(values: NDArray[Any]) -> bytes:
    return encoded(Image.fromarray(values), "PNG")


def any_tiff(
    values: NDArray[Any], order: str = "<", compression: int = 1, photometric: int = NORMAL,
    more: dict[int, tuple[int, list[int]]] | None = None,
) -> bytes:  # fmt: skip
    kind = {"u": UNSIGNED, "i": SIGNED, "f": REAL}[values.dtype.kind]
    body = values.astype(values.dtype.newbyteorder(order)).tobytes()
    height, width = values.shape
    tags = {
        256: (4, [width]), 257: (4, [height]), 258: (3, [8 * values.dtype.itemsize]),
        259: (3, [compression]), 262: (3, [photometric]), 277: (3, [1]), 339: (3, [kind]),
    } | (more or {})  # fmt: skip
    return tiff(tags, [zlib.compress(body) if compression == 8 else body], order)


def with_tags(values: NDArray[Any], **tags: Any) -> bytes:
    found = TiffImagePlugin.ImageFileDirectory_v2()
    for name, value in tags.items():
        found[int(name[1:])] = value
    return encoded(Image.fromarray(values), "TIFF", tiffinfo=found)


def test_full_16_bits_stay_exactly_as_they_are() -> None:
    values = np.random.default_rng(0).integers(0, 65536, (60, 80)).astype(np.uint16)
    for top in (65535, 40000, 17000):
        stored = np.minimum(values, top)
        expected = np.rint(stored / 65535 * 255)
        assert np.array_equal(shown(png(stored)), expected)
        assert np.array_equal(shown(encoded(Image.fromarray(stored), "TIFF")), expected)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_a_container_that_is_not_filled(bits: int) -> None:
    values = scaled(2**bits - 1)
    assert_grey(png(values), 0.5)
    for order in "<>":
        for compression in (1, 8):
            assert_grey(any_tiff(values, order, compression), 0.5)
            # Signed, and in more bits.
            for dtype in ("int32", "uint32", "float32", "float64"):
                assert_grey(any_tiff(values.astype(dtype), order, compression), 0.5)
    assert_grey(any_tiff(values.astype(np.float16)) if bits < 16 else png(values), 0.5)


def test_hot_pixels_do_not_darken_a_12_bit_picture() -> None:
    values = scaled(4095)
    values[10, 10], values[40, 7], values[41, 9] = 65535, 5000, 30000
    assert_grey(png(values), 0.5)


def test_a_fill_value_at_the_top_does_not_darken_a_12_bit_picture() -> None:
    values = scaled(4095)
    values[:20] = 65535
    assert_grey(png(values), 0.5, np.s_[20:])
    assert (shown(png(values))[:20] == 255).all()


def test_a_drawing_in_16_bits_keeps_its_levels() -> None:
    values = np.full((60, 80), 3000, np.uint16)
    values[20:40, 20:40] = 65535
    assert shown(png(values))[0, 0] == 12
    assert shown(png(values))[30, 30] == 255


def test_png_says_how_many_bits_are_significant() -> None:
    dark = scaled(900)
    plain = png(dark)
    at = plain.index(b"IDAT") - 4
    said = plain[:at] + png_chunk(b"sBIT", b"\x0c") + plain[at:]
    assert np.abs(shown(plain).astype(int) - np.rint(dark / 1023 * 255)).max() <= 1
    assert np.abs(shown(said).astype(int) - np.rint(dark / 4095 * 255)).max() <= 1


@pytest.mark.parametrize(
    ("dtype", "tags"),
    [("uint16", {"t281": 4095}), ("uint16", {"t341": 4095}), ("float32", {"t341": 4095.0}),
     ("float32", {"t270": "ImageJ=1.53\nmin=0.0\nmax=4095.0\n"}),
     ("uint16", {"t270": '<OME><Pixels SignificantBits="12"/></OME>'})],
)  # fmt: skip
def test_a_tiff_says_its_range(dtype: str, tags: dict[str, Any]) -> None:
    dark = scaled(900, dtype)
    decoded = shown(with_tags(dark, **tags)).astype(int)
    assert np.abs(decoded - np.rint(dark / 4095 * 255)).max() <= 1


@pytest.mark.parametrize(
    "tags",
    [{"t281": 65535}, {"t341": 65535}, {"t341": 0}, {"t281": 12}, {"t270": "ImageJ=1\nmax=x\n"},
     {"t270": 'SignificantBits="99"'}, {"t42113": "none"}],
)  # fmt: skip
def test_a_tiff_that_says_nothing_useful(tags: dict[str, Any]) -> None:
    assert_grey(with_tags(scaled(4095), **tags), 0.5)


@pytest.mark.parametrize("value", [900.0, -50.0, 3e38, -3.4028235e38, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("top", [1, 255, 65535])
def test_outliers_in_floats(value: float, top: int) -> None:
    values = UNIT * np.float32(top)
    values[5, 5] = values[50, 60] = value
    assert_grey(any_tiff(values.astype("float32")), 0.5)
    assert shown(any_tiff(values.astype("float32")))[5, 5] == (255 if value > top else 0) or (
        0 <= value <= top
    )


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("float32", -9999), ("float32", -3.4028235e38), ("float32", np.nan), ("float32", -99999),
     ("int16", -9999), ("int16", -32768), ("int32", -(2**31)), ("float64", -1.7e308)],
)  # fmt: skip
def test_no_data_that_is_not_declared(dtype: str, value: float) -> None:
    values = scaled(200, dtype) if dtype[0] == "i" else (UNIT * 255).astype(dtype)
    expected = np.rint(UNIT * 200) if dtype[0] == "i" else GREY
    values[:25, :40] = value
    decoded = shown(any_tiff(values)).astype(int)
    assert np.abs(decoded - expected)[25:].mean() <= 0.5
    assert (decoded[:25, :40] == 0).all()


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("top", [1, 255, 4095])
def test_a_few_outliers_of_different_values(sign: int, top: int) -> None:
    values = (UNIT * top).astype("float32")
    rng = np.random.default_rng(0)
    places = rng.integers(0, 60, 40), rng.integers(0, 80, 40)  # of 4,800 pixels
    values[places] = sign * rng.uniform(10 * top, 1e6, 40)
    assert_grey(any_tiff(values), 2.0)


@pytest.mark.parametrize("value", [-1, -50, -999, -9999])
@pytest.mark.parametrize("top", [1, 255, 4095, 65535])
def test_the_only_negative_value_is_no_data(value: int, top: int) -> None:
    for dtype in ("float32", "int32") if top > 1 else ("float32",):
        values = (UNIT * top).astype(dtype) if dtype[0] == "f" else scaled(top, dtype)
        values[:25] = value
        assert_grey(any_tiff(values), 0.5, np.s_[25:])


@pytest.mark.parametrize(("dtype", "value"), [("uint16", "4095"), ("float32", "1e+20"),
                                              ("float32", "0.1"), ("int16", "7000")])  # fmt: skip
def test_no_data_that_gdal_declares(dtype: str, value: str) -> None:
    values = scaled(1000, dtype)
    values[:25, :40] = float(value)
    body = [*value.encode(), 0]
    decoded = shown(any_tiff(values, more={42113: (2, body)})).astype(int)
    assert np.abs(decoded - np.rint(UNIT * 1000 / 1023 * 255))[25:].mean() <= 0.5
    assert (decoded[:25, :40] == 0).all()


def test_signed_values_around_zero() -> None:
    for low, high, dtype in (
        (-2048, 2047, "int16"), (-32768, 32767, "int16"), (-128, 127, "int8"),
        (-(2**31), 2**31 - 1, "int32"), (-1, 1, "float32"), (-2000, 6000, "int16"),
    ):  # fmt: skip
        unit = GREY.astype(float) / 255
        if low == -2000:  # in no container: from the lowest to the highest
            unit = (unit - unit.min()) / (unit.max() - unit.min())
        exact = low + unit * (high - low)
        values = exact.astype(dtype) if dtype[0] == "f" else np.rint(exact).astype(dtype)
        decoded = shown(any_tiff(values)).astype(int)
        assert np.abs(decoded - np.rint(unit * 255)).max() <= 1, (low, high, dtype)


def test_the_positive_half_of_16_signed_bits() -> None:
    assert_grey(any_tiff(scaled(32767, "int16")), 0.5)


@pytest.mark.parametrize("top", [0.2, 1e-3])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_small_floats_are_not_black(dtype: str, top: float) -> None:
    assert_grey(any_tiff((UNIT / UNIT.max() * top).astype(dtype)), 255 - GREY.max() + 1)
    assert shown(any_tiff((UNIT / UNIT.max() * top).astype(dtype))).max() >= 254


def test_temperatures_in_16_bits_are_stretched() -> None:
    unit = (UNIT - UNIT.min()) / (UNIT.max() - UNIT.min())
    kelvin = np.rint(28000 + 3000 * unit).astype(np.uint16)
    for data in (png(kelvin), any_tiff(kelvin), any_tiff(kelvin, ">", 8)):
        assert np.abs(shown(data).astype(int) - unit * 255).mean() <= 3
    # A light wall is no such thing, nor is a grey card.
    assert shown(png((62000 + kelvin // 10).astype(np.uint16))).min() >= 250
    assert (shown(png(np.full((60, 80), 30000, np.uint16))) == 117).all()


def test_elevations_are_stretched() -> None:
    unit = (UNIT - UNIT.min()) / (UNIT.max() - UNIT.min())
    decoded = shown(any_tiff((1500 + 80 * unit).astype(np.float32))).astype(int)
    assert np.abs(decoded - unit * 255).max() <= 1


@pytest.mark.parametrize(
    ("dtype", "value", "grey"),
    [("float32", 0.0, 0), ("float32", 0.2, 51), ("float32", 1.0, 255), ("float32", 500.0, 255),
     ("float32", -5.0, 0), ("float32", np.nan, 0), ("uint16", 0, 0), ("uint16", 65535, 255),
     ("int16", -7, 0), ("int16", 255, 255)],
)  # fmt: skip
def test_pictures_of_one_value(dtype: str, value: float, grey: int) -> None:
    assert (shown(any_tiff(np.full((8, 8), value, dtype))) == grey).all()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [1, 8])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32"])
def test_white_is_zero(order: str, compression: int, dtype: str) -> None:
    top = {"uint8": 255, "float32": 1.0}.get(dtype, 4095)
    values = (top - UNIT * np.float32(top)).astype(dtype)
    assert_grey(any_tiff(values, order, compression, INVERTED), 1.0)


def test_white_is_zero_in_one_bit() -> None:
    bits = GREY > 128
    body = np.packbits(~bits, axis=1).tobytes()
    tags = {256: (4, [80]), 257: (4, [60]), 258: (3, [1]), 259: (3, [1]), 277: (3, [1])}
    decoded = shown(tiff(tags | {262: (3, [INVERTED])}, [body]))
    assert np.array_equal(decoded, bits * 255)


def test_a_tiff_without_photometric_interpretation_is_not_inverted() -> None:
    tags = {256: (4, [80]), 257: (4, [60]), 258: (3, [8]), 259: (3, [1]), 277: (3, [1])}
    assert np.array_equal(shown(tiff(tags, [GREY.tobytes()])), GREY)
    deep = any_tiff(scaled(4095))
    at = deep.index(struct.pack("<HHII", 262, 3, 1, NORMAL))
    assert_grey(deep[:at] + struct.pack("<H", 263) + deep[at + 2 :], 0.5)  # another tag


def test_twelve_bits_packed() -> None:
    values = scaled(4095)
    first, second = values[:, ::2].astype(np.uint32), values[:, 1::2].astype(np.uint32)
    pairs = first << 12 | second
    body = np.stack([pairs >> 16, pairs >> 8 & 255, pairs & 255], 2).astype(np.uint8).tobytes()
    for order in "<>":
        for photometric in (NORMAL, INVERTED):
            tags = {256: (4, [80]), 257: (4, [60]), 258: (3, [12]), 259: (3, [1]), 277: (3, [1])}
            decoded = shown(tiff(tags | {262: (3, [photometric])}, [body], order)).astype(int)
            expected = GREY if photometric == NORMAL else 255 - GREY.astype(int)
            assert np.abs(decoded - expected).mean() <= 1


def png16(samples: NDArray[np.uint16]) -> bytes:
    """A PNG of 16-bit samples ``(height, width, channels)``, which Pillow does not write."""
    height, width, channels = samples.shape
    kind = {2: 4, 3: 2, 4: 6}[channels]
    rows = np.zeros((height, 1 + width * channels * 2), np.uint8)
    rows[:, 1:] = np.frombuffer(samples.astype(">u2").tobytes(), np.uint8).reshape(height, -1)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
        + png_chunk(b"IDAT", zlib.compress(rows.tobytes()))
        + png_chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_colours_and_alpha_in_16_bits(bits: int) -> None:
    colours = np.stack([GREY, 255 - GREY, np.full_like(GREY, 40)], axis=2)
    deep = np.rint(colours / np.float32(255) * (2**bits - 1)).astype(np.uint16)
    opaque = np.full((60, 80, 1), 2**bits - 1, np.uint16)
    full = np.full((60, 80, 1), 65535, np.uint16)
    for samples in (deep, np.dstack([deep, opaque]), np.dstack([deep, full])):
        assert np.abs(decode(png16(samples)).astype(int) - colours).max() <= 1
    for alpha in (opaque, full):
        decoded = decode(png16(np.dstack([scaled(2**bits - 1), alpha]))).astype(int)
        assert np.abs(decoded - GREY[:, :, None]).max() <= 1
    for order in "<>":
        for compression in (1, 8):
            body = deep.astype(f"{order}u2").tobytes()
            tags = {256: (4, [80]), 257: (4, [60]), 258: (3, [16] * 3), 259: (3, [compression]),
                    262: (3, [2]), 277: (3, [3])}  # fmt: skip
            data = tiff(tags, [zlib.compress(body) if compression == 8 else body], order)
            assert np.abs(decode(data).astype(int) - colours).max() <= 1
        planes = [deep[:, :, n].astype(f"{order}u2").tobytes() for n in range(3)]
        data = tiff(tags | {259: (3, [1]), 284: (3, [2])}, planes, order)
        assert np.abs(decode(data).astype(int) - colours).max() <= 1


@pytest.mark.parametrize("most", [255, 1023, 4095, 65535])
def test_what_decoders_scale_by_the_header(most: int) -> None:
    body = scaled(most).astype(">u2" if most > 255 else "u1").tobytes()
    assert_grey(b"P5 80 60 %d\n" % most + body, 0.5)
    if most == 65535:  # says no more than the type, as a PNG of 16 bits
        assert_grey(encoded(Image.fromarray(scaled(most)), "JPEG2000"), 0.5)
        return
    # Dark, but only the header says what is white.
    dark = np.rint(scaled(most) / 100).astype(">u2" if most > 255 else "u1")
    assert shown(b"P5 80 60 %d\n" % most + dark.tobytes()).max() <= 3


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_colours_that_do_not_fill_a_pnm(bits: int) -> None:
    colours = np.stack([GREY, 255 - GREY, np.full_like(GREY, 40)], axis=2)
    deep = np.rint(colours / np.float32(255) * (2**bits - 1)).astype(np.uint16)
    decoded = decode(b"P6 80 60 65535\n" + deep.astype(">u2").tobytes()).astype(int)
    assert np.abs(decoded - colours).max() <= 1


def test_colours_that_do_not_fill_a_jpeg_2000() -> None:
    ramp = 17 * np.arange(16)
    decoded = decode(JPEG_2000).astype(int)
    # The upper bytes are all that Pillow keeps.
    assert np.abs(decoded[0] - np.stack([ramp, 255 - ramp, np.full(16, 136)], 1)).max() <= 9


@pytest.mark.parametrize("kind", WHITE_IN_JPEG_2000)
def test_the_largest_values_of_a_deep_jpeg_2000_are_not_black(kind: str) -> None:
    ramp = 17 * np.arange(16)
    decoded = decode(base64.b85decode(WHITE_IN_JPEG_2000[kind])).astype(int)
    assert np.abs(decoded - np.stack([ramp, 255 - ramp, np.full(16, 255)], 1)).max() <= 2
    assert np.abs(shown(WHITE_IN_9_BITS).astype(int) - ramp).max() <= 1


@pytest.mark.parametrize("bits", [10, 12, 16])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [1, 8])
def test_grey_and_alpha_of_16_bits_in_a_tiff(bits: int, order: str, compression: int) -> None:
    tags = {256: (4, [80]), 257: (4, [60]), 258: (3, [16] * 2), 259: (3, [compression]),
            262: (3, [1]), 277: (3, [2])}  # fmt: skip
    alpha = np.full((60, 80), 65535, np.uint16)
    alpha[:30] = 0
    for extra, transparent in ((2, True), (0, False)):
        body = np.dstack([scaled(2**bits - 1), alpha]).astype(f"{order}u2").tobytes()
        body = zlib.compress(body) if compression == 8 else body
        data = tiff(tags | {338: (3, [extra])}, [body], order)
        if transparent:
            assert (shown(data)[:30] == 255).all()
        assert_grey(data, 0.5, np.s_[30:] if transparent else np.s_[:])


@pytest.mark.parametrize("compression", [1, 8])
def test_a_bigtiff_in_either_byte_order(compression: int) -> None:
    for order in "<>":
        body = scaled(4095).astype(f"{order}u2").tobytes()
        tags = {256: (4, [80]), 257: (4, [60]), 258: (3, [16]), 259: (3, [compression]),
                262: (3, [1]), 277: (3, [1]), 274: (3, [3])}  # fmt: skip
        body = zlib.compress(body) if compression == 8 else body
        picture, facts = Opened(tiff(tags, [body], order, big=True)).decode_with_facts()
        assert np.abs(picture[::-1, ::-1, 0].astype(int) - GREY).max() <= 1
        assert facts.orientation == 3


def test_a_large_deep_picture_is_averaged_down() -> None:
    values = np.full((1500, 1600), 1000, np.uint16)
    values[:, 800:] = 4095
    small = decode(png(values), at_least=32)
    assert small.shape == (300, 320, 3)
    assert small[0, 0].tolist() == [62] * 3 and small[0, -1].tolist() == [255] * 3


def test_facts_change_nothing() -> None:
    deep = np.dstack([scaled(4095)] * 3)
    picture, facts = Opened(png16(deep)).decode_with_facts()
    assert (facts.width, facts.height) == (80, 60)
    assert np.abs(picture.astype(int) - GREY[:, :, None]).max() <= 1
