"""Sockets on an event loop: readiness, streams, dialling, binding."""
