"""A build's files on the node, the work folder that its commands fill as they like among them."""
