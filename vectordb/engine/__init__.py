"""The engine: one folder, one owner, every operation of ``vectordb.requests.Backend``."""
