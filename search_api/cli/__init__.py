"""The `lookalike` command, with a module for each group of commands.

Help texts, console output and exit codes belong here; the work itself is in `search_api.service`,
`search_api.offline` and `train`.
"""
