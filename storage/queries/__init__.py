"""Queries: plain functions of a Core connection, one file per noun.

Each runs inside the transaction of whoever calls it; none begins or commits one. Every query names the
team, except the look-ups by a key that is unique over the installation, which are how a caller's team
becomes known.
"""
