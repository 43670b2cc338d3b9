"""Pictures that are small to send and huge to decode, at least one per format."""

from __future__ import annotations

import functools
import io
import struct
import zlib

from PIL import Image

from tests.embed import boxed
from tests.embed.helpers import encoded, flat_jpeg, rgb_tags, tiff, with_more_scans, zeros_deflated

SIDE = 60_000


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, pixels: bytes) -> bytes:
    """A PNG whose header claims ``width`` x ``height`` and whose data inflates to ``pixels``."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(pixels, 9))
        + png_chunk(b"IEND", b"")
    )


def _small(format_: str) -> bytearray:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (200, 30, 30)).save(buffer, format_)
    return bytearray(buffer.getvalue())


def _jpeg() -> bytes:
    data = _small("JPEG")
    frame = data.index(b"\xff\xc0") + 5  # start of frame: length, precision, height, width
    data[frame : frame + 4] = struct.pack(">HH", 65_000, 65_000)
    return bytes(data)


def _scans() -> bytes:
    """24 million pixels in some ten thousand scans."""
    buffer = io.BytesIO()
    Image.new("L", (6000, 4000), 128).save(buffer, "JPEG", progressive=True)
    return with_more_scans(buffer.getvalue(), 10_000)


def _gif() -> bytes:
    data = _small("GIF")
    data[6:10] = struct.pack("<HH", SIDE, SIDE)
    return bytes(data)


def _bmp() -> bytes:
    data = _small("BMP")
    data[18:26] = struct.pack("<ii", SIDE, SIDE)
    return bytes(data)


def _webp() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "WEBP", lossless=True)
    data = bytearray(buffer.getvalue())
    at = data.index(b"VP8L") + 9  # after the signature byte: 14 bits width - 1, 14 bits height - 1
    (bits,) = struct.unpack_from("<I", data, at)
    struct.pack_into("<I", data, at, bits & ~0xFFFFFFF | 16_382 | 16_382 << 14)
    return bytes(data)


def _tiff() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "TIFF")
    data = bytearray(buffer.getvalue())
    (start,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, start)
    for entry in range(start + 2, start + 2 + 12 * entries, 12):
        tag, kind = struct.unpack_from("<HH", data, entry)
        if tag in (256, 257):  # width, height
            struct.pack_into("<H" if kind == 3 else "<I", data, entry + 8, SIDE)
    return bytes(data)


TILE = 16_384


def tiff_tiles(compression: int = 8, bits: int = 8, **more: int) -> bytes:
    """64x64 pixels in one tile of 16384x16384."""
    tags = rgb_tags(64, 64, compression, bits)
    tags |= {322: (4, [TILE]), 323: (4, [TILE])}
    tags |= {int(name[1:]): (3, [value]) for name, value in more.items()}
    planar = more.get("t284") == 2
    size = TILE * TILE * (bits // 8) * (1 if planar else 3)
    tile = zeros_deflated(size) if compression == 8 else bytes(2**16)
    return tiff(tags, [tile] * (3 if planar else 1))


def _tiff_grey_float() -> bytes:
    tags = rgb_tags(64, 64, 8)
    tags |= {258: (3, [32]), 262: (3, [1]), 277: (3, [1]), 339: (3, [3])}
    tags |= {322: (4, [TILE]), 323: (4, [TILE])}
    return tiff(tags, [zeros_deflated(4 * TILE * TILE)])


def _tiff_jpeg_tile() -> bytes:
    """A JPEG of 16384x16384 as the only tile of 64x64 pixels."""
    tile = encoded(Image.new("L", (TILE, TILE)), "JPEG", quality=1)
    tags = rgb_tags(64, 64, 7) | {258: (3, [8]), 262: (3, [1]), 277: (3, [1])}
    return tiff(tags | {322: (4, [TILE]), 323: (4, [TILE])}, [tile])


def _tiff_strips() -> bytes:
    """16x16 pixels in two million strips of a row each."""
    tags = rgb_tags(16, 16, 1) | {278: (3, [1])}
    data = tiff(tags, [bytes(768)])
    at = data.index(struct.pack("<HHI", 273, 4, 1))
    many = 2_000_000
    places = struct.pack("<I", 8) * many
    data = data[:at] + struct.pack("<HHII", 273, 4, many, len(data)) + data[at + 12 :]
    return data + places


def _tiff_rows(high: int) -> bytes:
    """A narrow picture in one strip that claims 2^32 - 1 rows."""
    tags = rgb_tags(8, high) | {278: (4, [2**32 - 1])}
    return tiff(tags, [zeros_deflated(24 * high)])


def _tiff_directories() -> bytes:
    """A directory that is its own SubIFD, EXIF and successor."""
    tags = rgb_tags(16, 16, 1) | {330: (13, [8] * 200), 34665: (4, [8]), 34853: (4, [8])}
    data = bytearray(tiff(tags, [bytes(768)]))
    (count,) = struct.unpack_from("<H", data, 8)
    struct.pack_into("<I", data, 10 + 12 * count, 8)
    return bytes(data)


def _tiff_rationals() -> bytes:
    """Two million fractions in one tag."""
    tags = rgb_tags(16, 16, 1) | {700: (5, [1, 3] * 2_000_000)}
    return tiff(tags, [bytes(768)])


def _gif_frame() -> bytes:
    """A canvas of 16x16 and a frame of 65535x65535."""
    data = _small("GIF")
    at = data.index(b"\x2c", 13) + 5
    data[at : at + 4] = struct.pack("<HH", 65_535, 65_535)
    return bytes(data)


def _gif_comments() -> bytes:
    """20 MB of comments of a byte each."""
    data = _small("GIF")
    at = data.index(b"\x2c", 13)
    return bytes(data[:at] + b"\x21\xfe" + b"\x01a" * 9_000_000 + b"\0" + data[at:])


def _webp_canvas() -> bytes:
    """An animation of frames of 16x16 on a canvas of 16384x16384."""
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    data = bytearray(encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:]))
    data[24:30] = 2 * (TILE - 1).to_bytes(3, "little")
    return bytes(data)


def _jpeg_segments(size: int, number: int) -> bytes:
    """A JPEG of 16x16 with ``number`` more segments, each a part of its EXIF block."""
    data = _small("JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", size + 8) + b"Exif\0\0" + bytes(size)
    return bytes(data[:2] + segment * number + data[2:])


def _jpeg_progressive(width: int, height: int, subsampling: int = 0) -> bytes:
    """A picture whose coefficients must be kept until the last scan."""
    picture = Image.new("RGB", (width, height), (90, 120, 40))
    return encoded(picture, "JPEG", progressive=True, subsampling=subsampling)


def _png_texts(kind: bytes, head: bytes) -> bytes:
    """60 chunks that inflate to a megabyte each, or just less, where Pillow stops."""
    tiny = png(16, 16, bytes(16 * 49))
    at = tiny.index(b"IDAT") - 4
    chunk = png_chunk(kind, head + zlib.compress(bytes(2**20 - 1), 9))
    return tiny[:at] + chunk * 60 + tiny[at:]


def _png_chunks() -> bytes:
    """A million empty private chunks."""
    tiny = png(16, 16, bytes(16 * 49))
    at = tiny.index(b"IDAT") - 4
    return tiny[:at] + png_chunk(b"prVt", b"") * 1_000_000 + tiny[at:]


def _png_animation() -> bytes:
    frames = [Image.new("RGB", (6900, 7000), colour) for colour in ("red", "blue")]
    return encoded(frames[0], "PNG", save_all=True, append_images=frames[1:], compress_level=1)


def _png_interlaced() -> bytes:
    """49 million pixels in Adam7's order; all zero, so that passes need no arranging."""
    side, size = 7000, 0
    for left, top, across, down in (
        (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4),
        (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
    ):  # fmt: skip
        wide, high = -(-(side - left) // across), -(-(side - top) // down)
        size += high * (1 + 3 * wide)
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 1)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zeros_deflated(size))
        + png_chunk(b"IEND", b"")
    )


def _bmp_runs() -> bytes:
    """Two million pixels in runs of one, which Pillow decodes in Python."""
    head = b"BM" + struct.pack("<IHHI", 0, 0, 0, 54 + 1024)
    head += struct.pack("<IiiHHIIiiII", 40, 1500, 1500, 1, 8, 1, 0, 0, 0, 256, 0)
    return head + bytes(1024) + (b"\x01\x07" * 1500 + b"\0\0") * 1500 + b"\0\1"


def _heif(form: str, claimed: int) -> bytes:
    """A small HEIC or AVIF whose boxes claim to be a large one."""
    return boxed.with_ispe(encoded(Image.new("RGB", (64, 64)), form), claimed, claimed)


def _heif_coded(form: str) -> bytes:
    """56 million pixels whose boxes claim 64x64."""
    options = {"quality": 10, **({"speed": 10} if form == "AVIF" else {})}
    return boxed.with_ispe(encoded(Image.new("L", (7500, 7500)), form, **options), 64, 64)


def _pnm_text() -> bytes:
    """Two million samples as text, which Pillow reads in Python."""
    return b"P3 1000 700 255\n" + b"200 30 7 " * 700_000


@functools.cache
def costly() -> dict[str, bytes]:
    """Pictures by name whose header is harmless, and whose decoder allocates or works far more."""
    return {
        "TIFF tile": tiff_tiles(),
        "TIFF tile, planar": tiff_tiles(t284=2),
        "TIFF tile, 16 bits": tiff_tiles(bits=16),
        "TIFF tile, float": _tiff_grey_float(),
        "TIFF tile, LZW": tiff_tiles(compression=5),
        "TIFF tile, JPEG": _tiff_jpeg_tile(),
        "TIFF of 2,000,000 strips": _tiff_strips(),
        "TIFF of 2,000,000 fractions": _tiff_rationals(),
        "GIF frame of 65535x65535": _gif_frame(),
        "GIF of 9,000,000 comments": _gif_comments(),
        "WEBP canvas of 16384x16384": _webp_canvas(),
        "JPEG of 500,000 segments": _jpeg_segments(10, 500_000),
        "JPEG of 20 MB of EXIF": _jpeg_segments(65_000, 300),
        "PNG of 1,000,000 chunks": _png_chunks(),
        "HEIC of 7500x7500 as 64x64": _heif_coded("HEIF"),
        "AVIF of 7500x7500 as 64x64": _heif_coded("AVIF"),
        "HEIC of 4,096 tiles": boxed.grid(4096, 4096, (64, 64), 4096),
        "AVIF of 4,096 tiles": boxed.grid(4096, 4096, (64, 64), 4096, b"av01"),
        "HEIC of 900 tiles of 4096x4096": boxed.grid(4096, 4096, (4096, 4096), 900),
        "JPEG 2000 of 1,000,000 tiles": boxed.siz(1000, 1000, (1, 1)),
        "JPEG 2000 of 16,384 components": boxed.siz(1000, 1000, components=16_384),
        "ICO of 60,000 icons": boxed.icon([(16, 16, b"x")] * 60_000),
    }


@functools.cache
def heavy() -> dict[str, bytes]:
    """Pictures by name that are within the limits, and about the heaviest that are."""
    return {
        "TIFF strip of 2^32 - 1 rows": _tiff_rows(1_000_000),
        "TIFF directory in itself": _tiff_directories(),
        "JPEG progressive, 48 Mpixel": _jpeg_progressive(8000, 6000),
        "JPEG progressive, 108 Mpixel": _jpeg_progressive(12_000, 9000, 2),
        "JPEG, 50 Mpixel": flat_jpeg(8160, 6144),
        "JPEG, 108 Mpixel": flat_jpeg(12_000, 9000),
        "JPEG, 200 Mpixel": flat_jpeg(16_320, 12_240),
        "PNG of 60 MB of zTXt": _png_texts(b"zTXt", b"a\0\0"),
        "PNG of 60 MB of iTXt": _png_texts(b"iTXt", b"a\0\1\0\0\0"),
        "PNG of 60 profiles": _png_texts(b"iCCP", b"a\0\0"),
        "PNG animated, 48 Mpixel": _png_animation(),
        "PNG interlaced, 49 Mpixel": _png_interlaced(),
        "BMP of 2,250,000 runs": _bmp_runs(),
        "PPM of 2,100,000 numbers": _pnm_text(),
        "HEIC of 48 Mpixel": encoded(Image.new("RGB", (8000, 6000)), "HEIF", tile_size=1000),
        "AVIF of 48 Mpixel": encoded(Image.new("RGB", (8000, 6000)), "AVIF", speed=10),
        "JPEG 2000 of 48 Mpixel": encoded(
            Image.new("RGB", (8000, 6000)), "JPEG2000", tile_size=(1024, 1024)
        ),
    }


@functools.cache
def bombs() -> dict[str, bytes]:
    """Pictures by name; each claims, or inflates to, far more than the limits."""
    text = zlib.compress(bytes(300 * 2**20), 9)
    tiny = png(16, 16, bytes(16 * 49))
    at = tiny.index(b"IDAT") - 4
    return {
        "PNG by header": png(SIDE, SIDE, bytes(10_000)),
        "PNG by 2^31 - 1": png(2**31 - 1, 2**31 - 1, b""),
        "PNG 300 MB of text": (tiny[:at] + png_chunk(b"zTXt", b"Comment\0\0" + text) + tiny[at:]),
        "PNG 300 MB of profile": (tiny[:at] + png_chunk(b"iCCP", b"icc\0\0" + text) + tiny[at:]),
        "PNG 30000 x 30000": png(30_000, 30_000, bytes(10_000)),
        "PNG 300 MB of pixels": png(7000, 8000, bytes(300 * 2**20)),
        "JPEG by header": _jpeg(),
        "JPEG of 300 million pixels": flat_jpeg(20_000, 15_000),
        "JPEG by scans": _scans(),
        "GIF by header": _gif(),
        "BMP by header": _bmp(),
        "WEBP by header": _webp(),
        "TIFF by header": _tiff(),
        "HEIC by header": _heif("HEIF", 100_000),
        "AVIF by header": _heif("AVIF", 100_000),
        "HEIC by 2^32 - 1": _heif("HEIF", 2**32 - 1),
        "JPEG 2000 by header": boxed.siz(100_000, 100_000),
        "ICO by its PNG's header": boxed.icon([(16, 16, png(SIDE, SIDE, b""))]),
        "PPM by header": b"P6 100000 100000 255\n" + bytes(100),
        "DIB by header": _bmp()[14:],
    }
