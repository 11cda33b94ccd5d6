"""``boundq unseal``."""

from __future__ import annotations

from boundq.cli._switch import switch

command = switch(
    "unseal",
    """
Allow admission to queues again.

\b
Examples:
  boundq unseal emails
  boundq unseal emails reports --reason "moved"
""",
)
