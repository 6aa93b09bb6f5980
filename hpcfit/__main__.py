"""``python -m hpcfit`` is the command ``hpcfit``."""

from hpcfit.cli import main

if __name__ == "__main__":
    main()
