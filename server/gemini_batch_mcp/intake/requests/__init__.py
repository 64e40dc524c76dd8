"""Request files: lines read, mended, keyed, copied, selected and cut into shards."""
