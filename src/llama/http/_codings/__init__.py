"""Content codings and other transformations of bodies."""
