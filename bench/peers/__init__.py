"""Peers: other Redis queues for Python beside this one, each in a virtual environment of its own, at the same work."""
