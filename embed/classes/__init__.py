"""From embeddings to classes: a classifier fitted to labels, and what is unlike all that is stored.

Pure functions of arrays: nothing here runs a network, reads a store or imports torch.
"""
