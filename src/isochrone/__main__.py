"""`python -m isochrone` is the program `isochrone`."""

from isochrone.cli.main import main

main()
