"""The HTTP routes, a module for each subject. They parse, call the service and respond.

What several routes parse is in `search_api.api.params`, how they respond in `.responses`.
"""
