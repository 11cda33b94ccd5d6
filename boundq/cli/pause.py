"""``boundq pause``."""

from __future__ import annotations

from boundq.cli._switch import switch

command = switch(
    "pause",
    """
Stop claiming from queues: workers finish what they run, and start nothing more.

The queues go on taking jobs, up to their limits. Who, when and why are recorded, and shown by `boundq stats`.

\b
Examples:
  boundq pause emails --reason "mail provider is down"
  boundq pause emails reports
""",
)
