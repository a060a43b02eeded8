"""`python -m adaptlr`: the command line."""

from adaptlr.runs.cli import main

if __name__ == "__main__":
    main()
