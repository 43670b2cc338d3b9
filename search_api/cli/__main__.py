"""`python -m search_api.cli`, the same as `lookalike`."""

from __future__ import annotations

from search_api.cli.main import main

if __name__ == "__main__":
    main()
