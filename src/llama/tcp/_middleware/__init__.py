"""Middleware for TCP connections: limits, timeouts, throttling, counters."""
