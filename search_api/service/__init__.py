"""What needs an encoder and a store: searching, recommending, ingesting, rebuilding, tagging.

No HTTP and no command line: `search_api.api` and `search_api.cli` call this package.
"""
