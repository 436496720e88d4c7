"""The `tierwise` command as a shell runs it, against a running service where it needs one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fallback.emulator.static import StaticSource
from fallback.types import Accept, Purpose, Reject, Verdict
from router.journal import Journal
from router.outcome import Outcome
from router.store.sql import SqlStore
from tests.support import outcomes as make
from tests.support.service import running

ENVIRON = {key: value for key, value in os.environ.items() if key != "ANTHROPIC_API_KEY"}


async def tierwise(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
    """(exit code, standard output, standard error)."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "router.cli",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=ENVIRON,
    )
    out, err = await process.communicate(stdin.encode())
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_ask_prints_the_reply_and_tells_how_it_came_about(tmp_path: Any) -> None:
    async with running(tmp_path, source=StaticSource("four")) as service:
        target = ("--target", f"127.0.0.1:{service.service.port}")
        code, out, err = await tierwise("ask", "What is 2 + 2?", *target)
        assert (code, out) == (0, "four\n")
        assert "haiku, accepted" in err
        assert "stop_reason accept" in err
        code, out, _ = await tierwise("ask", "--json", *target, stdin="What is 2 + 2?")
        response = json.loads(out)
        assert (code, response["tier"], response["accepted"]) == (0, "haiku", True)
        [first, second] = service.outcomes()
        assert response["request_id"] == max(first.outcome.request_id, second.outcome.request_id)


async def test_explain_decides_and_calls_nothing(tmp_path: Any) -> None:
    async with running(tmp_path) as service:
        code, out, _ = await tierwise("explain", "Prove it.", "--target", f"127.0.0.1:{service.service.port}")
        assert code == 0
        assert out.startswith("chain from haiku: static plan (no model)")
        assert "opus" in out
        assert service.upstream_requests == 0


async def test_explain_what_if_shows_every_plan_and_why_not(tmp_path: Any) -> None:
    async with running(tmp_path) as service:
        target = ("--target", f"127.0.0.1:{service.service.port}")
        code, out, _ = await tierwise("explain", "Prove it.", "--what-if", *target)
        assert code == 0
        assert "haiku → opus" in out
        assert "taken" in out
        code, out, _ = await tierwise("explain", "Prove it.", "--start", "opus", "--json", *target)
        response = json.loads(out)
        assert (code, response["decision"]["tiers"]) == (0, ["opus"])
        assert [plan["tiers"] for plan in response["plans"] if plan.get("taken")] == [["opus"]]
        code, out, err = await tierwise("explain", "Prove it.", "--second-cost", "-1", *target)
        assert (code, out) == (1, "")
        assert "what_if.second_cost_usd" in err
        assert service.upstream_requests == 0


async def test_a_refused_request_is_said_in_one_line(tmp_path: Any) -> None:
    async with running(tmp_path) as service:
        target = f"127.0.0.1:{service.service.port}"
        code, out, err = await tierwise("ask", "x", "--highest-tier", "fable", "--target", target)
        assert (code, out) == (1, "")
        assert err == ("tierwise: INVALID_ARGUMENT: bounds.highest_tier: no such tier; there are haiku, sonnet, opus\n")


async def test_stats_show_what_was_recorded(tmp_path: Any) -> None:
    async with running(tmp_path) as service:
        await tierwise("ask", "x", "--workload", "triage", "--target", f"127.0.0.1:{service.service.port}")
        code, out, _ = await tierwise("stats", "--store", service.store_url, "--json")
        [row] = json.loads(out)
        assert (code, row["workload"], row["requests"]) == (0, "triage", 1)
        code, out, _ = await tierwise("stats", "--store", service.store_url)
        assert code == 0
        assert "triage" in out


def chains(rejected: int, accepted: int = 0, *, first: int, workload: str) -> list[Outcome]:
    """Chains without a model: haiku's reply `rejected` and `accepted`; after a rejection sonnet's too, in 3 of 4."""
    found = []
    for number in range(rejected + accepted):
        said: list[Verdict] = [Reject("wrong"), Reject("wrong") if number % 4 else Accept(), Accept()]
        said = said[: 3 if number % 4 else 2] if number < rejected else [Accept()]
        made = [
            make.attempt(
                tier, verdict=verdict, cost_usd=cost_usd, purpose=Purpose.ESCALATION if rung else Purpose.FIRST
            )
            for rung, (tier, cost_usd, verdict) in enumerate(zip(make.TIERS, (0.001, 0.010, 0.015), said, strict=False))
        ]
        found.append(make.outcome(first + number, workload=workload, attempts=made, received_at_s=time.time()))
    return found


def cells_of(out: str) -> list[list[str]]:
    """The cells of printed tables, line by line."""
    return [[cell.strip() for cell in line.strip("│ ").split("│")] for line in out.splitlines() if line.startswith("│")]


async def test_stats_tell_tier_after_tier_what_pays_and_where_the_plan_has_moved(tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path}/outcomes.db"
    store = SqlStore(url)
    store.write(chains(80, 120, first=1, workload="fixed"))
    store.write(chains(80, first=301, workload="moved"))
    store.write(chains(80, 120, first=601, workload="skipping"))
    store.close()
    config = tmp_path / "tierwise.toml"
    config.write_text(f'[store]\nurl = "{url}"\n[workloads.fixed]\nstatic_plan = "fixed"\n')
    code, out, _ = await tierwise("stats", "--config", str(config), "--json")
    assert code == 0
    fixed, moved, skipping = json.loads(out)
    sonnet, opus = skipping["later"]
    assert [sonnet[key] for key in ("after", "tier", "next_tier", "finding")] == ["haiku", "sonnet", "opus", "skip it"]
    assert (sonnet["rejected"]["count"], sonnet["rejected"]["of"]) == (60, 80)
    assert sonnet["break_even"] == pytest.approx(1 - 0.010 / 0.015)
    assert [opus[key] for key in ("after", "tier", "next_tier", "finding")] == ["sonnet", "opus", "", "highest tier"]
    assert (opus["rejected"]["count"], opus["rejected"]["of"]) == (0, 60)
    assert skipping["static_plan"] == {"tiers": ["haiku", "opus"], "moved_from": "", "skipped": ["sonnet"]}
    assert moved["static_plan"] == {"tiers": ["sonnet", "opus"], "moved_from": "haiku", "skipped": []}
    assert fixed["static_plan"] == {"tiers": ["haiku", "sonnet", "opus"], "moved_from": "", "skipped": []}
    code, out, _ = await tierwise("stats", "--config", str(config))
    assert [line for line in cells_of(out) if line[0] in ("moved", "skipping") and len(line) == 7] == [
        [
            "moved",
            "sonnet → opus (start moved from haiku)",
            "haiku",
            "sonnet",
            "75.0% [64.5%–83.2%]",
            "33.3%",
            "skip it",
        ],
        ["skipping", "haiku → opus (skips sonnet)", "haiku", "sonnet", "75.0% [64.5%–83.2%]", "33.3%", "skip it"],
    ]


async def test_stats_tell_what_waits_in_the_journal_and_what_is_damaged(tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path}/outcomes.db"
    store = SqlStore(url)
    store.write([make.outcome(n, received_at_s=time.time()) for n in range(1, 6)])
    store.close()
    journal = Journal(tmp_path / "outcomes.journal", max_bytes=1 << 20)
    journal.write([make.outcome(n) for n in (7, 8)])
    with sqlite3.connect(tmp_path / "outcomes.db") as connection:
        connection.execute("UPDATE outcome SET cost_usd = 9 WHERE request_id = ?", [make.request_id(2)])
    connection.close()
    code, out, err = await tierwise("stats", "--store", url, "--json", "--verify")
    assert (code, json.loads(out)[0]["requests"]) == (0, 5)
    assert "2 outcomes (0.0 MB) wait in" in err
    assert "4 outcomes are sound, 1 damaged" in err
    code, _, err = await tierwise("stats", "--store", "mysql://host/db")
    assert (code, err) == (
        2,
        "tierwise: --store: must be sqlite:///folder/file.db or postgresql://user@host/database\n",
    )


async def test_stats_of_a_store_that_is_not_there_create_nothing(tmp_path: Any) -> None:
    code, _, err = await tierwise("stats", "--store", f"sqlite:///{tmp_path}/none.db")
    assert code == 2
    assert "nothing has been recorded yet" in err
    assert list(tmp_path.iterdir()) == []


async def test_check_config_names_everything_that_is_wrong(tmp_path: Any) -> None:
    path = Path(tmp_path) / "bad.toml"
    path.write_text('[server]\nlisten = "nowhere"\n[workloads.triage]\nexplore = 2\n', encoding="utf-8")
    code, _, err = await tierwise("check-config", str(path))
    assert code == 2
    assert "server.listen" in err
    assert "workloads.triage.explore" in err
    code, out, _ = await tierwise("check-config", "deploy/tierwise.toml")
    assert code == 0
    assert "haiku (claude-haiku-5-5)" in out


async def test_serve_refuses_to_start_without_a_key_and_says_which(tmp_path: Any) -> None:
    path = Path(tmp_path) / "tierwise.toml"
    path.write_text(f'[store]\nurl = "sqlite:///{tmp_path}/outcomes.db"\n', encoding="utf-8")
    code, _, err = await tierwise("serve", "--config", str(path))
    assert code == 2
    assert "ANTHROPIC_API_KEY is not set" in err


@pytest.mark.parametrize("command", ["serve", "ask", "explain", "emulate", "check-config", "stats"])
async def test_every_command_explains_itself(command: str) -> None:
    code, out, _ = await tierwise(command, "--help")
    assert code == 0
    assert "Usage:" in out


async def test_serve_emulates_on_request_reloads_on_sighup_and_stops_on_sigterm(tmp_path: Any) -> None:
    path = Path(tmp_path) / "tierwise.toml"
    document = (
        f'[server]\nlisten = "127.0.0.1:0"\n[store]\nurl = "sqlite:///{tmp_path}/outcomes.db"\n'
        f'[model]\ndirectory = "{tmp_path}/models"\n'
    )
    path.write_text(document, encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "router.cli",
        "serve",
        "--config",
        str(path),
        "--emulate-without-key",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=ENVIRON,
    )
    assert process.stdout is not None

    async def line_with(text: str) -> str:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            while True:
                line = (await process.stdout.readline()).decode()
                assert line, f"ended before it said {text}"
                if text in line:
                    return line

    assert "SIMULATED" in await line_with("SIMULATED")
    port = int((await line_with("tierwise is serving on")).rpartition(":")[2])
    code, _, err = await tierwise("ask", "What is 2 + 2?", "--target", f"127.0.0.1:{port}")
    assert code == 0, err
    path.write_text(document + "[workloads.triage]\nexplore = 5\n", encoding="utf-8")
    process.send_signal(signal.SIGHUP)
    assert "workloads.triage.explore" in await line_with("reload refused")
    path.write_text(document + "[workloads.triage]\nexplore = 0.5\n", encoding="utf-8")
    process.send_signal(signal.SIGHUP)
    await line_with("configuration reloaded")
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(30):
        assert await process.wait() == 0
