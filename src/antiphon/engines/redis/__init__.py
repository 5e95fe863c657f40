"""The engine of Redis and Valkey: one server, several as shards, Sentinel, cluster. Needs the extra ``redis``."""
