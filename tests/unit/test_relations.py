"""Links between the things a question asks about, and replies that walk them or do not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallback.types import Message, Reply, Request, StopReason, TextBlock, Usage
from router.features import Features
from router.relations import LINK_NAMES, find_link, link_features
from router.reply_features import reply_features

PROMPT = """Services call each other:
* Gateway calls Orders.
* Orders calls Stock.
* Billing calls Stock.
* Mailer calls Gateway.
* Mailer calls Printer.
How does Gateway reach Billing?
1. Gateway is upstream of Billing.
2. Gateway shares a callee with Billing."""


def seen(prompt: str, reply: str) -> dict[str, float]:
    return dict(zip(LINK_NAMES, link_features(find_link(prompt), reply, reply.lower()), strict=True))


def features(prompt: str, reply: str) -> Features:
    request = Request("calls", (Message("user", (TextBlock(prompt),)),), 100, 100)
    return reply_features(request, Reply((TextBlock(reply),), StopReason.END_TURN, Usage(output_tokens=9), "m"))


def test_the_link_is_the_shortest_way_with_its_directions() -> None:
    link = find_link(PROMPT)
    assert link is not None
    assert link.way == ("Gateway", "Orders", "Stock", "Billing")
    assert link.shape == "ffb"
    assert link.statements[0] == "gateway calls orders."
    assert "Mailer" not in link.way


def test_options_after_the_question_are_no_statements() -> None:
    link = find_link(PROMPT)
    assert link is not None
    assert ("Gateway", "Billing") not in link.stated


@pytest.mark.parametrize(
    "prompt",
    ["", "How many apples has Tom?", "Tom knows Ann. Eve knows Bob. Does Tom know Bob?", "Tom knows Ann. Tom is here."],
)
def test_no_question_about_two_linked_names_is_no_link(prompt: str) -> None:
    assert find_link(prompt) is None
    assert set(seen(prompt, "Tom knows Ann").values()) == {0.0}


def test_a_reply_that_walks_the_link_differs_from_one_that_jumps() -> None:
    walks = seen(PROMPT, "Gateway calls Orders, and Orders calls Stock. Billing calls Stock. <ANSWER>2</ANSWER>")
    jumps = seen(PROMPT, "Gateway calls Billing, as Mailer calls Gateway. <ANSWER>1</ANSWER>")
    assert (walks["link_steps"], walks["link_forward"], walks["link_turns"]) == (3, 2, 1)
    assert walks["link_walked"] == walks["link_named"] == 1.0
    assert walks["link_stated"] == pytest.approx(2 / 3)  # the first statement's full stop became a comma
    assert (jumps["link_walked"], jumps["link_stated"]) == (0.0, 0.0)
    assert jumps["log_pairs_new"] > walks["log_pairs_new"] == 0.0
    assert jumps["log_named_beside_link"] > 0.0


def test_the_same_answer_beside_another_shape_is_another_feature() -> None:
    turned = PROMPT.replace("* Billing calls Stock.", "* Stock calls Billing.")
    reply = "<ANSWER>2</ANSWER>"
    one, other = features(PROMPT, reply), features(turned, reply)
    assert 255 in one.counts.tolist()
    loud = [set(each.indices[each.counts == 255].tolist()) for each in (one, other)]
    assert loud[0]
    assert not loud[0] & loud[1]


def test_names_do_not_matter() -> None:
    renamed = PROMPT
    for old, new in (("Gateway", "Anna"), ("Orders", "Berta"), ("Stock", "Carla"), ("Billing", "Dora")):
        renamed = renamed.replace(old, new)
    one, other = find_link(PROMPT), find_link(renamed)
    assert one is not None
    assert other is not None
    assert one.shape == other.shape


@given(st.text(alphabet="AaBb Cc.?\n*,", max_size=300), st.text(max_size=100))
def test_any_text_gives_finite_features_in_order(prompt: str, reply: str) -> None:
    found = features(prompt, reply)
    assert all(abs(value) < 1e6 for value in found.dense.tolist())
    assert (found.indices[1:] > found.indices[:-1]).all()
    assert Features.from_bytes(found.to_bytes()).counts.tolist() == found.counts.tolist()
