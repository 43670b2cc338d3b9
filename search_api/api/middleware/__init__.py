"""Layers around every request: its log line, errors, API key and the limits on its body.

Nothing here knows a route, except by its path; who may do what is in `search_api.api.access`.
"""
