"""Trains a model on a data set: pictures in, a bundle out. Imports embed only.

Here: the recipe, the data, and one training run from set-up to bundle. What only some recipes use
goes to ``extras``, measuring a model to ``evaluation``, searching for better recipes to ``tuning``.
"""
