"""Who is a program of which pool: certificates, join tokens, and TLS made of them."""
