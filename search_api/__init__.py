"""What people and programs talk to: the engine, the HTTP API, the page and the command line."""
