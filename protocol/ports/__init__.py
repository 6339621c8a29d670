"""The interfaces that API families and programs go by, and nothing that implements them."""
