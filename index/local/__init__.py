"""The store on one machine: a SQLite catalogue, FAISS generations, snapshots, locks.

All SQL is here. The same contract over Milvus is in `index.milvus`; neither imports the other.
"""
