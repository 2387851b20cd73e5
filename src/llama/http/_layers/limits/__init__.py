"""Layers that bound bodies, rates, concurrency and time."""
