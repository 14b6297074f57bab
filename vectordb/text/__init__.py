"""Keyword search: BM25 over the records' texts, in arrays that are mapped from files.

    analyzers   a text to its words: segmentation, case, stems
    build       texts to a ``TextIndex``: dictionary, postings, positions
    index       the immutable ``TextIndex`` over the rows of one segment or run
    merge       several of them as one, for sealing and merging
    files       one of them in a file that is mapped
    runs        texts that grow, for the tail
    query       what a user typed to units: words, ``prefix*``, ``"a phrase"``, ``fuzzy~1``
    match       the rows and frequencies of a unit in one index
    bm25        the one routine that scores

Why not a search library. A hit must score the same to the last bit before and after a merge, embedded and served, and a
write must show at once. tantivy (0.27, the one candidate with wheels) was tried for it. It finds documents only after a
commit and a reload. Its statistics count deleted documents until it merges by its own schedule: after 990 of 1,000
matches were deleted the others scored 0.693 as before, and 4.567 in an index made anew of the same documents. Lengths
are rounded to one byte and scores summed in single precision. And its Python binding filters by row only through a
term query over the numbers of the rows (0.7 us a row and query), without a collector of one's own. So postings are kept
here, a segment at a time, like those of the metadata: the query sums the document frequencies and lengths of the
*living* rows over its snapshot, and scores every candidate with them in double precision, rounded once. Which row
stands in which segment has no part in that.

Sources: S. Robertson, H. Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009; the inverse document
frequency that is never negative is Lucene's.
"""
