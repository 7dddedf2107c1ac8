"""Results as HTML. No torch."""
