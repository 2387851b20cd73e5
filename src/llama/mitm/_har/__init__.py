"""HAR 1.2 documents."""
