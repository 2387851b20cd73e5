"""Load generators, each a process: it connects, says `ready`, waits for a line, works, says what it did."""
