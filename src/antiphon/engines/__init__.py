"""What carries bytes between processes: one package an engine."""
