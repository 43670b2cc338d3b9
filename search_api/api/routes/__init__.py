"""The HTTP routes, one module per subject. They parse, call the service and respond."""
