"""Static files: conditions, ranges, directory listings."""
