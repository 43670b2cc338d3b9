"""Opens a store and its model from settings; the only code that chooses a store's engine.

No searching and no HTTP: those are in `search_api.service` and `search_api.api`.
"""
