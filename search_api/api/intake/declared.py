"""What each route of an app declares: its methods, parameters and bodies."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, get_origin

from fastapi import FastAPI, params
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel
from starlette.routing import BaseRoute


class Bodies(NamedTuple):
    """The bodies that a route takes: JSON, a form, a picture in place of a form of one picture."""

    json: bool = False
    form: bool = False
    image: bool = False


@dataclass(frozen=True)
class Parameters:
    """What a route takes, each name with whether it may be given several times.

    Attributes:
        query: of the query string.
        texts: text fields of its form.
        files: fields of its form that are files.
        members: of its JSON body.
        json: whether it has a JSON body.
    """

    query: dict[str, bool] = field(default_factory=dict)
    texts: dict[str, bool] = field(default_factory=dict)
    files: dict[str, bool] = field(default_factory=dict)
    members: tuple[str, ...] = ()
    json: bool = False

    @property
    def bodies(self) -> Bodies:
        """The bodies that follow from it."""
        return Bodies(self.json, bool(self.texts or self.files), len(self.files) == 1)


class RouteTable:
    """The routes of an app by method and path."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._exact: dict[tuple[str, str], Bodies] = {}
        self._patterns: list[tuple[str, re.Pattern[str], Bodies]] = []
        for route in iter_route_contexts(list(routes)):
            bodies = parameters(route).bodies
            # What has no methods is a mounted folder of files.
            for method in sorted(getattr(route, "methods", None) or ("GET",)):
                if getattr(route, "methods", None) is None or "{" in str(route.path):
                    self._patterns.append((method, route.path_regex, bodies))
                else:
                    self._exact[method, str(route.path)] = bodies

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


def parameters(route: Any) -> Parameters:
    """What a route declares, its dependencies included; nothing for what is not FastAPI's."""
    dependant = getattr(route, "dependant", None)
    if dependant is None:
        return Parameters()
    query = {
        name: several
        for one in _all(dependant)
        for param in one.query_params
        for name, several in _names(param)
    }
    body = route.body_field
    if body is None:
        return Parameters(query)
    model: type[BaseModel] = body.field_info.annotation
    if not isinstance(body.field_info, params.Form):
        return Parameters(query, members=_members(model), json=True)
    texts: dict[str, bool] = {}
    files: dict[str, bool] = {}
    for name, info in model.model_fields.items():
        of_kind = files if isinstance(info, params.File) else texts
        of_kind[info.alias or name] = _several(info.annotation)
    return Parameters(query, texts, files)


def _all(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for inner in dependant.dependencies:
        yield from _all(inner)


def _names(param: Any) -> Iterator[tuple[str, bool]]:
    """The names of a parameter of the query string; several if it is a model of them."""
    annotation = param.field_info.annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, info in annotation.model_fields.items():
            yield info.alias or name, _several(info.annotation)
    else:
        yield param.alias, _several(annotation)


def _several(annotation: Any) -> bool:
    return get_origin(annotation) is list


def _members(annotation: Any) -> tuple[str, ...]:
    """The members of a model, which may be optional."""
    for model in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(model, type) and issubclass(model, BaseModel):
            return tuple(info.alias or name for name, info in model.model_fields.items())
    return ()
