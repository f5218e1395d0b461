"""The program `isochrone`: a client of the API for people and scripts.

Modules here import only what `--help` needs; everything heavier is imported inside the command that uses it.
"""
