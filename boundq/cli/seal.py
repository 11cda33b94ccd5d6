"""``boundq seal``."""

from __future__ import annotations

from boundq.cli._switch import switch

command = switch(
    "seal",
    """
Stop admission to queues: enqueueing raises QueueSealed; workers go on with what is there.

Who, when and why are recorded, and shown to the producers and by `boundq stats`.

\b
Examples:
  boundq seal emails --reason "moving to another server"
  boundq seal emails reports && boundq drain emails reports --timeout 10min
""",
)
