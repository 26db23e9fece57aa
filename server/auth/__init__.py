"""Who is calling and what they may do: tokens, clients, policies (section 2)."""
