"""``python -m bench compare``: this engine beside every peer that is installed, on the same data in one run."""
