"""The relay between a client and its target, by coroutines, callbacks or splice."""
