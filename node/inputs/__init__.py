"""What must be there before a build's container starts: its image, its inputs and secrets."""
