"""What a store keeps and for how long: which picture an added one is, the trash, and quotas.

SQL and files are in `index`; when to look after them is decided in `search_api.jobs`.
"""
