"""The HTTP/2 protocol and HPACK as bytes and events; no I/O."""
