"""Authenticators: tokens that are listed, and JWTs that another server signed."""
