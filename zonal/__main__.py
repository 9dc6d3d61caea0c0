"""Run the command line: ``python -m zonal``."""

from zonal.cli import main

main()
