"""Work that outlives a request: jobs, the job store, the worker process, automatic compaction.

What a job does to a store is in `search_api.service`; the HTTP routes are in `search_api.api`.
"""
