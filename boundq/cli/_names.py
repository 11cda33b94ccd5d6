"""The queues of a server, for a shell that waits for its completion: in time, or not at all, and without a word."""

from __future__ import annotations

import os
import threading

# A shell that waits longer than that is felt as broken, in seconds.
PATIENCE = 1.0


def names_in_time(url: str | None) -> list[str]:
    """Names of queues; none where the server does not answer within `PATIENCE`, whatever the reason."""
    if (url or os.environ.get("BOUNDQ_URL", "")).startswith("embedded:"):
        return []  # it would be started for it
    found: list[str] = []

    def look() -> None:
        try:
            from boundq import Server

            found.extend(Server(url, deadline=PATIENCE).queues())
        except Exception:  # completion is no place for errors: there is nothing to complete then
            return

    asking = threading.Thread(target=look, daemon=True)
    asking.start()
    asking.join(PATIENCE)
    return list(found)
