"""Random sequences of all operations, kills, damage and races, against a model in memory.

Here belong the model, the two servers and what is found; attacks of one kind each stand above.
"""
