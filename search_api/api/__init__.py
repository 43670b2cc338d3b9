"""The HTTP API: routes, middleware, parameters, responses, errors and the server.

What a request does is in `search_api.service`; nothing here depends on how a store works.
"""
