"""Layers that compress, decompress and transform bodies."""
