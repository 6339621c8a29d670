"""The API family of who may: tokens, users, sessions, and what was done."""
