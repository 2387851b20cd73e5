"""Layers that answer in place of the upstream or disturb its answers."""
