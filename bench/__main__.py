"""``python -m bench [NAME [OPTIONS]]``: list the benches, or run one."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import bench


def main() -> int:
    names = sorted(module.name for module in pkgutil.iter_modules(bench.__path__) if not module.name.startswith("_"))
    if len(sys.argv) < 2 or sys.argv[1] not in names:
        print(__doc__)
        for name in names:
            doc = importlib.import_module(f"bench.{name}").__doc__ or ""
            print(f"  {name:12} {doc.strip().splitlines()[0]}")
        return 0 if len(sys.argv) < 2 else 2
    module = importlib.import_module(f"bench.{sys.argv[1]}")
    sys.argv[1:] = sys.argv[2:]
    status: int = module.main()
    return status


if __name__ == "__main__":
    sys.exit(main())
