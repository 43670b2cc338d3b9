"""What runs a network: the protocol, OpenVINO, PyTorch, and the choice between them.

Nothing here decodes pictures, normalises embeddings or knows class names; see `embed.encoder`.
"""
