"""A data set in, a bundle and a report out. Imports embed only."""
