"""The way of builds to nodes: given, sent with what they need, and followed to their end."""
