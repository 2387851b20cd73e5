"""The core: services, stacks, streams, tasks and errors; it imports nothing else of llama."""
