"""How `embed.pictures` decodes untrusted bytes: headers, what they cost, pixels, worker processes.

`header` reads what decoding will take without decoding anything, `signatures` names what is not
read, `pixels` decodes with Pillow, `workers` has that done by processes with a memory limit and a
deadline, whose program is `worker_main`. That program imports nothing heavy; what others use of
this is in `embed.pictures`.
"""
