"""The channel layer: what an application holds, and what each node does for it."""
