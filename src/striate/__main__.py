"""``python -m striate`` is the command line, as ``torchrun -m striate`` wants it."""

from .cli import main

if __name__ == "__main__":
    main()
