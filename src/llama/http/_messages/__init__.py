"""Requests, responses, headers and bodies of any HTTP version."""
