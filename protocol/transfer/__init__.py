"""Bytes on their way: streams, and moving large bodies without a copy through Python."""
