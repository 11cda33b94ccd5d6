"""
The core: what to send and what the answers mean, as flows that never wait. One module for each part of the surface.

`Queue` and `AsyncQueue` are shells that drive these flows.
"""
