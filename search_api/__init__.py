"""What people and programs talk to: the HTTP API, the page, the client and the command line.

Here: what several of its folders share, such as settings, keys and which exception is which
problem. Embedding pictures is in `embed`, storing and searching embeddings in `index`.
"""
