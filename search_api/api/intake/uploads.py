"""Pictures that were not sent as they should be: what was sent instead, in the sender's words."""

from __future__ import annotations

import re

from starlette.datastructures import UploadFile

from embed.decoding.header import read_header
from embed.decoding.signatures import recognise
from embed.pictures import PictureError
from search_api.api.errors import Problem
from search_api.text import shortened

_FILE_NAME = re.compile(r"[\w ./\\:~-]{1,100}\.\w{2,5}", re.ASCII)
_URL = re.compile(r"(?:https?|ftp|file|s3|gs)://", re.IGNORECASE)
# How the bytes of a JPEG, PNG, GIF, WebP, TIFF, BMP, HEIC and AVIF begin in base64.
_BASE64 = re.compile(
    r"(?:/9j/|iVBORw0KGgo|R0lGOD|UklGR|SUkq|TU0AK|Qk[01]|AAAA..Z0eX)[A-Za-z0-9+/=\s]*"
)
_START = 1000
_SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM", b"II*", b"MM*")
_SHORT = 50


def is_picture(data: bytes) -> bool:
    """Whether bytes begin as a picture does, whatever they were called."""
    try:
        return read_header(data) is not None
    except PictureError:
        return True


def is_stripped(data: bytes) -> bool:
    """Whether a picture lacks every line end and NUL: curl's -d removes them."""
    found = data.startswith(_SIGNATURES) and len(data) > _SHORT
    return found and not any(byte in data for byte in (b"\0", b"\n", b"\r"))


def is_urlencoded(data: bytes) -> bool:
    """Whether a body is a form in the older notation, and not only called one, as curl does."""
    text = data.decode("latin-1").strip()
    printable = text.isascii() and text.isprintable() and not text.startswith(("{", "["))
    return printable and "=" in text and _what_text(text) is None


def not_a_file(field: str, text: str) -> Problem:
    """The problem of text in a field for a file."""
    what = _what_text(text)
    name = text if what is None and _FILE_NAME.fullmatch(text) else "cat.jpg"
    how = f"with curl, -F {field}=@{name}"
    if what is None:
        shown = f"the text {shortened(text, 50)!r}" if text.isprintable() and text else "text"
        what = f"{shown}, not a file"
        if not text.isprintable():
            how += "; a client that sends the bytes must give the field a file name"
    return Problem(422, "not-a-file", f"{field} is {what}; send the file itself: {how}")


def not_text(field: str) -> Problem:
    """The problem of a file in a field for text."""
    return Problem(
        422,
        "not-text",
        f"{field} is a file; expected text: with curl, -F '{field}=…', or -F '{field}=<FILE' for"
        " what a file contains",
    )


def check_encoding(what: str, data: bytes, encoding: str = "utf-8") -> None:
    """Refuse text in another encoding: it would be stored, or compared, as other characters.

    Raises:
        Problem: 422 with the first byte that is wrong.
    """
    try:
        data.decode(encoding)
    except (UnicodeError, LookupError) as error:
        where = ""
        if isinstance(error, UnicodeDecodeError):
            where = f": its byte {error.start:,} is 0x{data[error.start]:02X}"
        raise Problem(
            422,
            "not-text",
            f"{what} is not text in {encoding.upper()}{where}; send UTF-8, whatever the terminal or"
            " the program uses",
        ) from error


def check_part(field: str, file: UploadFile) -> None:
    """Refuse a file that is itself encoded, which forms have not been since RFC 7578.

    Raises:
        Problem: 415 with the encoding.
    """
    for header in ("content-transfer-encoding", "content-encoding"):
        coding = file.headers.get(header, "").strip().lower()
        if coding not in ("", "binary", "8bit", "7bit", "identity"):
            raise Problem(
                415,
                "unsupported-encoding",
                f"the file in {field} is encoded as {shortened(coding, 30)!r} ({header}); send its"
                " bytes as they are",
            )


def not_a_picture(data: bytes, kind: str, fields: list[str]) -> Problem:
    """The problem of a body that is neither a form nor a picture."""
    start = data[:_START]
    text = start.decode("latin-1").strip()
    what = _what_text(text.strip('"'))
    if what is not None:
        what = f"the body is {what}"
    elif text.startswith(("{", "[")):
        what = "the body is JSON, of which this path takes none: base64 has to be decoded first,"
        what += " and a URL is not fetched"
    elif start.startswith(b"--") and b"form-data" in start.lower():
        what = f"the body is a form, but its Content-Type is {kind}; let the client set that header"
    elif is_stripped(data):
        what = "the body is a picture without its line ends and NULs, which curl's -d removes"
    elif (found := recognise(data)) is not None:
        return Problem(
            415,
            "not-a-picture",
            f"the body ({len(data):,} bytes) is {found.what}, which is not read; {found.advice}",
        )
    else:
        called = f" ({kind})" if kind else ""
        what = f"the {len(data):,} bytes of the body{called} are neither a form nor a picture in a"
        what += " known format"
    how = f"send the file as a field of a form: with curl, -F {fields[0]}=@cat.jpg"
    if len(fields) == 1:
        how += ", or its bytes as the body: --data-binary @cat.jpg"
    return Problem(415, "not-a-picture", f"{what}; {how}")


def which_field(fields: list[str]) -> Problem:
    """The problem of a picture as the body where there are several fields for files."""
    return Problem(
        415,
        "not-a-form",
        f"the body is a picture; this path takes pictures in the fields {' and '.join(fields)} of"
        f" a form: with curl, -F {fields[0]}=@cat.jpg",
    )


def without_boundary() -> Problem:
    """The problem of a form that cannot be taken apart."""
    return Problem(
        400,
        "bad-request",
        "the Content-Type is multipart/form-data without a boundary, so the form cannot be read;"
        " leave the header out: the client that builds the form sets it",
    )


def _what_text(text: str) -> str | None:
    """What a text is that stands for a picture; None for any other."""
    if _URL.match(text):
        return "a URL, and this server fetches none"
    if text[:5].lower() == "data:":
        return "a data: URL, which has to be decoded first"
    if _BASE64.fullmatch(text):
        return "base64, which has to be decoded first"
    return None
