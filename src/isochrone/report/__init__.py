"""Frozen pictures of state for people and scrapers.

The models, their text and their metrics. Imports only model.
"""
