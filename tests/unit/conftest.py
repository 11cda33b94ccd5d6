"""How Hypothesis runs here: no deadline on a machine that others use too; in CI the same examples every time."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("boundq-unit", deadline=None, derandomize=bool(os.environ.get("CI")), print_blob=True)
settings.load_profile("boundq-unit")
