"""A TLS reverse proxy: the command `pango`."""
