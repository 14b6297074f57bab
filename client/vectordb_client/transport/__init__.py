"""Transports: what carries requests (``vectordb.requests``) to an engine in this process or to a server."""
