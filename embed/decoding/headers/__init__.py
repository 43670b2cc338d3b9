"""What the header of a format says that decoding takes, a module for each kind of format.

`embed.decoding.header` asks them; they decode nothing and know no limits. ``boxes`` and
``coded_size`` are what several of them have in common.
"""
