from __future__ import annotations

import io
import logging

import pytest


@pytest.fixture
def log_stream():
    """A stream to log to; the process' logging is as before afterwards."""
    root = logging.getLogger()
    handlers, level, raising = list(root.handlers), root.level, logging.raiseExceptions
    names = [name for name, known in logging.Logger.manager.loggerDict.items() if isinstance(known, logging.Logger)]
    levels = {name: logging.getLogger(name).level for name in names}
    yield io.StringIO()
    logging.captureWarnings(False)
    logging.raiseExceptions = raising
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, known in logging.Logger.manager.loggerDict.items():
        if isinstance(known, logging.Logger):
            known.setLevel(levels.get(name, logging.NOTSET))
