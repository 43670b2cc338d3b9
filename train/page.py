"""Renders a template as one self-contained HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2


def render(template: Path, **values: Any) -> str:
    """The HTML page that ``template`` makes of ``values``; it can include ``style.css``."""
    folders = [template.parent, Path(__file__).parent / "templates"]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folders),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share: f"{share:.2%}"
    return environment.get_template(template.name).render(values)
