"""The store on Milvus, for corpora and servers beyond one machine: vectors, fields, generations.

All knowledge of Milvus is here. Only `connection` imports `pymilvus`, and only when a store is
opened. `docs/milvus.md` explains how the parts work together.
"""
