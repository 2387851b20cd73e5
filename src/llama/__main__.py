"""`python -m llama`."""

from llama._cli import main

if __name__ == "__main__":
    main(prog_name="llama")
