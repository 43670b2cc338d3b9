"""`make bench` and `make bench-check`: the frame that runs benchmarks and keeps their tables.

No benchmark measures anything here; `parts` names the functions of those that are run.
"""
