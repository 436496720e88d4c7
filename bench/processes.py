"""Child processes of the benchmarks: started with their port read from what they print, always ended."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
Child = subprocess.Popen[str]
_PORT = re.compile(r"(?:listening on |serving on [\d.]+:|http://127\.0\.0\.1:)(\d+)")


@contextmanager
def child(*command: str, environ: Mapping[str, str] | None = None) -> Iterator[tuple[Child, int]]:
    """A running child and the port that it listens on."""
    process = subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(environ or {})},
    )
    try:
        yield process, _port(process)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _port(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    for line in process.stdout:
        if found := _PORT.search(line):
            return int(found.group(1))
    raise RuntimeError(f"{process.args} ended with {process.wait()} before it listened")
