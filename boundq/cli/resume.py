"""``boundq resume``."""

from __future__ import annotations

from boundq.cli._switch import switch

command = switch(
    "resume",
    """
Allow claiming from queues again.

\b
Examples:
  boundq resume emails
  boundq resume emails reports --reason "provider is back"
""",
)
