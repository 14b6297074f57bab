"""Mutational fuzzers: ``python -m tests.fuzz --minutes 60``; see ``__main__``."""
