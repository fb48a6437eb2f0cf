"""Run the command line as ``python -m rapid``."""

from rapid.cli import main

main()
