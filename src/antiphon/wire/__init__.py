"""Pure state machines and tables of the wire: no await, no socket."""
