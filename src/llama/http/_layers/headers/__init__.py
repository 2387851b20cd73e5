"""Layers that set, add, remove and require header fields."""
