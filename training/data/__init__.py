"""Sample order, shard reading and packing: pure functions of the global position."""
