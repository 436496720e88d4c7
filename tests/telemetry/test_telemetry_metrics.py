"""What is counted, read from the Prometheus page and from the OTLP collector."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from router.telemetry import Settings, Telemetry, TelemetryError, semconv
from tests.support.otlp import OtlpCollector, attributes_of
from tests.telemetry import stories as told

STORIES = told.stories()


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    started = Telemetry.start(Settings(prometheus_port=0))
    yield started
    assert started.shutdown(10.0)


def page(telemetry: Telemetry) -> dict[str, dict[frozenset[tuple[str, str]], float]]:
    """The Prometheus page: value by labels, by sample name."""
    with urllib.request.urlopen(f"http://127.0.0.1:{telemetry.prometheus_port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    samples: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return samples


def value(telemetry: Telemetry, name: str, **labels: str) -> float:
    return page(telemetry).get(name, {}).get(frozenset(labels.items()), 0.0)


def test_requests_by_workload_resolving_tier_and_mode(telemetry):
    for name in ("escalated", "escalated", "direct", "best of the rejected", "outage"):
        telemetry.record(*STORIES[name])
    labels = {"workload": "triage", "mode": "chain"}
    assert value(telemetry, "tierwise_requests_total", tier="sonnet", accepted="true", **labels) == 2
    assert value(telemetry, "tierwise_requests_total", tier="sonnet", accepted="false", **labels) == 1
    assert value(telemetry, "tierwise_requests_total", tier="none", accepted="false", **labels) == 1
    labels["mode"] = "direct"
    assert value(telemetry, "tierwise_requests_total", tier="sonnet", accepted="true", **labels) == 1


def test_resilience_and_cost_tiering_are_counted_apart(telemetry):
    for name in ("retried", "failed over", "escalated", "misroute", "longer"):
        telemetry.record(*STORIES[name])
    place = {"tier": "haiku", "endpoint": "first-party"}
    assert value(telemetry, "tierwise_failures_total", kind="overloaded", **place) == 1
    assert value(telemetry, "tierwise_failures_total", kind="credentials_refused", **place) == 1
    assert value(telemetry, "tierwise_retries_total", **place) == 1
    assert value(telemetry, "tierwise_failovers_total", tier="haiku", endpoint="bedrock-eu") == 1
    assert value(telemetry, "tierwise_escalations_total", workload="triage", tier="haiku") == 2
    assert value(telemetry, "tierwise_misroutes_total", workload="triage", tier="haiku") == 1
    assert value(telemetry, "tierwise_attempts_total", workload="triage", tier="haiku") == 8


def test_a_success_leaves_the_trouble_counters_alone(telemetry):
    telemetry.record(*STORIES["accepted at once"])
    for trouble in ("failures", "retries", "failovers", "escalations", "misroutes"):
        assert f"tierwise_{trouble}_total" not in page(telemetry)


@pytest.mark.parametrize("name", STORIES)
def test_the_money_counted_is_the_money_spent(telemetry, name):
    outcome, rpc = STORIES[name]
    telemetry.record(outcome, rpc)
    telemetry.record(outcome, rpc)
    seen = page(telemetry)
    spent = sum(seen.get("tierwise_cost_usd_total", {}).values())
    assert spent == pytest.approx(2 * outcome.cost_usd, abs=1e-12, rel=0)
    top = seen["tierwise_top_tier_cost_usd_total"][frozenset({("workload", "triage")})]
    assert top == pytest.approx(2 * outcome.top_tier_cost_usd, abs=1e-12, rel=0)  # saved: the difference


def test_money_is_split_into_attempts_and_checks_and_what_was_wasted(telemetry):
    telemetry.record(*STORIES["everything at once"])
    labels = {"workload": "triage", "tier": "opus"}
    assert value(telemetry, "tierwise_cost_usd_total", part="check", **labels) == 0.001_55
    assert value(telemetry, "tierwise_cost_usd_total", part="attempt", **labels) == 0.012_4
    assert value(telemetry, "tierwise_wasted_usd_total", workload="triage") == pytest.approx(0.001_31)


def test_what_checks_asked_and_what_it_cost(telemetry):
    telemetry.record(*STORIES["accepted at once"])
    assert value(telemetry, "tierwise_check_calls_total", check="judge") == 1
    assert value(telemetry, "tierwise_check_cost_usd_total", workload="triage", check="judge") == 0.000_9


def test_durations(telemetry):
    telemetry.record(*STORIES["misroute"])
    telemetry.rpc(told.rpc("INTERNAL", "router.v1.RouterService/Route"))
    assert value(telemetry, "tierwise_request_duration_seconds_sum", workload="triage") == 3.0
    assert value(telemetry, "tierwise_checks_total", check="labels", verdict="reject") == 1
    assert value(telemetry, "tierwise_checks_total", check="stop_reason", verdict="accept") == 2
    assert value(telemetry, "tierwise_check_seconds_total", check="stop_reason", verdict="accept") == 0.002
    rpc = {"rpc_system_name": "grpc", "rpc_method": "router.v1.RouterService/Route"}
    failed = {"rpc_response_status_code": "INTERNAL", "error_type": "INTERNAL"}
    assert value(telemetry, "rpc_server_call_duration_seconds_sum", **rpc, **failed) == 3.01
    assert value(telemetry, "rpc_server_call_duration_seconds_bucket", le="2.5", **rpc, **failed) == 0
    assert value(telemetry, "rpc_server_call_duration_seconds_bucket", le="5.0", **rpc, **failed) == 1


def test_upstream_calls_by_the_gen_ai_conventions(telemetry):
    telemetry.record(*STORIES["retried"])
    call = {
        "gen_ai_operation_name": "chat",
        "gen_ai_provider_name": "anthropic",
        "gen_ai_request_model": "claude-haiku-5-5",
    }
    assert value(telemetry, "gen_ai_client_operation_duration_seconds_count", error_type="overloaded", **call) == 1
    assert value(telemetry, "gen_ai_client_operation_duration_seconds_count", error_type="", **call) == 1
    assert value(telemetry, "tierwise_tokens_total", workload="triage", tier="haiku", type="input") == 18
    assert value(telemetry, "tierwise_tokens_total", workload="triage", tier="haiku", type="output") == 20


def test_what_is_now_is_read_when_somebody_looks(telemetry):
    breakers = {("first-party", "haiku"): "open", ("bedrock-eu", "opus"): "half_open", ("anthropic", ""): "closed"}
    model = ["20261122-aaaa"]
    telemetry.watch_breakers(lambda: breakers)
    telemetry.watch_queues(lambda: {"requests": 3, "outcomes": 7})
    telemetry.watch_model(lambda: model[0], lambda: model[0] != "20261122-aaaa", lambda: 1_000.0)
    telemetry.watch_store(lambda: 3)
    telemetry.watch_recorder(lambda: {"recorded": 41, "dropped": 2})
    telemetry.watch_health(lambda: {"store": True, "provider": False})
    telemetry.watch_drift(lambda: {("triage", "haiku", "checks"): 1.0})
    assert value(telemetry, "tierwise_breaker_state", endpoint="first-party", tier="haiku") == 2
    assert value(telemetry, "tierwise_breaker_state", endpoint="bedrock-eu", tier="opus") == 1
    assert page(telemetry)["tierwise_breaker_state"][frozenset({("endpoint", "anthropic"), ("tier", "")})] == 0
    assert value(telemetry, "tierwise_queue_depth", queue="outcomes") == 7
    assert value(telemetry, "tierwise_recorder_outcomes_total", result="dropped") == 2
    assert value(telemetry, "tierwise_health", component="provider") == 0
    assert value(telemetry, "tierwise_health", component="store") == 1
    assert value(telemetry, "tierwise_drift", workload="triage", tier="haiku", stream="checks") == 1
    assert page(telemetry)["tierwise_model_info"] == {frozenset({("version", "20261122-aaaa")}): 1}
    assert value(telemetry, "tierwise_model_learned_until_seconds") == 1_000.0
    assert value(telemetry, "tierwise_store_damaged_rows_total") == 3
    assert value(telemetry, "tierwise_model_refused") == 0
    model[0] = "20261123-bbbb"
    assert value(telemetry, "tierwise_model_refused") == 1
    assert page(telemetry)["tierwise_model_info"] == {frozenset({("version", "20261123-bbbb")}): 1}


def test_a_watched_part_that_fails_hides_only_itself(telemetry):
    def broken() -> dict[str, float]:
        raise RuntimeError("broken")

    telemetry.watch_queues(broken)
    telemetry.feedback("triage", good=False)
    seen = page(telemetry)
    assert "tierwise_queue_depth" not in seen
    assert seen["tierwise_feedback_total"] == {frozenset({("workload", "triage"), ("quality", "bad")}): 1}


def test_workloads_beyond_the_limit_share_a_label():
    telemetry = Telemetry.start(Settings(prometheus_port=0, max_workloads=3))
    for number in range(10):
        telemetry.feedback(f"w{number}", good=True)
    seen = {dict(labels)["workload"]: count for labels, count in page(telemetry)["tierwise_feedback_total"].items()}
    assert seen == {"w0": 1, "w1": 1, "w2": 1, "_other_": 7}
    assert telemetry.shutdown(10.0)


def test_two_hundred_workloads_fit_on_the_page():
    telemetry = Telemetry.start(Settings(prometheus_port=0))
    for number in range(250):
        for name in ("escalated", "everything at once", "best of the rejected", "misroute", "outage", "direct"):
            attempts, rpc = STORIES[name][0].attempts, STORIES[name][1]
            outcome = told.outcome(attempts, resolved=STORIES[name][0].resolved_tier, workload=f"w{number}")
            telemetry.record(outcome, rpc)
    seen = page(telemetry)
    requests = seen["tierwise_requests_total"]
    assert sum(requests.values()) == 250 * 6
    assert len({dict(labels)["workload"] for labels in requests}) == 201
    assert not any("otel_metric_overflow" in dict(labels) for samples in seen.values() for labels in samples)
    assert telemetry.shutdown(10.0)


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_the_same_numbers_go_out_by_otlp(protocol):
    with OtlpCollector(protocol) as collector:
        telemetry = Telemetry.start(Settings(otlp_endpoint=collector.endpoint, protocol=protocol))
        telemetry.record(*STORIES["escalated"])
        assert telemetry.shutdown(10.0)
        metrics = collector.metrics
    (requests,) = metrics["tierwise.requests"].sum.data_points
    assert metrics["tierwise.requests"].sum.is_monotonic
    assert requests.as_double == 1 or requests.as_int == 1
    assert attributes_of(requests.attributes) == {
        "workload": "triage",
        "tier": "sonnet",
        "mode": "chain",
        "accepted": "true",
    }
    upstream = metrics[semconv.GEN_AI_CLIENT_DURATION].histogram.data_points
    assert [(p.count, p.sum, tuple(p.explicit_bounds)) for p in upstream] == [(1, 0.5, semconv.GEN_AI_SECONDS)] * 2
    (duration,) = metrics[semconv.RPC_SERVER_DURATION].histogram.data_points
    assert (duration.count, duration.sum) == (1, 3.01)
    assert semconv.ERROR_TYPE not in attributes_of(duration.attributes)


def test_a_port_that_is_taken_is_refused_by_name(telemetry):
    with pytest.raises(TelemetryError, match=f"prometheus endpoint 127.0.0.1:{telemetry.prometheus_port}"):
        Telemetry.start(Settings(prometheus_port=telemetry.prometheus_port))


def test_two_in_one_process_do_not_mix(telemetry):
    other = Telemetry.start(Settings(prometheus_port=0))
    other.feedback("elsewhere", good=True)
    assert "tierwise_feedback_total" not in page(telemetry)
    assert other.shutdown(10.0)
