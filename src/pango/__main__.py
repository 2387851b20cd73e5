"""`python -m pango`."""

from pango._cli import main

if __name__ == "__main__":
    main(prog_name="pango")
