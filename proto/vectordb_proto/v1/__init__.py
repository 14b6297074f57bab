"""Package ``vectordb.v1``: run ``python proto/generate.py`` after a change of a .proto file."""
