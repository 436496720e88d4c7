"""The configuration: the default is valid, and every wrong value is refused with its path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fallback.checks.form import LabelsCheck
from fallback.checks.stop_reason import StopReasonCheck
from router.config import Config, ConfigError, load_config
from router.config_sections import StoreConfig
from router.parts import ALWAYS

PRICE_LINES = "output=1\ncache_write_5m=1\ncache_write_1h=1\ncache_read=1\nbatch_input=1\nbatch_output=1\n"


def _load(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "tierwise.toml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def test_the_default_is_valid_and_is_the_documented_ladder() -> None:
    config = load_config(None)
    assert config.ladder == ("haiku", "sonnet", "opus")
    assert [tier.can_force_tool for tier in config.tiers] == [True, False, False]
    assert set(config.load_prices().models) >= {tier.model for tier in config.tiers}
    assert config.server.listen == "127.0.0.1:50051", "loopback unless told otherwise"


def test_an_empty_file_is_the_default(tmp_path: Path) -> None:
    assert _load(tmp_path, "") == load_config(None)


def test_a_full_file(tmp_path: Path) -> None:
    config = _load(
        tmp_path,
        """
        [server]
        listen = "[::1]:0"
        reflection = false
        grace_s = 5
        [[tiers]]
        name = "small"
        model = "claude-haiku-5-5"
        endpoints = ["claude", "eu"]
        [[tiers]]
        name = "big"
        model = "claude-opus-5-5"
        [endpoints.claude]
        [endpoints.eu]
        platform = "bedrock"
        region = "eu-west-1"
        price_multiplier = 1.1
        models = { small = "anthropic.claude-haiku-5-5" }
        [workloads.default]
        start_tier = "big"
        [workloads.triage]
        start_tier = "small"
        cost_cap_usd = 0.5
        truncated = "hand_back"
        checks = [{ check = "labels", labels = ["a", "b"] }, { check = "regex", pattern = "^a" }]
        [resilience]
        breaker_failures = 5
        breaker_first_open_s = 2
        ailing_failures = 4
        breaker_open_s = 7
        [telemetry]
        prometheus_listen = "127.0.0.1:9464"
        """,
    )
    assert config.ladder == ("small", "big")
    checks = config.workload("triage").build_checks()
    assert checks[: 1 + len(ALWAYS)] == (StopReasonCheck("hand_back", "hand_back"), *ALWAYS)
    assert checks[-2] == LabelsCheck(("a", "b"))
    assert config.workload("unheard-of").start_tier == "big", "served under default"
    guards = config.resilience.guards()
    assert (guards.endpoint.failures, guards.endpoint.open_s, guards.provider.open_s) == (5, 7.0, 7.0)
    assert (guards.endpoint.first_open_s, guards.provider.first_open_s, guards.ailing.failures) == (2.0, 2.0, 4)
    assert config.resilience.recovery().attempts_per_tier == 3


def test_allowed_tiers_and_defaults_of_a_workload(tmp_path: Path) -> None:
    config = _load(tmp_path, '[workloads.w]\nlowest_tier = "sonnet"\n[workloads.v]\nhighest_tier = "haiku"\n')
    assert config.allowed(config.workload("w")) == ("sonnet", "opus")
    assert config.allowed(config.workload("v")) == ("haiku",)
    assert config.allowed(config.workload("other")) == ("haiku", "sonnet", "opus")


TIER = '[[tiers]]\nname = "a"\nmodel = "claude-haiku-5-5"\n'
WRONG: list[tuple[str, str]] = [
    # sections and names
    ("[servr]", "servr"),
    ("x = 1", "x"),
    ("server = 3", "server"),
    ("[server]\nlistne = 'x'", "server.listne"),
    # server
    ("[server]\nlisten = 'localhost'", "server.listen"),
    ("[server]\nlisten = ':50051'", "server.listen"),
    ("[server]\nlisten = 'h:65536'", "server.listen"),
    ("[server]\nlisten = 'h:-1'", "server.listen"),
    ("[server]\nlisten = 'h:²'", "server.listen"),
    ("[server]\nlisten = 50051", "server.listen"),
    ("[server]\nreflection = 'yes'", "server.reflection"),
    ("[server]\nreflection = 1", "server.reflection"),
    ("[server]\nmax_message_bytes = 0", "server.max_message_bytes"),
    ("[server]\nmax_message_bytes = -1", "server.max_message_bytes"),
    ("[server]\nmax_text_chars = 1.5", "server.max_text_chars"),
    ("[server]\nmax_in_flight = true", "server.max_in_flight"),
    ("[server]\nmax_in_flight = '512'", "server.max_in_flight"),
    ("[server]\ngrace_s = 0", "server.grace_s"),
    ("[server]\ngrace_s = nan", "server.grace_s"),
    ("[server]\ngrace_s = inf", "server.grace_s"),
    ("[server]\ngrace_s = 86401", "server.grace_s"),
    ("[server]\ngrace_s = true", "server.grace_s"),
    ("[server]\nunknown_workloads = 'serve'", "server.unknown_workloads"),
    ("[server]\nmax_workloads = 0", "server.max_workloads"),
    # tiers
    ("tiers = []", "tiers"),
    ("tiers = 'haiku'", "tiers"),
    ("[[tiers]]\nname = 'a'", "tiers.0.model"),
    ("[[tiers]]\nmodel = 'claude-haiku-5-5'", "tiers.0.name"),
    (TIER + TIER, "'a' stands twice"),
    (TIER.replace('"a"', '"A b"'), "tiers: name 'A b'"),
    (TIER.replace('"a"', '"a\\n"'), "tiers: name"),
    (TIER + "endpoints = []", "tiers.0.endpoints"),
    (TIER + "endpoints = ['nowhere']", "tiers.a.endpoints: no endpoint 'nowhere'"),
    (TIER + "max_output_tokens = 0", "tiers.0.max_output_tokens"),
    (TIER + "min_time_s = -1", "tiers.0.min_time_s"),
    (TIER + "timeout_s = 1e9", "tiers.0.timeout_s"),
    (TIER + "min_time_s = 5\ntimeout_s = 4", "tiers.0: min_time_s must not exceed timeout_s"),
    (TIER + "can_force_tool = 'no'", "tiers.0.can_force_tool"),
    (TIER.replace("claude-haiku-5-5", "claude-haiku-9"), "prices: no price for model 'claude-haiku-9'"),
    # endpoints
    ("[endpoints.claude]\nplatform = 'azure'", "endpoints.claude.platform"),
    ("[endpoints.claude]\nplatform = 'bedrock'", "endpoints.claude: region is required"),
    ("[endpoints.claude]\nplatform = 'vertex'\nregion = 'r'", "endpoints.claude: project is required"),
    ("[endpoints.claude]\nplatform = 'foundry'", "endpoints.claude: resource or base_url"),
    ("[endpoints.claude]\nbase_url = 'file:///etc'", "endpoints.claude: base_url must begin with http"),
    ("[endpoints.claude]\nbase_url = 'https:// x'", "endpoints.claude: base_url"),
    ("[endpoints.claude]\nprice_multiplier = 0", "endpoints.claude.price_multiplier"),
    ("[endpoints.claude]\nprice_multiplier = nan", "endpoints.claude.price_multiplier"),
    ("[endpoints.claude]\nmodels = { small = 'x' }", "endpoints.claude.models: no tier 'small'"),
    ("[endpoints.claude]\nmodels = { haiku = 1 }", "endpoints.claude.models.haiku"),
    ("[endpoints.claude]\n[endpoints.'a b']", "endpoints: name 'a b'"),
    ("[endpoints.other]", "tiers.haiku.endpoints: no endpoint 'claude'"),
    # workloads
    ("[workloads.'A']", "workloads: name 'A'"),
    ("[workloads.'']", "workloads: name ''"),
    (f"[workloads.{'a' * 65}]", "workloads: name"),
    ("[workloads.w]\nstart_tier = 'huge'", "workloads.w.start_tier: no tier 'huge'; there are haiku, sonnet, opus"),
    ("[workloads.w]\nlowest_tier = 'huge'", "workloads.w.lowest_tier"),
    ("[workloads.w]\nhighest_tier = 'huge'", "workloads.w.highest_tier"),
    ("[workloads.w]\nlowest_tier = 'opus'\nhighest_tier = 'haiku'", "workloads.w: lowest_tier is above highest_tier"),
    ("[workloads.w]\nstart_tier = 'haiku'\nlowest_tier = 'sonnet'", "workloads.w.start_tier: outside"),
    ("[workloads.w]\ndeadline_s = 0", "workloads.w.deadline_s"),
    ("[workloads.w]\ncost_cap_usd = 0", "workloads.w.cost_cap_usd"),
    ("[workloads.w]\ncost_cap_usd = inf", "workloads.w.cost_cap_usd"),
    ("[workloads.w]\nexplore = 1.1", "workloads.w.explore"),
    ("[workloads.w]\nexplore = -0.1", "workloads.w.explore"),
    ("[workloads.w]\nexplore = '2%'", "workloads.w.explore"),
    ("[workloads.w]\ndirect_threshold = 95", "workloads.w.direct_threshold"),
    ("[workloads.w]\nfalse_accept_max = 0", "workloads.w.false_accept_max"),
    ("[workloads.w]\nfalse_accept_max = 2", "workloads.w.false_accept_max"),
    ('[workloads.w]\nfalse_accept_max = "2 %"', "workloads.w.false_accept_max"),
    ("[workloads.w]\nfalse_accept_confidence = 1", "workloads.w.false_accept_confidence"),
    ("[workloads.w]\naccept_threshold = nan", "workloads.w.accept_threshold"),
    ("[workloads.w]\ntruncated = 'raise'", "workloads.w.truncated"),
    ("[workloads.w]\nrefused = ''", "workloads.w.refused"),
    ("[workloads.w]\nunjudged = 'reject'", "workloads.w.unjudged"),
    ("[workloads.w]\nfailover_up = 'true'", "workloads.w.failover_up"),
    ("[workloads.w]\nretention_days = 366", "workloads.w.retention_days"),
    ("[workloads.w]\nretention_days = -1", "workloads.w.retention_days"),
    # checks
    ("[workloads.w]\nchecks = 'labels'", "workloads.w.checks"),
    ("[workloads.w]\nchecks = [3]", "workloads.w.checks.0"),
    ("[workloads.w]\nchecks = [{}]", "workloads.w.checks: [0].check: expected one of agreement, fields"),
    ("[workloads.w]\nchecks = [{ check = ['labels'] }]", "workloads.w.checks: [0].check"),
    ("[workloads.w]\nchecks = [{ check = 'vibes' }]", "got 'vibes'"),
    ("[workloads.w]\nchecks = [{ check = 'labels' }]", "workloads.w.checks: [0].labels"),
    ("[workloads.w]\nchecks = [{ check = 'labels', labels = [] }]", "workloads.w.checks: [0]"),
    ("[workloads.w]\nchecks = [{ check = 'labels', labels = ['*'] }]", "workloads.w.checks: [0]"),
    ("[workloads.w]\nchecks = [{ check = 'labels', labels = ['a'], lables = ['b'] }]", "[0].lables"),
    ("[workloads.w]\nchecks = [{ check = 'regex', pattern = '[' }]", "workloads.w.checks: [0]"),
    ("[workloads.w]\nchecks = [{ check = 'regex', pattern = '(?=x)' }]", "look-around"),
    ("[workloads.w]\nchecks = [{ check = 'regex', pattern = '(a)\\1' }]", "back-references"),
    ("[workloads.w]\nchecks = [{ check = 'json_schema', schema = { type = 'nope' } }]", "workloads.w.checks: [0]"),
    ("[workloads.w]\nchecks = [{ check = 'json_schema', schema = { '$ref' = 'http://x/y' } }]", "[0]"),
    ("[workloads.w]\nchecks = [{ check = 'json_schema', schema = { const = 2026-01-01 } }]", "[0]"),
    ("[workloads.w]\nchecks = [{ check = 'fields', required = 'a' }]", "workloads.w.checks: [0].required"),
    ("[workloads.w]\nchecks = [{ check = 'verifier', entry_point = 'os' }]", "package.module:function"),
    ("[workloads.w]\nchecks = [{ check = 'verifier', entry_point = 'no.such:f' }]", "cannot be imported"),
    ("[workloads.w]\nchecks = [{ check = 'verifier', entry_point = 'os:nope' }]", "cannot be imported"),
    ("[workloads.w]\nchecks = [{ check = 'verifier', entry_point = 'os:sep' }]", "not a plain function"),
    ("[workloads.w]\nchecks = [{ check = 'verifier', entry_point = 'asyncio:sleep' }]", "not a plain function"),
    ("[workloads.w]\nchecks = [{ check = 'verifier', entry_point = 'os:getcwd', timeout_s = 0 }]", "timeout_s"),
    # the rest
    ("[store]\nmax_wait_s = 0", "store.max_wait_s"),
    ("[store]\nmax_wait_s = 0.25", "store: patience_s must be less than max_wait_s"),
    ("[store]\nurl = 'mysql://host/db'", "store.url: must be sqlite:///"),
    ("[store]\nurl = 'sqlite:///'", "store.url: must be sqlite:///"),
    ("[store]\njournal_max_bytes = 1000", "store: journal_max_bytes must be 0 (no journal) or at least 1 MiB"),
    ("[store]\njournal_max_bytes = -1", "store.journal_max_bytes"),
    ("[store]\njournal_sync = 1", "store.journal_sync"),
    ("[store]\nfeedback_window_s = inf", "store.feedback_window_s"),
    ("[model]\npoll_s = -2", "model.poll_s"),
    ("[model]\ntext_cap_chars = 0", "model.text_cap_chars"),
    ("[idempotency]\nmax_entries = 0", "idempotency.max_entries"),
    ("[idempotency]\nwindow_s = 1e6", "idempotency.window_s"),
    ("[telemetry]\notlp_protocol = 'udp'", "telemetry.otlp_protocol"),
    ("[telemetry]\nsample_ratio = 2", "telemetry.sample_ratio"),
    ("[telemetry]\nprometheus_listen = '9464'", "telemetry.prometheus_listen"),
    ("[telemetry]\nlog_level = 'loud'", "telemetry.log_level"),
    ("[resilience]\nattempts_per_tier = 6", "resilience.attempts_per_tier"),
    ("[resilience]\nattempts_per_tier = 0", "resilience.attempts_per_tier"),
    ("[resilience]\nbudget_ratio = 0", "resilience.budget_ratio"),
    ("[resilience]\nbudget_tokens = nan", "resilience.budget_tokens"),
    ("[resilience]\nbreaker_failures = 11", "resilience: breaker_failures must not exceed breaker_window"),
    ("[resilience]\nailing_failures = 21", "resilience: ailing_failures must not exceed ailing_window"),
    ("[resilience]\nbackoff_base_s = 6", "resilience: backoff_base_s must not exceed backoff_cap_s"),
    ("prices = 'nowhere.toml'", "prices: cannot read nowhere.toml"),
    ("prices = 3", "prices"),
]


def test_there_are_enough_of_them() -> None:
    assert len(WRONG) >= 60


@pytest.mark.parametrize(("text", "says"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_value_is_refused_with_its_path(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, text)
    assert says in str(caught.value)
    assert caught.value.__suppress_context__, "no traceback of the library's own insides"


def test_everything_wrong_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, "[server]\ngrace_s = 0\n[model]\npoll_s = 0\n[x]")
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == ["server.grace_s", "model.poll_s", "x"]


@pytest.mark.parametrize(
    "text",
    [
        "[endpoints.claude]\napi_key = 'sk-canary'",
        "[endpoints.claude]\nsecret = 'sk-canary'",
        "[endpoints.claude]\npassword = 'sk-canary'",
        "[store]\nurl = ['sk-canary']",
        "[endpoints.claude]\nbase_url = 'sk-canary'",
    ],
)
def test_what_may_be_a_secret_is_not_repeated(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, text)
    assert "canary" not in str(caught.value)


def test_a_file_that_is_not_there_or_no_toml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="is not TOML"):
        _load(tmp_path, "= 3")
    path = tmp_path / "latin.toml"
    path.write_bytes(b"x = '\xff'")
    with pytest.raises(ConfigError, match="is not TOML"):
        load_config(path)


@pytest.mark.parametrize(
    ("book", "says"),
    [
        (b"as_of = 1", "no [[model]]"),
        (b"[[model", "prices: "),
        (b"x = '\xff'", "prices: "),
        (f"[[model]]\nid = 'claude-haiku-5-5'\ninput = 0\n{PRICE_LINES}".encode(), "claude-haiku-5-5: input"),
        (f"[[model]]\nid = 'claude-haiku-5-5'\ninput = 1\n{PRICE_LINES}".encode(), "no price for model 'claude-sonnet"),
    ],
)
def test_a_price_book_that_is_wrong_or_lacks_a_tier(tmp_path: Path, book: bytes, says: str) -> None:
    path = tmp_path / "prices.toml"
    path.write_bytes(book)
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, f"prices = {json.dumps(str(path))}")
    assert says in str(caught.value)


def test_a_configuration_cannot_be_changed_after_it_was_checked() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_config(None).server.grace_s = -1


@pytest.mark.parametrize(
    ("settings", "folder"),
    [
        ({}, "var/outcomes.journal"),
        ({"url": "sqlite:////data/all.sqlite?timeout=3"}, "/data/all.journal"),
        ({"journal": "/fast/disk"}, "/fast/disk"),
        ({"journal": "/fast/disk", "journal_max_bytes": 0}, None),
    ],
)
def test_the_journal_is_beside_a_sqlite_file_or_where_it_is_said(settings: Any, folder: str | None) -> None:
    found = StoreConfig.model_validate(settings).journal_folder
    assert (found and str(found)) == folder
