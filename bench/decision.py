"""How long a decision takes: features, model and policy on a 1,000-character prompt, in one process.

    python bench/decision.py --models DIR [--repeat 5000]

DIR is a registry with a published model, such as the one that the demo leaves in its folder.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path

import numpy as np
from overhead import PROMPT

from fallback.types import Message, Request, TextBlock
from router.experience import Experience
from router.features import request_features
from router.model import load_model
from router.policy import Policy, Question

TIERS = ("haiku", "sonnet", "opus")


def measure(models: Path, repeat: int) -> dict[str, object]:
    """Microseconds, percentiles over `repeat` decisions, each timed alone after a warm-up."""
    version = (models / "current").read_text(encoding="utf-8").split()[0]
    model = load_model(models / "versions" / version)
    policy = Policy(Experience(TIERS), random.Random(0).random)
    request = Request("ticket-triage", (Message("user", (TextBlock(PROMPT),)),), 400, 400)
    cost_usd = {"haiku": 0.0001, "sonnet": 0.001, "opus": 0.002}
    parts: dict[str, list[float]] = {"features": [], "model_and_policy": [], "decision": []}
    for number in range(repeat + 500):
        started = time.perf_counter()
        features = request_features(request, text_cap_chars=8_000)
        between = time.perf_counter()
        policy.decide(Question(request.workload, TIERS, features, cost_usd, explore=0.02), model)
        ended = time.perf_counter()
        if number >= 500:
            parts["features"].append(between - started)
            parts["model_and_policy"].append(ended - between)
            parts["decision"].append(ended - started)
    figures: dict[str, object] = {"prompt_chars": len(PROMPT), "n": repeat, "model": version}
    for name, seconds in parts.items():
        p50, p99 = np.quantile(seconds, [0.5, 0.99]) * 1e6
        figures[name] = {"p50_us": round(float(p50)), "p99_us": round(float(p99))}
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--repeat", type=int, default=5_000)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.models, arguments.repeat), indent=2))
