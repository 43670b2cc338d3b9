"""What a picture shows: the store's classes, their classifier and its fit, tags by vote.

Mathematics is in `embed.classes`; files are in `search_api.stores`.
"""
