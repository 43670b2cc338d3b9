"""Approximate and exact nearest-neighbour search with FAISS: kinds, building, tuning, searching.

No catalogues, generations or files of a store belong here; those are in `index.local`.
"""
