"""The Query API (section 3): GraphQL and CSV over what the field sends."""
