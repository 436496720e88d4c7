"""What lies in deploy/ speaks of what there is: metrics, ports, probes, settings, commands."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import yaml
from click.testing import CliRunner

from fallback.emulator.static import StaticSource
from router.alarms import Alarm, Stream
from router.cli import main
from router.config import load_config
from router.health import SERVICES
from router.store.sql import SqlStore
from tests.service.test_complete import until
from tests.support.service import running, text_request
from training.cli import main as training

DEPLOY = Path(__file__).parents[2] / "deploy"
MANIFESTS = DEPLOY / "kubernetes"
CONTAINER = (DEPLOY / "Containerfile").read_text(encoding="utf-8")


def documents(path: Path) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(path.read_text(encoding="utf-8")) if each]


def objects() -> dict[tuple[str, str], dict[str, Any]]:
    """Everything that `kubectl apply -k` sends, by kind and name."""
    [kustomization] = documents(MANIFESTS / "kustomization.yaml")
    found = [each for name in kustomization["resources"] for each in documents(MANIFESTS / name)]
    return {(each["kind"], each["metadata"]["name"]): each for each in found}


def pods() -> dict[str, dict[str, Any]]:
    """The pod specifications of the service and of the night."""
    everything = objects()
    night = everything["CronJob", "tierwise-nightly"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return {"service": everything["Deployment", "tierwise"]["spec"]["template"]["spec"], "night": night}


# --- alerts ----------------------------------------------------------------------------------

_SELECTOR = re.compile(r"\b((?:tierwise|rpc)_[a-z0-9_]+)(?:\{([^}]*)\})?")
_FIXED = {"queue", "component", "result"}  # labels whose values do not hang on the configuration


async def exposed(tmp_path: Path) -> dict[str, list[dict[str, str]]]:
    """The labels of every series of a service to which everything has happened that is counted."""
    store = SqlStore(f"sqlite:///{tmp_path}/outcomes.db")
    store.write_alarms([Alarm("w", "opus", Stream.TRUTH, 1_000.0, "0" * 32, "v1")])
    store.close()
    labels = {"check": "labels", "labels": ["nothing"]}
    policy = {"checks": [labels], "hopeless": "escalate", "audit_share": 1.0, "audit_usd_per_day": 1e-9}
    faults = {"rules": [{"after": 4, "action": {"kind": "status", "status": 401}}]}
    sections = {"workloads": {"w": policy, "free": {**policy, "checks": []}}}
    telemetry = {"prometheus_listen": "127.0.0.1:0"}
    async with running(tmp_path, source=StaticSource("4"), faults=faults, telemetry=telemetry, **sections) as service:
        await service.router.Complete(text_request(workload="w"))  # haiku, sonnet, opus
        await service.router.Complete(text_request(workload="free"))
        await until(lambda: service.service.auditor.waiting == 0)
        with pytest.raises(Exception, match=r"."):
            await service.router.Complete(text_request(workload="w"))
        service.service.models._model = _ModelOf("01a20de1d9760000" + "0" * 16)  # type: ignore[assignment]
        url = f"http://127.0.0.1:{service.service.telemetry.prometheus_port}/metrics"
        page = await asyncio.to_thread(lambda: urlopen(url, timeout=5).read().decode())
        service.service.models._model = None
    series: dict[str, list[dict[str, str]]] = {}
    for name, inside in re.findall(r"^([a-z0-9_]+)(?:\{(.*)\})? ", page, re.MULTILINE):
        series.setdefault(name, []).append(dict(re.findall(r'([a-z_]+)="([^"]*)"', inside)))
    return series


class _ModelOf:
    """As much of a model as the metrics page looks at."""

    def __init__(self, fitted_until: str) -> None:
        self.version, self.fitted_until = "v1", fitted_until


async def test_every_metric_in_the_alert_rules_is_one_that_the_service_exposes(tmp_path: Path) -> None:
    [rules] = documents(DEPLOY / "alerts.yaml")
    flat = [rule for group in rules["groups"] for rule in group["rules"]]
    alerts = [rule for rule in flat if "alert" in rule]
    assert len(alerts) >= 15
    for rule in alerts:
        assert rule["labels"]["severity"] in ("page", "ticket"), rule
        assert rule["annotations"].keys() == {"summary", "action"}, rule
    series = await exposed(tmp_path)
    for rule in flat:
        selectors = _SELECTOR.findall(rule["expr"])
        assert selectors or re.search(r"\btierwise:", rule["expr"]), rule
        for name, matchers in selectors:
            assert name in series, f"{name}: no such metric"
            for label, how, value in re.findall(r'([a-z_]+)(=~?)"([^"]*)"', matchers):
                assert all(label in each for each in series[name]), f"{name}: no label {label}"
                if label in _FIXED:
                    wanted = set(value.split("|")) if how == "=~" else {value}
                    assert wanted <= {each[label] for each in series[name]}, f"{name}: no {label}={value}"
    recorded = {rule["record"] for rule in flat if "record" in rule}
    assert {name for rule in flat for name in re.findall(r"\btierwise:[a-z0-9_:]+", rule["expr"])} == recorded


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool (Debian: apt-get install prometheus)")
@pytest.mark.parametrize("command", [("check", "alerts.yaml"), ("test", "alerts.test.yaml")])
def test_prometheus_takes_the_rules_and_they_fire_when_they_should(command: tuple[str, str]) -> None:
    what, name = command
    done = subprocess.run(
        [str(shutil.which("promtool")), what, "rules", name], cwd=DEPLOY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


# --- Kubernetes ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [MANIFESTS / "tierwise.toml", DEPLOY / "replicas.toml", DEPLOY / "tierwise.toml"])
def test_the_configurations_pass_check_config(path: Path) -> None:
    checked = CliRunner().invoke(main, ["check-config", str(path)])
    assert checked.exit_code == 0, checked.output


def test_ports_and_probes_are_the_services_own() -> None:
    config = load_config(MANIFESTS / "tierwise.toml")
    [container] = pods()["service"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    listens = {"grpc": config.server.listen, "metrics": config.telemetry.prometheus_listen}
    assert ports == {name: int(address.rpartition(":")[2]) for name, address in listens.items()}
    assert {address.rpartition(":")[0] for address in listens.values()} == {"0.0.0.0"}
    for probe in ("startupProbe", "readinessProbe"):
        asked = container[probe]["grpc"]
        assert asked["port"] == ports["grpc"]
        assert asked.get("service", "") in SERVICES
    assert container["livenessProbe"]["tcpSocket"]["port"] in ports
    everything = objects()
    for port in everything["Service", "tierwise"]["spec"]["ports"]:
        assert ports[port["targetPort"]] == port["port"]
    allowed = [p["port"] for rule in everything["NetworkPolicy", "tierwise"]["spec"]["ingress"] for p in rule["ports"]]
    assert set(allowed) == set(ports)
    annotations = everything["Deployment", "tierwise"]["spec"]["template"]["metadata"]["annotations"]
    assert int(annotations["prometheus.io/port"]) == ports["metrics"]
    assert set(map(int, re.findall(r"^EXPOSE (.*)$", CONTAINER, re.MULTILINE)[0].split())) == set(ports.values())


def test_a_stop_has_the_time_that_its_configuration_asks_for() -> None:
    server, spec = load_config(MANIFESTS / "tierwise.toml").server, pods()["service"]
    probe = spec["containers"][0]["readinessProbe"]
    assert server.drain_s > probe["periodSeconds"] * probe["failureThreshold"]
    assert spec["terminationGracePeriodSeconds"] >= server.drain_s + server.grace_s + 10.0


@pytest.mark.parametrize("pod", ["service", "night"])
def test_every_path_is_mounted_and_what_is_written_can_be_written(pod: str) -> None:
    spec = pods()[pod]
    [container] = spec["containers"]
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert {mount["name"] for mount in mounts.values()} == {volume["name"] for volume in spec["volumes"]}
    assert container["securityContext"]["readOnlyRootFilesystem"]
    uid = re.findall(r"^USER (\d+)$", CONTAINER, re.MULTILINE)
    assert [str(spec["securityContext"]["runAsUser"])] == uid
    config = load_config(MANIFESTS / "tierwise.toml")
    written = {"/tmp": False, config.model.directory: pod == "service"}  # noqa: S108
    if pod == "service":
        written[str(Path(config.store.journal).parent)] = False
    for path, read_only in written.items():
        assert mounts[path].get("readOnly", False) is read_only, path
    [entry] = re.findall(r'^ENTRYPOINT \["(.*)"\]$', CONTAINER, re.MULTILINE)
    words = container.get("command") or [entry, *container["args"]]
    program, command, *options = words
    named = {"tierwise": main, "tierwise-training": training}[program].commands[command]  # type: ignore[attr-defined]
    known = {name for parameter in named.params for name in parameter.opts}
    assert {word for word in options if word.startswith("--")} <= known
    at = options[options.index("--config") + 1]
    [kustomization] = documents(MANIFESTS / "kustomization.yaml")
    [generated] = kustomization["configMapGenerator"]
    assert generated["files"] == [Path(at).name]
    assert "/" + at.strip("/").rpartition("/")[0] in mounts


def test_the_secret_brings_what_the_configuration_reads_from_the_environment() -> None:
    config = load_config(MANIFESTS / "tierwise.toml")
    keys = {endpoint.api_key_env for endpoint in config.endpoints.values()} | {"PGPASSWORD"}
    told = (MANIFESTS / "tierwise.toml").read_text(encoding="utf-8").splitlines()[0]
    assert all(key in told for key in keys), told
    for spec in pods().values():
        assert spec["containers"][0]["envFrom"] == [{"secretRef": {"name": "tierwise"}}]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl")
def test_kustomize_builds_what_is_written() -> None:
    command = [str(shutil.which("kubectl")), "kustomize", str(MANIFESTS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    built = {(each["kind"], each["metadata"]["name"].rsplit("-", 1)[0]) for each in yaml.safe_load_all(done.stdout)}
    assert ("ConfigMap", "tierwise") in built
    assert len(built) == len(objects()) + 1


# --- the container ---------------------------------------------------------------------------


def test_the_container_builds_from_what_there_is_and_ships_what_the_package_needs() -> None:
    root = DEPLOY.parent
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    copied = [
        source for line in re.findall(r"^COPY (?!--)(.*) \S+$", CONTAINER, re.MULTILINE) for source in line.split()
    ]
    assert all((root / source).exists() for source in copied), copied
    packages = {pattern.rstrip("*") for pattern in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    needed = packages | {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    assert needed <= {source.rstrip("/") for source in copied}
    locked = set(re.findall(r"-r (requirements/\S+)", CONTAINER))
    assert locked == {"requirements/bootstrap.txt", "requirements/runtime.txt"}
    assert all((root / each).exists() for each in locked)
    python = re.findall(r"python:(\d+\.\d+)-slim", CONTAINER)
    assert len(set(python)) == 1
    assert len(python) == 2
