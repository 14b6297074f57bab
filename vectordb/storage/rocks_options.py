"""How RocksDB is set up: what it may take of memory, how it compacts, and what must never be lost in silence."""

from __future__ import annotations

from typing import NamedTuple

import rocksdict

from vectordb.storage.base import Family

MIB = 1 << 20
DEFAULT_CACHE_BYTES = 64 * MIB
WRITE_BUFFER_BYTES = 64 * MIB
"""All memtables of all families together; about so much is replayed from the WAL after a crash."""
MAX_WAL_BYTES = 128 * MIB
BACKGROUND_JOBS = 2


class Sizes(NamedTuple):
    """Bytes of memory that RocksDB may take: for its block cache, and for all memtables together."""

    cache_bytes: int = DEFAULT_CACHE_BYTES
    buffer_bytes: int = WRITE_BUFFER_BYTES


def _table(cache: rocksdict.Cache, block_bytes: int) -> rocksdict.BlockBasedOptions:
    table = rocksdict.BlockBasedOptions()
    table.set_block_cache(cache)
    table.set_block_size(block_bytes)
    table.set_bloom_filter(10, False)
    # Inside the bounded cache, so that memory does not grow with the number of files.
    table.set_cache_index_and_filter_blocks(True)
    table.set_pin_l0_filter_and_index_blocks_in_cache(True)
    table.set_format_version(5)
    table.set_checksum_type(rocksdict.ChecksumType.xxh3())
    return table


def common(create: bool, buffer_bytes: int) -> rocksdict.Options:
    options = rocksdict.Options(raw_mode=True)
    options.create_if_missing(create)
    # Always: a kill while the folder was being created may have left it without some.
    options.create_missing_column_families(True)
    options.set_wal_recovery_mode(rocksdict.DBRecoveryMode.tolerate_corrupted_tail_records())
    options.set_atomic_flush(True)
    options.set_db_write_buffer_size(buffer_bytes)
    options.set_max_total_wal_size(MAX_WAL_BYTES)
    options.set_max_background_jobs(BACKGROUND_JOBS)
    options.set_bytes_per_sync(MIB)
    options.set_level_compaction_dynamic_level_bytes(True)
    # Stops, never slow-downs: under no_slowdown a delay refuses like a stop and each retry would lengthen it.
    options.set_level_zero_file_num_compaction_trigger(4)
    options.set_level_zero_slowdown_writes_trigger(24)
    options.set_level_zero_stop_writes_trigger(24)
    options.set_soft_pending_compaction_bytes_limit(256 << 30)
    options.set_hard_pending_compaction_bytes_limit(256 << 30)
    options.set_max_write_buffer_number(3)
    options.set_manifest_preallocation_size(64 * 1024)
    # Begun anew by every flush and compaction: a manifest keeps the first and last key of each file there ever was, and
    # so would keep ids of erased records (``rocks_erase.py``). It is about 200 bytes a file.
    options.set_max_manifest_file_size(1)
    options.set_keep_log_file_num(4)
    options.set_max_log_file_size(4 * MIB)
    options.set_stats_dump_period_sec(0)
    options.set_stats_persist_period_sec(0)
    return options


def family_options(family: Family, cache: rocksdict.Cache, create: bool, buffer_bytes: int) -> rocksdict.Options:
    options = common(create, buffer_bytes)
    if family is Family.VECTORS:
        # float32 does not compress; keys only ever grow, so files move down the levels without being rewritten.
        options.set_compression_type(rocksdict.DBCompressionType.none())
        options.set_block_based_table_factory(_table(cache, 16 * 1024))
    else:
        options.set_compression_type(rocksdict.DBCompressionType.lz4())
        options.set_block_based_table_factory(_table(cache, (8 if family is Family.ROWS else 4) * 1024))
    if family is Family.ROWS:
        options.set_bottommost_compression_type(rocksdict.DBCompressionType.zstd())
    if family is not Family.META:
        # Asked almost only for keys that exist: no filters where nearly all data lies.
        options.set_optimize_filters_for_hits(True)
    options.set_write_buffer_size(buffer_bytes // 2)
    return options
