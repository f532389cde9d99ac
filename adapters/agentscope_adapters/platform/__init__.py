"""The hosting platform, spoken to over HTTP."""
