"""A picture in, class probabilities and an embedding out. Imports none of the other packages."""
