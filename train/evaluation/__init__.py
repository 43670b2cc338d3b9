"""Measures a trained model and reports the results: metrics, search, inspection, the HTML report.

Knows nothing of training but the data. Metrics work on plain arrays, without a network.
"""
