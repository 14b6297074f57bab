"""Metadata as postings: from a filter to the set of rows that meet it, without a loop over rows."""
