"""The simulated workloads: they read back what they write, know the answer, and tiers differ as promised."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fallback.emulator import verifiers
from fallback.emulator.answers import Ask
from fallback.emulator.models import TIERS
from fallback.emulator.simulated import SimulatedSource
from fallback.emulator.workloads import WORKLOADS, Workload, grade, recognise
from fallback.emulator.workloads.base import Case, Curve, final_answer
from fallback.types import Message, Reply, Request, StopReason, TextBlock, Usage

NAMES = tuple(WORKLOADS)
VERIFIERS = {name: getattr(verifiers, name.replace("-", "_")) for name in NAMES}
HEADERS = {name: WORKLOADS[name].case(0, 0).prompt for name in NAMES}
index = st.integers(0, 10**9)


def verified(case: Case, text: str) -> bool:
    request = Request(case.workload, (Message("user", (TextBlock(case.prompt),)),), 500, 500)
    reply = Reply((TextBlock(text),), StopReason.END_TURN, Usage(), "m")
    return bool(VERIFIERS[case.workload](request, reply))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), number=index)
def test_a_case_is_recognised_from_its_prompt_alone(name: str, seed: int, number: int) -> None:
    case = WORKLOADS[name].case(seed, number)
    assert recognise(case.prompt) == case == WORKLOADS[name].case(seed, number)
    assert case.workload == name
    assert 0.0 <= case.difficulty <= 1.0
    assert case.answer
    if case.labels:
        assert case.answer in case.labels


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=120, deadline=None)
@given(number=index, tier=st.sampled_from(TIERS), right=st.booleans(), seed=st.integers(0, 2**32))
def test_drafts_are_right_or_wrong_as_ordered(name: str, number: int, tier: str, *, right: bool, seed: int) -> None:
    workload = WORKLOADS[name]
    case = workload.case(7, number)
    draft = workload.draft(case, tier, Random(seed), right=right)
    text = draft.final if workload.only_answer else "\n".join([*draft.lines, f"Answer: {draft.final}"])
    assert workload.grade(case, text) is right
    assert (draft.mistake == "") is right
    assert grade(case, text) is right
    if right:
        assert verified(case, text)


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_other_prompts_are_of_no_workload(text: str) -> None:
    assert recognise(text) is None
    for name in NAMES:
        assert recognise(HEADERS[name] + "\n" + text + ".") is None or not text.strip()


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_damaged_prompts_and_replies_break_nothing(name: str, data: st.DataObject) -> None:
    case = WORKLOADS[name].case(1, data.draw(index))
    cut = data.draw(st.integers(0, len(case.prompt)))
    put = data.draw(st.text(max_size=20))
    recognise(case.prompt[:cut] + put)
    recognise(case.prompt[:cut] + put + case.prompt[cut:])
    for text in (put, f"Answer: {put}", case.answer + put, "{" * 50_000):
        verified(case, text)
        grade(case, text)


def test_worked_examples() -> None:
    arithmetic = re.sub(r"Problem: .*", "Problem: ", HEADERS["word-arithmetic"], flags=re.DOTALL)
    case = recognise(
        arithmetic + "Maya runs a small bakery and begins the week with 48 loaves. A delivery brings 12 more loaves. "
        "Half of the remaining loaves goes to Graz. The shop next door has 7 loaves of its own. "
        "Then 3 boxes with 4 loaves each arrive. 50% of the loaves on hand are set aside for Cork and not counted any "
        "more. By Monday the stock has tripled. On Friday 3 loaves are sold. "
        "Each of the loaves that are left sells for 2 dollars; how many dollars do they bring in?"
    )
    assert case is not None
    assert case.answer == "120"  # (48 + 12) / 2 = 30; 30 + 12 = 42; 21; 63; 60; 120
    dates = re.sub(r"Question: .*", "Question: ", HEADERS["date-reasoning"], flags=re.DOTALL)
    start = "A parcel leaves Graz on 31 January 2024. "
    back = (
        "A fortnight passes before anybody notices it. The carrier then finds out that it is 2 days ahead of that plan."
    )
    for text, answer in (
        ("Exactly 1 months later it is moved on. On which date does it arrive (YYYY-MM-DD)?", "2024-02-29"),
        ("The paperwork takes 3 business days. On which date does it arrive (YYYY-MM-DD)?", "2024-02-05"),
        ("The paperwork takes 10 business days. On which day of the week does it arrive?", "Wednesday"),
        ("It then stands in a warehouse for 48 hours. How many days lie between departure and arrival?", "2"),
        (f"{back} How many hours lie between departure and arrival, counting whole days?", "288"),
    ):
        case = recognise(dates + start + text)
        assert case is not None
        assert case.answer == answer
    triage = HEADERS["ticket-triage"].partition("Ticket:\n")[0] + "Ticket:\n"
    case = recognise(triage + "I had to sign in twice on Monday, nothing unusual. I want my money back for order 7.")
    assert case is not None
    assert case.answer == "refund"


def test_extraction_lets_the_last_word_win_and_ignores_other_orders() -> None:
    head = "Read the message and return one JSON object with exactly these keys: customer, order_id, item, quantity, "
    rest = HEADERS["order-extraction"].partition(". Dates are")[2].partition("Message:\n")[0]
    case = recognise(
        f"{head}unit_price, delivery_date, phone. Dates are{rest}Message:\n"
        "Maya Berg here, writing privately. Our reference is AB-12345. "
        "We would like 4 desk lamps at 19.50 euros each. Please deliver to Graz by 3 March 2026. "
        "Last year we bought 9 whiteboards under order QT-99999, which went fine. "
        "Sorry, please make that 6 instead. Scratch that date: 10 April 2026 would suit us better."
    )
    assert case is not None
    assert json.loads(case.answer) == {
        "customer": "Maya Berg",
        "order_id": "AB-12345",
        "item": "desk lamps",
        "quantity": 6,
        "unit_price": 19.5,
        "delivery_date": "2026-04-10",
        "phone": None,
    }


def test_programs_print_what_python_prints() -> None:
    cases = [WORKLOADS["program-trace"].case(11, n) for n in range(60)]
    sources = [case.prompt.partition("```python\n")[2].removesuffix("\n```") for case in cases]
    printed = subprocess.run([sys.executable, "-c", "\n".join(sources)], capture_output=True, text=True, check=True)
    assert printed.stdout.split() == [case.answer for case in cases]


@pytest.mark.parametrize(
    "source",
    [
        "x = 1\nfor i in range(99):\n    for j in range(99):\n        x = x + 1\nprint(x)",
        "x = 9\nfor i in range(99):\n    x = x * x\nprint(x)",
        "x = 1\nfor i in range(3):\n    x = (x + y) % 7\nprint(x)",
        "x = 1\nfor i in range(3):\n    x = (x + i) % 0\nprint(x)",
        "x = 1\nfor i in range(3):\n    x = x + __import__\nprint(x)",
        "x = 1\nfor i in range(3):\nprint(x)",
        "x = 1\nelse:\n    x = 2\nprint(x)",
        "x = 1\n" * 50 + "print(x)",
        "x = 1\nprint(x)",
    ],
)
def test_programs_beyond_the_limits_are_not_recognised(source: str) -> None:
    header = HEADERS["program-trace"].partition("```python\n")[0]
    assert recognise(f"{header}```python\n{source}\n```") is None


# --- how the tiers do ----------------------------------------------------------------------------


def accuracy(workload: Workload, tier: str, n: int = 400, *, low: float = 0.0, high: float = 1.01) -> float:
    source = SimulatedSource(1)
    cases = [case for case in (workload.case(5, i) for i in range(n)) if low <= case.difficulty < high]
    return sum(source.is_right(case, tier) for case in cases) / len(cases)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(difficulty=st.floats(0, 0.99), more=st.floats(0.01, 1.0))
def test_curves_fall_with_difficulty_and_stay_probabilities(name: str, difficulty: float, more: float) -> None:
    for curve in WORKLOADS[name].curves.values():
        assert 0.0 <= curve.at(min(1.0, difficulty + more)) < curve.at(difficulty) <= 1.0


@pytest.mark.parametrize("name", [name for name in NAMES if name != "date-reasoning"])
@given(difficulty=st.floats(0, 1))
def test_dearer_tiers_are_never_worse_but_for_dates(name: str, difficulty: float) -> None:
    curves = WORKLOADS[name].curves
    assert curves["haiku"].at(difficulty) <= curves["sonnet"].at(difficulty) + 1e-9
    assert curves["sonnet"].at(difficulty) <= curves["opus"].at(difficulty) + 1e-9


@pytest.mark.parametrize("name", NAMES)
def test_replies_follow_the_curve(name: str) -> None:
    workload = WORKLOADS[name]
    cases = [workload.case(5, i) for i in range(400)]
    for tier in TIERS:
        expected = sum(workload.curves[tier].at(case.difficulty) for case in cases) / len(cases)
        assert accuracy(workload, tier) == pytest.approx(expected, abs=0.06)


def test_the_ladder_is_of_a_different_kind_in_each_workload() -> None:
    found = {name: {tier: accuracy(WORKLOADS[name], tier) for tier in TIERS} for name in NAMES}
    assert found["ticket-triage"]["haiku"] > 0.95
    assert found["program-trace"]["haiku"] < 0.08
    assert 0.3 < found["program-trace"]["sonnet"] < 0.6
    assert found["program-trace"]["opus"] > 0.9
    assert abs(found["date-reasoning"]["sonnet"] - found["date-reasoning"]["opus"]) < 0.03
    graded = found["word-arithmetic"]
    assert graded["haiku"] + 0.2 < graded["sonnet"] < graded["opus"]
    assert 0.8 < found["order-extraction"]["haiku"] < found["order-extraction"]["sonnet"]
    for name in ("word-arithmetic", "date-reasoning"):
        easy, hard = accuracy(WORKLOADS[name], "haiku", high=0.3), accuracy(WORKLOADS[name], "haiku", low=0.6)
        assert easy > 0.8
        assert hard < 0.4


def test_difficulty_shows_in_the_prompt_but_not_all_of_it() -> None:
    workload = WORKLOADS["word-arithmetic"]
    cases = [workload.case(5, i) for i in range(500)]
    lengths = [len(case.prompt) for case in cases]
    mean_length, mean = sum(lengths) / 500, sum(case.difficulty for case in cases) / 500
    pairs = list(zip(lengths, (case.difficulty for case in cases), strict=True))
    covariance = sum((x - mean_length) * (y - mean) for x, y in pairs)
    spread = (sum((x - mean_length) ** 2 for x, _ in pairs) * sum((y - mean) ** 2 for _, y in pairs)) ** 0.5
    assert 0.6 < covariance / spread < 0.97


# --- what checks can see -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "at_least", "at_most"),
    [
        ("word-arithmetic", 0.55, 0.95),
        ("order-extraction", 0.50, 0.90),
        ("program-trace", 0.80, 0.98),
        ("ticket-triage", 0.05, 0.60),
        ("date-reasoning", 0.10, 0.50),
    ],
)
def test_verifiers_accept_what_is_right_and_catch_a_part_of_what_is_wrong(
    name: str, at_least: float, at_most: float
) -> None:
    workload, source = WORKLOADS[name], SimulatedSource(1)
    wrong = caught = 0
    for number in range(3_000 if name == "ticket-triage" else 500):
        case = workload.case(5, number)
        text = source.answer(Ask(tier="haiku", model="m", prompt=case.prompt)).text
        right = grade(case, text)
        assert right == source.is_right(case, "haiku")
        passed = verified(case, text)
        assert passed or not right
        wrong += not right
        caught += not right and not passed
    assert wrong >= 10
    assert at_least <= caught / wrong <= at_most


def test_verifiers_read_replies_folded_into_json_too() -> None:
    source = SimulatedSource(1)
    schema = {
        "type": "object",
        "properties": {"reasoning": {"type": "string"}, "answer": {"type": "string"}},
        "required": ["reasoning", "answer"],
        "additionalProperties": False,
    }
    for name in ("word-arithmetic", "program-trace", "date-reasoning"):
        case = WORKLOADS[name].case(2, 4)
        assert source.is_right(case, "opus")
        text = source.answer(Ask(tier="opus", model="m", prompt=case.prompt, schema=schema)).text
        assert verified(case, text)
        assert not verified(case, '{"answer": "none"}')
        assert not verified(case, '{"other": 1}')


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("word-arithmetic", "Answer: 7"),
        ("word-arithmetic", "Sum: 2 + 2 = 5\nAnswer: 5"),
        ("word-arithmetic", "Sum: 2 + 2 = 4\nAnswer: 5"),
        ("word-arithmetic", "Part: 2 / 0 = 4\nAnswer: 4"),
        ("order-extraction", "{}"),
        ("order-extraction", "no JSON"),
        ("program-trace", "i = 0: x = 1\nAnswer: 1"),
        ("program-trace", "Answer: many"),
        ("ticket-triage", "praise"),
        ("date-reasoning", "2024-01-31 + 1 day -> 2024-02-30\nAnswer: 2024-02-30"),
        ("date-reasoning", "Answer: 2024-02-01"),
    ],
)
def test_verifiers_reject(name: str, text: str) -> None:
    assert not verified(WORKLOADS[name].case(1, 1), text)


def test_verifiers_need_their_own_prompt() -> None:
    other = Case("order-extraction", "Something else.", "{}", 0.5)
    assert not verified(other, "{}")
    assert not verified(Case("ticket-triage", "Something else.", "refund", 0.5), "refund")
    assert not verified(Case("program-trace", "Something else.", "1", 0.5), "i = 0: x = 1\nAnswer: 1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2 + 2 = 4\nAnswer: 4", "4"),
        ("answer: 3\nAnswer: **4**", "4"),
        ("Label: refund", "refund"),
        ('{"answer": 4}', "4"),
        ('{"label": "refund"}', "refund"),
        ('{"answer": [4]}', ""),
        ("{broken\nAnswer: 4", "4"),
        ("It is 4.", ""),
    ],
)
def test_final_answers_are_found(text: str, expected: str) -> None:
    assert final_answer(text) == expected


def test_grades_forgive_dress_but_not_content() -> None:
    arithmetic = WORKLOADS["word-arithmetic"].case(1, 1)
    assert grade(arithmetic, f"Answer: {int(arithmetic.answer):,} pieces")
    assert not grade(arithmetic, f"Answer: {int(arithmetic.answer) + 1}")
    extraction = WORKLOADS["order-extraction"].case(1, 1)
    assert grade(extraction, f"```json\n{extraction.answer}\n```")
    assert not grade(extraction, f"Sure: {extraction.answer}")
    triage = WORKLOADS["ticket-triage"].case(1, 1)
    assert grade(triage, f" {triage.answer}.\n")
    assert not grade(triage, f"{triage.answer}, billing")


def test_wrong_replies_carry_more_doubt_on_average() -> None:
    source, workload = SimulatedSource(1), WORKLOADS["word-arithmetic"]
    doubts = {True: [0, 0], False: [0, 0]}
    for number in range(600):
        case = workload.case(5, number)
        text = source.answer(Ask(tier="haiku", model="m", prompt=case.prompt)).text
        counts = doubts[source.is_right(case, "haiku")]
        counts[0] += any(word in text for word in ("Wait", "Hmm", "redo", "I think", "probably", "assuming"))
        counts[1] += 1
    shares = {right: hits / total for right, (hits, total) in doubts.items()}
    assert shares[False] > 2 * shares[True] > 0.0
    assert shares[False] < 0.75


def test_a_curve_runs_from_high_to_low() -> None:
    curve = Curve(0.9, 0.1, 0.5, 20.0)
    assert curve.at(0.5) == pytest.approx(0.5)
    assert curve.at(0.0) == pytest.approx(0.9, abs=0.001)
    assert curve.at(1.0) == pytest.approx(0.1, abs=0.001)
