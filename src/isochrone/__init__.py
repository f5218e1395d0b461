"""Isochrone: asynchronous remote copy of block volumes, consistent to one instant across controllers and hosts."""

__version__ = "0.1.0"
