"""Measures this engine, embedded and served, beside the bare libraries under it. Run ``python -m bench --help``."""
