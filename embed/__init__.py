"""A picture in, class probabilities and an embedding out. Imports none of the other packages.

Corpora, decoding, preprocessing, networks, bundles and the encoder belong here. Training is in
`train`, storing and searching embeddings in `index`; nothing here knows HTTP or the command line.
"""
