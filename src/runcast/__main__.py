"""`python -m runcast` is `runcast`."""

from runcast.cli import main

if __name__ == "__main__":
    main()
