"""From files to documents: which files there are, how they are read, and what was wrong with the others."""

from vectordb_client.rag.documents.formats import SUFFIXES, parse_file
from vectordb_client.rag.documents.sources import FileSource, Sources, find_sources
from vectordb_client.rag.documents.text import Unreadable

__all__ = ["SUFFIXES", "FileSource", "Sources", "Unreadable", "find_sources", "parse_file"]
