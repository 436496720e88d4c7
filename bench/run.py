"""All repeatable figures, one after the other: `make bench`. Prints what docs/measurements.md is written from."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from processes import ROOT


def main() -> None:
    """The demo first: it leaves a model for the decision's figures."""
    print(f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for command in (
            ["demo.py", "--folder", folder],
            ["decision.py", "--models", str(Path(folder) / "models")],
            ["overhead.py"],
            ["telemetry.py"],
            ["durability.py"],
        ):
            print(f"$ python bench/{' '.join(command)}", flush=True)
            environ = {**os.environ, "PYTHONPATH": str(ROOT)}
            subprocess.run([sys.executable, str(ROOT / "bench" / command[0]), *command[1:]], check=True, env=environ)
            print(flush=True)


if __name__ == "__main__":
    main()
