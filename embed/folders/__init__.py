"""Folders of pictures: which files are taken, why the others are not, and what a layout means.

Reading the pictures themselves is `embed.decoding`; `embed.corpus` makes a corpus of a folder.
"""
