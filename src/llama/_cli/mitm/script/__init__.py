"""Scripts of `llama mitm`, loaded again when they change."""
