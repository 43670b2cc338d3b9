"""What became of a corpus since it was indexed: what is new, changed, moved, gone, or out of reach.

Nothing is embedded here; `search_api.service.corpus_sync` does that.
"""
