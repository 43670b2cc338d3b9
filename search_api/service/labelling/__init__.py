"""What a picture shows: the store's classes, their classifier and its fit, tags by vote.

Mathematics is in `embed.classifier` and `embed.novelty`; files are in `search_api.stores`.
"""
