"""Benchmarks: what a sync costs, beside the same server answering without storing."""
