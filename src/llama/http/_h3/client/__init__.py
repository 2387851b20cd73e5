"""The HTTP/3 client: connections, pool, Alt-Svc."""
