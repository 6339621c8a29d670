"""What all programs of the pool speak: the build model, its life cycle, messages, wire, the build
service, its HTTP API.

`protocol` imports neither `node` nor `scheduler`; both import it.
"""

VERSION = "0.1.0"
"""The version of all programs here."""
