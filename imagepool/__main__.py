"""`python -m imagepool`."""

from imagepool.cli import main

main()
