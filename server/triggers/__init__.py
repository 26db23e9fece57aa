"""Triggers: chapter 12 of the primary specification, their deliveries, and running one by hand.

The routes are in ``routes.py`` alone: the background's modules are in this package as well, and routes import it.
"""
