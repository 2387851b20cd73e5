"""The HTTP/3 server: UDP endpoint, connections, streams, migration."""
