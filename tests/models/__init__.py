"""Models: small machines whose every state is visited."""
