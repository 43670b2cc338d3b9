"""What files that are not read say that they are, from their bytes, and what to do with them.

A table of our own: libraries of signatures (filetype, puremagic) take every camera RAW file that is
a TIFF for a picture, and have no advice.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from embed.decoding.headers import camera_raw


class Foreign(NamedTuple):
    """What a file is, with its article, and what to do with it."""

    what: str
    advice: str


_EXPORT = "export it as JPEG, PNG or TIFF"
_PICTURES = "extract the pictures and send those"
_FRAME = "send a frame of it as JPEG or PNG"
_UNPACK = "unpack it and send the pictures"
_SAVE = "open the page and save the picture itself"

# First bytes, in the order in which they are compared.
_STARTS: tuple[tuple[bytes, str, str], ...] = (
    (b"8BPS", "a Photoshop document (PSD)", _EXPORT),
    (b"gimp xcf", "a GIMP document (XCF)", _EXPORT),
    (b"SQLite format 3\0", "an SQLite database", _PICTURES),
    (b"AT&TFORM", "a DjVu document", _EXPORT),
    (b"%!PS", "a PostScript file (EPS, AI)", _EXPORT),
    (b"\xc5\xd0\xd3\xc6", "a PostScript file (EPS)", _EXPORT),
    (b"\xff\x0a", "a JPEG XL picture", _EXPORT),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL picture", _EXPORT),
    (b"II\xbc\x01", "a JPEG XR picture", _EXPORT),
    (b"BPG\xfb", "a BPG picture", _EXPORT),
    (b"v/1\x01", "an OpenEXR picture", _EXPORT),
    (b"#?RADIANCE", "a Radiance HDR picture", _EXPORT),
    (b"#?RGBE", "a Radiance HDR picture", _EXPORT),
    (b"DDS ", "a DirectDraw texture (DDS)", _EXPORT),
    (b"qoif", "a QOI picture", _EXPORT),
    (b"icns", "a macOS icon (ICNS)", _EXPORT),
    (b"\0\0\2\0", "a Windows cursor (CUR) or a TGA picture", _EXPORT),
    (b"\x01\xda", "an SGI picture", _EXPORT),
    (b"P7", "a PAM picture", "save it as PPM or PNG"),
    (b"\xb1\x68\xde\x3a", "a fax in several PCX pictures (DCX)", _EXPORT),
    (b"\x59\xa6\x6a\x95", "a Sun raster picture", _EXPORT),
    (b"BLP1", "a texture of a game (BLP)", _EXPORT),
    (b"BLP2", "a texture of a game (BLP)", _EXPORT),
    (b"GRIB", "weather data (GRIB)", _EXPORT),
    (b"BUFR", "weather data (BUFR)", _EXPORT),
    (b"\xd7\xcd\xc6\x9a", "a Windows metafile (WMF)", _EXPORT),
    (b"/* XPM */", "an XPM picture", _EXPORT),
    (b"SIMPLE  =", "a FITS picture", _EXPORT),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", _EXPORT),
    (b"\x1aE\xdf\xa3", "a video (WebM, Matroska)", _FRAME),
    (b"FLV\x01", "a video (FLV)", _FRAME),
    (b"\0\0\1\xba", "a video (MPEG)", _FRAME),
    (b"\0\0\1\xb3", "a video (MPEG)", _FRAME),
    (b"0&\xb2u\x8ef\xcf\x11", "a video (WMV, ASF)", _FRAME),
    (b"OggS", "a video or sound file (Ogg)", _FRAME),
    (b"ID3", "a sound file (MP3)", "send a picture"),
    (b"fLaC", "a sound file (FLAC)", "send a picture"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office file, or Windows' Thumbs.db", _PICTURES),
    (b"{\\rtf", "a text with formatting (RTF)", _PICTURES),
    (b"Rar!\x1a\x07", "a RAR file", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z file", _UNPACK),
    (b"\x1f\x8b", "a gzip file", _UNPACK),
    (b"BZh", "a bzip2 file", _UNPACK),
    (b"\xfd7zXZ\0", "an xz file", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file", _UNPACK),
    (b"bplist00", "a property list of Apple's", "download the picture itself"),
    (b"\0\5\x16\7", "what macOS keeps of a file elsewhere (its name starts with ._)",
     "send the file without ._ before its name"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file", "run `git lfs pull`"),
    (b"data:image/", "a data URL, in text", "decode its base64 part and send the bytes"),
    (b"MZ", "a Windows program", "send a picture"),
    (b"\x7fELF", "a program", "send a picture"),
)  # fmt: skip

_RIFF = {
    b"AVI ": ("a video (AVI)", _FRAME),
    b"WAVE": ("a sound file (WAV)", "send a picture"),
    b"ACON": ("an animated Windows cursor (ANI)", _EXPORT),
}
_ZIPPED = (
    (b"word/", "an Office document (Word)", _PICTURES),
    (b"xl/", "an Office document (Excel)", _PICTURES),
    (b"ppt/", "an Office document (PowerPoint)", _PICTURES),
    (b"mimetypeapplication/vnd.oasis", "an OpenDocument file", _PICTURES),
    (b"mimetypeapplication/epub", "an e-book (EPUB)", _PICTURES),
    (b"mimetypeimage/openraster", "an OpenRaster document", _EXPORT),
    (b"mimetypeapplication/x-krita", "a Krita document", _EXPORT),
    (b"[Content_Types].xml", "an Office document", _PICTURES),
)
_MOVIES = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
"""Boxes that old QuickTime files start with."""
_JPEG_LS = 0xF7
_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
_MOST_SEGMENTS = 4096
_BEGINNING = 4096
_SOME = 64
"""Bytes of zeros that are more than an odd short answer."""
_HTML = re.compile(rb"\s*(?:<!--.*?-->\s*)?<(?:!doctype html|html|head|body)\b", re.I | re.S)
_SVG = re.compile(rb"\s*(?:<(?:\?xml|!doctype|!--).*?>\s*)*<(?:\w+:)?svg\b", re.I | re.S)
_XML = re.compile(rb"\s*<\?xml\b", re.I)
_JSON = re.compile(rb'\s*(?:\{\s*["}]|\[\s*[\[{"\]\d-])')
_XBM = re.compile(rb"\s*(?:/\*.*?\*/\s*)?#define\s+\w*_width\s", re.S)
_PCX = re.compile(rb"\x0a[\0\2\3\4\5]\x01[\1\2\4\x08]")
_FLIC = (b"\x11\xaf", b"\x12\xaf")
_TGA = re.compile(
    rb".(?:\0[\x02\x03\x0a\x0b]\0{5}|\x01[\x01\x09].{4}[\x0f\x10\x18\x20])"
    rb".{8}[\x08\x0f\x10\x18\x20][\0-\x3f]",
    re.DOTALL,
)
_TGA_END = b"TRUEVISION-XFILE.\0"


def recognise(data: bytes) -> Foreign | None:
    """What the file is, if it is something that is not read; None if its bytes do not say."""
    raw = camera_raw.named(data)
    if raw is not None:
        what = "a camera RAW file" + (f" ({raw})" if raw else "")
        return Foreign(what, f"{_EXPORT}, with the camera's program or a photo editor")
    if data.endswith(_TGA_END):
        return Foreign("a TGA picture", _EXPORT)
    for start, what, advice in _STARTS:
        if data.startswith(start):
            return Foreign(what, advice)
    if len(data) >= _SOME and not data[:_BEGINNING].strip(b"\0"):
        return Foreign("a file of zeros", "its copy was probably interrupted: copy it again")
    found = _container(data) or _text(data[:_BEGINNING].removeprefix(b"\xef\xbb\xbf"))
    if found is None and _TGA.match(data):  # before version 2, nothing else tells it
        return Foreign("a TGA picture", _EXPORT)
    return found


def _container(data: bytes) -> Foreign | None:
    beginning = data[:_BEGINNING]
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg(data)
    if data.startswith(b"RIFF") and data[8:12] in _RIFF:
        return Foreign(*_RIFF[data[8:12]])
    if data.startswith((b"PK\3\4", b"PK\5\6", b"PK\7\x08")):
        for inside, what, advice in _ZIPPED:
            if inside in beginning:
                return Foreign(what, advice)
        return Foreign("a ZIP file", _UNPACK)
    if data[4:8] == b"ftyp":
        brand = data[8:12]
        if brand.startswith(b"M4A"):
            return Foreign("a sound file (M4A)", "send a picture")
        return Foreign("a video (QuickTime)" if brand == b"qt  " else "a video (MP4)", _FRAME)
    if data[4:8] in _MOVIES:
        return Foreign("a video (QuickTime)", _FRAME)
    if b"%PDF-" in data[:1024]:
        return Foreign("a PDF document", "export its pages or pictures as JPEG or PNG")
    if data[257:262] == b"ustar":
        return Foreign("a tar file", _UNPACK)
    if _PCX.match(data):
        return Foreign("a PCX picture", _EXPORT)
    if data[4:6] in _FLIC:
        return Foreign("an animation (FLIC)", _FRAME)
    if data[128:132] == b"DICM":
        return Foreign("a DICOM picture", _EXPORT)
    if data.startswith(b"\1\0\0\0") and data[40:44] == b" EMF":
        return Foreign("a Windows metafile (EMF)", _EXPORT)
    return None


def _jpeg(data: bytes) -> Foreign | None:
    """What its frame says, of kinds of JPEG that libjpeg does not know."""
    at = 2
    for _ in range(_MOST_SEGMENTS):
        if not data.startswith(b"\xff", at) or at + 5 > len(data):
            return None
        marker, bits = data[at + 1], data[at + 4]
        if marker == _JPEG_LS:
            return Foreign("a JPEG-LS picture", _EXPORT)
        if marker in _FRAMES:
            what = f"a JPEG of {bits} bits per sample"
            return None if bits == 8 else Foreign(what, "export it as PNG, TIFF or JPEG of 8 bits")
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _text(beginning: bytes) -> Foreign | None:
    if _SVG.match(beginning):
        return Foreign("a drawing (SVG)", "export it as PNG")
    if _HTML.match(beginning):
        return Foreign("a web page (HTML)", _SAVE)
    if _XBM.match(beginning):
        return Foreign("an XBM picture", _EXPORT)
    if _XML.match(beginning):
        return Foreign("an XML text", "send the picture itself")
    if _JSON.match(beginning):
        return Foreign("a JSON text", "send the bytes of the picture")
    return None
