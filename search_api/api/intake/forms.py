"""Forms as Starlette reads them, and what it passes over: a missing end, RFC 5987's file names."""

from __future__ import annotations

from email.message import Message
from typing import Any

from fastapi import HTTPException, Request
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException, MultiPartParser

from search_api.api.errors import Problem
from search_api.api.intake import uploads
from search_api.text import shortened

_NOT_PARSED = "Invalid multipart data."


async def whole_form(request: Request, **limits: Any) -> FormData:
    """The fields of a ``multipart/form-data`` body.

    Raises:
        Problem: 400 for a body that is none, or that ends before its form does: its last field
            would be lost.
            Also 422 for text in another encoding than the form's.
        HTTPException: 400 for a form beyond the limits.
    """
    parser = _Parser(request.headers, request.stream(), **limits)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message != _NOT_PARSED:
            raise HTTPException(400, error.message) from error
        raise Problem(
            400,
            "bad-request",
            "the body cannot be read as a form with the boundary that its Content-Type names; leave"
            " that header out: the client that builds the form sets it, and a picture needs none",
        ) from error
    if parser.begun and not parser.ended:
        await form.close()
        raise Problem(
            400,
            "bad-request",
            "the form ends before its last boundary, so something of it is missing; send it again,"
            " and leave the Content-Length to the client that builds the form",
        )
    return form


class _Parser(MultiPartParser):
    """Tells whether the form was whole, and reads a ``filename*``, which older clients send."""

    begun = ended = False

    def on_part_begin(self) -> None:
        self.begun = True
        super().on_part_begin()

    def on_end(self) -> None:
        self.ended = True

    def on_part_end(self) -> None:
        part = self._current_part
        if part.file is None:
            uploads.check_encoding(shortened(part.field_name, 50), bytes(part.data), self._charset)
        super().on_part_end()

    def on_headers_finished(self) -> None:
        disposition = self._current_part.content_disposition or b""
        if b"filename" not in parse_options_header(disposition)[1]:
            header = Message()
            header["Content-Disposition"] = disposition.decode("latin-1")
            if (name := header.get_filename()) is not None:
                quoted = name.replace("\\", "\\\\").replace('"', '\\"').encode(errors="replace")
                self._current_part.content_disposition = disposition + b'; filename="%b"' % quoted
        super().on_headers_finished()
