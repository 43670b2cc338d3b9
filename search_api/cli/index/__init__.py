"""The group `lookalike index`: its commands, a module for each subject, and the build of an index.

What they do is in `search_api.service`; other groups of commands are one folder up.
"""
