"""Bundles of other people's networks: import from timm and torchvision, the photo encoder, fitting.

The networks themselves are in `embed.backbones`, below the bundle; what is here makes bundles.
"""
