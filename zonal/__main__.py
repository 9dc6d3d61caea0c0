"""Run the command line: ``python -m zonal``."""

from zonal.cli.app import main

main()
