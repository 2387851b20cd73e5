"""Layers that choose a handler by the request and rewrite its path."""
