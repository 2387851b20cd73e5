"""Recording of exchanges and WebSockets while they pass."""
