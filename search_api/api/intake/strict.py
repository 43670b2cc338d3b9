"""Routes that take what they declare and refuse the rest: a misspelt name is not ignored."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, QueryParams, UploadFile

from index.contract import ReadOnlyError
from search_api.api.access import needed
from search_api.api.errors import Problem
from search_api.api.intake import uploads
from search_api.api.intake.declared import Parameters, parameters
from search_api.api.intake.forms import whole_form
from search_api.keys import Level
from search_api.text import members, shortened, unknown_name

Item = tuple[str, Any]
_JSON = re.compile(r"application/(?:json|.+\+json)")
_NO_BODY = (b"", b"{}", b"null")


class StrictRoute(APIRoute):
    """A route that refuses parameters, fields and members that it does not declare.

    Where it takes a form, each of its parameters may be in the query string or in the form; and
    where the form has one field for pictures, the picture may be the whole body.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's, with the request checked before and errors explained."""
        handler = super().get_route_handler()
        takes = parameters(self)

        async def checked(request: Request) -> Response:
            _check_writable(request)
            strict = _StrictRequest(request.scope, request.receive, takes)
            if not any(takes.bodies) and has_body(request.method, request.scope["headers"]):
                await strict.check_no_body()
            try:
                return await handler(strict)
            except RequestValidationError as error:
                for one in error.errors():
                    if one["type"] == "extra_forbidden" and len(one["loc"]) == 2:
                        one["msg"] = unknown_name("member", str(one["loc"][1]), takes.members)
                raise

        return checked


class _StrictRequest(Request):
    """A request whose parameters are checked against what its route takes."""

    def __init__(self, scope: Any, receive: Any, takes: Parameters) -> None:
        super().__init__(scope, receive)
        self._takes = takes
        self._form_items: list[Item] | None = None
        known = {**takes.query, **takes.texts}
        self._query = QueryParams(scope["query_string"])
        given = self._query.multi_items()
        if given:
            uploads.check_encoding("the query string", unquote_to_bytes(scope["query_string"]))
            _check_names("parameter", given, known, self._elsewhere)
            _check_several(given, known)

    @property
    def query_params(self) -> QueryParams:
        """Those of the query string, and those that the form has."""
        return self._query

    async def form(self, **limits: Any) -> FormData:  # type: ignore[override]
        """The form, checked; a picture as the body is a form of one field.

        Raises:
            Problem: it is none, or has something that the route does not take.
        """
        if self._form_items is None:
            items = await self._items(limits)
            try:
                self._check(items)
                self._form_items = self._merged(items)
            except BaseException:
                await FormData(items).close()
                raise
        return FormData(self._form_items)

    async def body(self) -> bytes:
        """The body; where JSON is expected, only as JSON.

        Raises:
            Problem: it is called something else.
        """
        data = await super().body()
        kind, _ = self._kind()
        if self._takes.json and data and not _JSON.fullmatch(kind):
            raise Problem(
                415,
                "not-json",
                f"the Content-Type is {shortened(kind, 50) or 'missing'}; this path takes JSON:"
                " with curl, -H 'content-type: application/json' -d '{…}'",
            )
        return data

    async def json(self) -> Any:
        """The JSON of the body.

        Raises:
            Problem: an object has a member twice, of which only one would count.
        """
        return json.loads(await self.body(), object_pairs_hook=_object)

    async def check_no_body(self) -> None:
        """Refuse a body where none is taken: what it says would be ignored."""
        if (await self.body()).strip() not in _NO_BODY:
            where = "in the query string" if self._takes.query else "in the path"
            names = ", ".join(sorted(self._takes.query)) or "none"
            raise Problem(
                422,
                "unexpected-body",
                f"{self.method} {shortened(self.scope['path'])} takes no body; parameters are sent"
                f" {where}; expected {names}",
            )

    def _kind(self) -> tuple[str, Mapping[bytes, bytes]]:
        kind, options = parse_options_header(self.headers.get("content-type"))
        return kind.decode("latin-1").lower(), options

    async def _items(self, limits: Mapping[str, Any]) -> list[Item]:
        """The fields of the body, whatever it is called."""
        kind, options = self._kind()
        if kind == "multipart/form-data":
            if not options.get(b"boundary"):
                raise uploads.without_boundary()
            return (await whole_form(self, **limits)).multi_items()
        data = await self.body()
        if not data and not kind.startswith("image/"):
            return []
        files = list(self._takes.files)
        form = data.startswith(b"--") and b"form-data" in data[:1000].lower()
        picture = uploads.is_picture(data) or (kind.startswith("image/") and not form)
        if picture and not uploads.is_stripped(data):
            if len(files) != 1:
                raise uploads.which_field(files)
            return [(files[0], UploadFile(io.BytesIO(data), size=len(data)))]
        if kind == "application/x-www-form-urlencoded" and uploads.is_urlencoded(data):
            return (await super().form(**limits)).multi_items()
        raise uploads.not_a_picture(data, kind, files)

    def _check(self, items: list[Item]) -> None:
        takes = self._takes
        known = {**takes.files, **takes.texts, **takes.query}
        _check_names("field", items, known, self._only_file)
        for name, value in items:
            if name in takes.files and isinstance(value, str):
                raise uploads.not_a_file(name, value)
            if isinstance(value, UploadFile):
                if name not in takes.files:
                    raise uploads.not_text(name)
                uploads.check_part(name, value)
        _check_several(items, known)

    def _merged(self, items: list[Item]) -> list[Item]:
        """The fields that the route takes; each parameter may be in the query string or here."""
        given = self._query.multi_items()
        for name in {name for name, _ in given} & {name for name, _ in items}:
            there, here = ([v for n, v in where if n == name] for where in (given, items))
            if there != here:
                raise Problem(
                    422,
                    "conflicting-parameter",
                    f"{name} is {_shown(there)} in the query string and {_shown(here)} in the form;"
                    " send it once",
                )
        fields = {**self._takes.texts, **self._takes.files}
        sent = {name for name, _ in items}
        merged = {name for name, _ in given}
        self._query = QueryParams(
            [(n, v) for n, v in given if n in self._takes.query]
            + [(n, v) for n, v in items if n not in fields and n not in merged]
        )
        return [(n, v) for n, v in items if n in fields] + [
            (n, v) for n, v in given if n in fields and n not in sent
        ]

    def _elsewhere(self, name: str, _: Any) -> str | None:
        """Where a name belongs that is not one of a parameter."""
        if name in self._takes.files:
            return f"{name} is a file, which is sent as a field of a form: -F {name}=@cat.jpg"
        if name in self._takes.members:
            return f"{name} is a member of the JSON body, not a parameter of the query string"
        return None

    def _only_file(self, name: str, value: Any) -> str | None:
        """Names the only field for files, if a file was sent in an unknown one."""
        if not isinstance(value, UploadFile):
            return None
        files = list(self._takes.files)
        known = [*files, *self._takes.texts, *self._takes.query]
        return unknown_name("field", name, known, files[0] if len(files) == 1 else None)


def has_body(method: str, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a request may have a body; with GET, few have."""
    return method != "GET" or any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in headers
    )


def _check_writable(request: Request) -> None:
    """Refuse what would change a store that can only be read, before anything is read of it."""
    context = getattr(request.app.state, "context", None)
    if context is None or not context.engine.store.read_only:
        return
    if needed(request.method, request.scope["path"]) is Level.WRITE:
        raise ReadOnlyError(
            "the store of this server is read-only: it can be searched, but nothing in it changed;"
            " send changes to a server that can write to the store"
        )


def _check_names(
    kind: str,
    given: Iterable[Item],
    known: Collection[str],
    explain: Callable[[str, Any], str | None],
) -> None:
    errors = {
        name: explain(name, value) or unknown_name(kind, name, known)
        for name, value in given
        if name not in known
    }
    if errors:
        where = "query" if kind == "parameter" else "body"
        raise Problem(
            422,
            f"unknown-{kind}",
            "; ".join(list(errors.values())[:5]),
            errors=[
                {"in": f"{where}.{shortened(name, 50)}", "message": message}
                for name, message in list(errors.items())[:20]
            ],
        )


def _check_several(given: Iterable[Item], several: Mapping[str, bool]) -> None:
    found = Counter(name for name, _ in given)
    files = {name for name, value in given if isinstance(value, UploadFile)}
    for name, times in found.items():
        if times > 1 and not several[name]:
            detail = f"{name} was sent {times} times; send it once"
            if name in files:
                detail += ": one picture. /v1/search/batch takes several, in the fields `images`"
            raise Problem(422, "repeated-parameter", detail)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    try:
        return members(pairs)
    except ValueError as error:
        raise Problem(422, "repeated-parameter", str(error)) from error


def _shown(values: list[Any]) -> str:
    return shortened(", ".join(repr(value) for value in values), 50)
