"""Optional parts of training, a module each, which a recipe turns on.

``train.setup`` and ``train.loop`` call them; they import neither, nor one another. What every run
needs belongs to ``train`` itself.
"""
