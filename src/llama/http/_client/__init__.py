"""The HTTP client and its connection pool."""
