"""Index kinds: the plug-in seam, the registry, and the built-in kinds ``flat`` (exact) and ``hnsw`` (graph).

Useful for: adding an index kind, tuning recall, exact distances over blocks of vectors. Not useful for: ids, filters
or scores; this room knows positions of one vector matrix and nothing else.
"""
