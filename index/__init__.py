"""From embeddings to neighbours, durably. Imports neither torch nor the other packages.

`contract` defines what a store offers; `local` and `milvus` implement it; `ann` searches with
FAISS; `ranking` works on any of them; `blobs` stores added pictures. No picture is decoded here.
"""
