"""What HTTP looks like as bytes: bytes in, messages out, no input or output."""
