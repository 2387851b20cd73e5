"""The command `llama mitm`."""
