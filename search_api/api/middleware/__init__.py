"""Layers around every request: its log line, errors, API key and the limits on its body."""
