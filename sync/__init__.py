"""Reconciliation: many tablets, one job. No HTTP, no SQL statements of its own."""
