"""Durable storage: the seam, RocksDB and memory behind it, key layout and value codecs."""
