"""Everything that speaks HTTP, and the wiring."""
