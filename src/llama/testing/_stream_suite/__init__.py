"""The conformance suite for streams."""
