"""What this family serves."""

from protocol.api.people import audit, sessions, tokens, users

ROUTES = (*tokens.ROUTES, *users.ROUTES, *sessions.ROUTES, *audit.ROUTES)
