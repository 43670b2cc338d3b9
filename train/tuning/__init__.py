"""Searches for better recipes with Optuna, and reports the study.

The only folder of ``train`` that imports Optuna. A single run belongs to ``train.loop``.
"""
