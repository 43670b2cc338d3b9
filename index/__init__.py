"""Embeddings to neighbours: the index, its catalogue and its snapshots.

This package imports neither torch nor the other packages. The modules are the interface;
import from them directly, for example ``from index.local import ExactIndex``.
"""
