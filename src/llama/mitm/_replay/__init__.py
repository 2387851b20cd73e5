"""Replay of recordings, as a server and as a client."""
