"""Everything kept: databases, tables, queries, blobs. The only package that speaks SQL."""
