"""What a store keeps and for how long: the trash, and the bytes of pictures that nobody needs.

SQL and files are in `index`; when to look after them is decided in `search_api.jobs`.
"""
