"""Backups: every file once, by its content, in a folder or behind any fsspec URL."""
