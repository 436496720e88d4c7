"""Log lines: one an event, with ids, in JSON or text."""

from __future__ import annotations

import asyncio
import json
import logging
import warnings

import pytest

from router import logs

log = logging.getLogger("router.test")
IDS = logs.RequestIds("0192f0c4d1a7000089abcdef01234567", "0af7651916cd43dd8448eb211c80319c")


def break_and_log() -> None:
    try:
        try:
            int("quoted text")
        except ValueError as cause:
            raise RuntimeError("more quoted text") from cause
    except RuntimeError:
        log.exception("it broke")


@pytest.fixture
def as_json(log_stream):
    logs.setup("INFO", stream=log_stream)

    def lines() -> list[dict[str, object]]:
        return [json.loads(line) for line in log_stream.getvalue().splitlines()]

    return lines


@pytest.fixture
def as_text(log_stream):
    logs.setup("INFO", style="text", stream=log_stream)
    return lambda: log_stream.getvalue().splitlines()


def test_a_line_says_when_how_bad_who_and_what(as_json):
    log.info("model %s loaded", "20261123")
    (line,) = as_json()
    assert line.pop("time").endswith("+00:00")
    assert line == {"level": "INFO", "logger": "router.test", "message": "model 20261123 loaded"}


def test_below_the_level_nothing_is_said(as_json):
    log.debug("quiet")
    assert as_json() == []


async def test_lines_inside_a_request_carry_its_ids_into_tasks_too(as_json):
    async def task() -> None:
        log.info("in a task")

    with logs.request(IDS):
        log.info("inside")
        await asyncio.create_task(task())
    log.info("outside")
    shown = [(line["message"], line.get("request_id"), line.get("trace_id")) for line in as_json()]
    assert shown == [
        ("inside", IDS.request_id, IDS.trace_id),
        ("in a task", IDS.request_id, IDS.trace_id),
        ("outside", None, None),
    ]


def test_text_lines_carry_the_ids_too(as_text):
    with logs.request(IDS):
        log.warning("slow store")
    (line,) = as_text()
    assert line.endswith(f"WARNING router.test slow store request={IDS.request_id} trace={IDS.trace_id}")


def test_an_exception_is_its_types_and_places_on_one_line(as_json):
    break_and_log()
    (line,) = as_json()
    assert [told["type"] for told in line["error"]] == ["RuntimeError", "ValueError"]
    assert "test_logs.py" in line["error"][0]["at"][0]
    assert "quoted text" not in json.dumps(line)


def test_an_exception_in_text(as_text):
    break_and_log()
    (line,) = as_text()
    assert "it broke error: RuntimeError at " in line
    assert "quoted" not in line


def test_lines_are_bounded_and_cannot_be_forged(as_text):
    log.info("name: %s", "a\r\n2026 ERROR forged\x1b[31m\u2028" + "x" * 10_000)
    (line,) = as_text()
    assert r"a\x0d\x0a2026 ERROR forged\x1b[31m\x2028" in line
    assert len(line) < 2200


def test_a_wrong_format_string_keeps_the_line(as_json):
    log.info("%d tiers", "three")
    assert as_json()[0]["message"] == "%d tiers"


def test_somebody_elses_line_is_its_first(as_json):
    logging.getLogger("grpc").warning("first\nsecond")
    assert as_json()[0]["message"] == "first"


def test_libraries_that_log_requests_are_held_at_warning(as_json):
    for name in ("anthropic", "httpx2", "aiohttp.client"):
        logging.getLogger(name).setLevel(logging.DEBUG)
        logging.getLogger(name).info("request")
        logging.getLogger(name).warning("trouble")
    assert [line["message"] for line in as_json()] == ["trouble"] * 3


def test_of_telemetry_what_was_lost_is_said_and_not_every_try(as_json):
    logging.getLogger("opentelemetry.sdk._shared_internal").warning("Queue full, dropping Span.")
    logging.getLogger("opentelemetry.exporter.otlp.proto.grpc.exporter").warning("Transient error, retrying")
    logging.getLogger("opentelemetry.exporter.otlp.proto.grpc.exporter").error("Failed to export")
    assert [line["message"] for line in as_json()] == ["Queue full, dropping Span.", "Failed to export"]


def test_setting_up_twice_does_not_say_things_twice(as_json, log_stream):
    logs.setup("INFO", stream=log_stream)
    log.info("once")
    assert len(as_json()) == 1


def test_warnings_become_lines(as_json):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old model", DeprecationWarning, stacklevel=1)
    assert "old model" in as_json()[0]["message"]


async def test_the_event_loops_own_complaints_are_told_without_their_text(as_json):
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(logs.loop_exception)
    loop.call_exception_handler({"message": "Task exception was never retrieved", "exception": ValueError("quoted")})
    loop.call_exception_handler({"message": "no exception"})
    first, second = as_json()
    assert first["message"] == "event loop: Task exception was never retrieved"
    assert first["error"] == [{"type": "ValueError", "at": []}]
    assert second["message"] == "event loop: no exception"
    assert "error" not in second
