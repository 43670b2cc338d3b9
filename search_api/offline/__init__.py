"""What only the command line does with files: shards of a corpus, tables of tags, sidecar files.

No options and no console output: those are in `search_api.cli`.
"""
