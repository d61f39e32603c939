"""Data: typed records, cleaning, deduplication, splits, token shards, packing."""
