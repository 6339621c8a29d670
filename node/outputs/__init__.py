"""What a build makes: taken while it runs, or when its container has ended."""
