"""Scripts for developing Lookalike. Nothing here is part of the installed packages."""
