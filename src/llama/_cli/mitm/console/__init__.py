"""The live view of `llama mitm`."""
