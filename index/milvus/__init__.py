"""The store on Milvus, for corpora and servers beyond one machine: vectors and payload beside them.

Everything that knows Milvus is in here; `pymilvus` is imported by `connection` alone, and only
when a store is opened. `docs/milvus.md` says how the parts work together.
"""
