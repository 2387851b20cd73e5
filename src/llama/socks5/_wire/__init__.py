"""SOCKS4, SOCKS5 and their addresses as bytes."""
