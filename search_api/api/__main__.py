"""Print the OpenAPI document: `python -m search_api.api > docs/openapi.json`."""

from __future__ import annotations

import json

from search_api.api.app import bare_app

if __name__ == "__main__":
    print(json.dumps(bare_app().openapi(), indent=1, ensure_ascii=False))
