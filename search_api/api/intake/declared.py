"""What each route of an app declares: its methods and its bodies, by path."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from fastapi import FastAPI, params
from fastapi.routing import iter_route_contexts
from starlette.routing import BaseRoute


class Bodies(NamedTuple):
    """The bodies that a route declares."""

    json: bool = False
    form: bool = False
    image: bool = False


class RouteTable:
    """The routes of an app by method and path."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._exact: dict[tuple[str, str], Bodies] = {}
        self._patterns: list[tuple[str, re.Pattern[str], Bodies]] = []
        for route in iter_route_contexts(list(routes)):
            # What has no methods is a mounted folder of files.
            for method in sorted(getattr(route, "methods", None) or ("GET",)):
                if getattr(route, "methods", None) is None or "{" in str(route.path):
                    self._patterns.append((method, route.path_regex, declared_bodies(route)))
                else:
                    self._exact[method, str(route.path)] = declared_bodies(route)

    def bodies(self, method: str, path: str) -> Bodies | None:
        """What may be sent there; None if there is no such route."""
        found = self._exact.get((method, path))
        if found is not None:
            return found
        return next(
            (bodies for by, regex, bodies in self._patterns if by == method and regex.match(path)),
            None,
        )

    def methods(self, path: str) -> list[str]:
        """The methods that a path supports, sorted; HEAD wherever there is GET."""
        found = {method for method, exact in self._exact if exact == path}
        found |= {method for method, regex, _ in self._patterns if regex.match(path)}
        return sorted(found | ({"HEAD"} if "GET" in found else set()))


def route_table(app: FastAPI) -> RouteTable:
    """The table of an app, made at its first request: routes are added before that."""
    found: RouteTable | None = getattr(app.state, "route_table", None)
    if found is None:
        found = app.state.route_table = RouteTable(app.routes)
    return found


def declared_bodies(route: Any) -> Bodies:
    """The bodies of a route, from its parameters and its ``openapi_extra``."""
    field = getattr(route, "body_field", None)
    form = field is not None and isinstance(field.field_info, params.Form)
    extra = (getattr(route, "openapi_extra", None) or {}).get("requestBody", {})
    image = any(kind.startswith("image/") for kind in extra.get("content", ()))
    return Bodies(field is not None and not form, form, image)
