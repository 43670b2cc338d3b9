"""The modules of the page import one another in one direction, with app.js on top."""

import re
from graphlib import TopologicalSorter
from pathlib import Path

import search_api

WEB = Path(search_api.__file__).parent / "web"
IMPORT = re.compile(r'^(?:import |\} from |export ).*?"\./([^"]+)";$', re.MULTILINE)


def imports() -> dict[str, set[str]]:
    return {path.name: set(IMPORT.findall(path.read_text())) for path in WEB.glob("*.js")}


def test_no_import_cycle() -> None:
    order = list(TopologicalSorter(imports()).static_order())  # raises CycleError
    assert order[-1] == "app.js"


def test_every_module_is_imported_and_exists() -> None:
    graph = imports()
    assert set().union(*graph.values()) == set(graph) - {"app.js"}
