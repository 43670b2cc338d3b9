"""Where the corpus's pictures come from: the stamps of their files, and other sources for them.

SQL inside the caller's transaction; the corpus itself is read in `search_api.service`.
"""
