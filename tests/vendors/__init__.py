"""Servers on the loopback that speak the vendors' protocols, for tests with the real SDKs on real sockets."""
