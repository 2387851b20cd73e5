"""Programs on llama that the benchmarks start where no command does the same."""
