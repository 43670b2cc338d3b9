"""What people and programs talk to: the HTTP API, the page, the client and the command line."""
