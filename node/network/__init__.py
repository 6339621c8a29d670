"""Where builds with a network can go: a bridge of the node's own, and a firewall before it."""
