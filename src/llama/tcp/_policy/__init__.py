"""Which clients and targets are allowed: networks, patterns, address filters."""
