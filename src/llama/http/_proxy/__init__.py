"""Forward and reverse proxies, forwarded headers, CONNECT through other proxies."""
