"""The Centrifuge client protocol, version 2, JSON: tables, commands, replies, one connection's state. Does no I/O."""
