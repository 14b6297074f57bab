"""Sealed segments and the tail: the rebuildable, searchable copy of the rows that storage holds."""
