"""What rests on the text and what does not."""

from __future__ import annotations

import pytest

from fallback.checks.grounded import GroundedCheck
from fallback.types import Accept, DocumentBlock, Message, Reject, Request, TextBlock, ToolResultBlock, Unjudged
from tests.support.fakes import case, reply, request

SOURCE = (
    "The Treaty of Harlow was signed on 4 May 1897 by Anna Brink and cost the town 12,500 crowns. "
    "The bridge opened in spring."
)


def asked(question: str = "When was the treaty signed, Clara?") -> Request:
    return request(messages=(Message("user", (DocumentBlock("text/plain", SOURCE.encode()), TextBlock(question))),))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("It was signed on 4 May 1897.", ""),
        ("1. It was signed in May.\n2. It cost 12500 crowns.", ""),
        ("Clara, the signing was in Harlow.", ""),
        ("The document does not say.", ""),
        ("", ""),
        ('{"date": "4 May 1897", "signer_name": "Anna Brink", "verified": true}', ""),
        ('The text says "the bridge opened in spring".', ""),
        ("It was signed by Peter Olsen.", "ungrounded_name"),
        ("It cost 13,000 crowns.", "ungrounded_number"),
        ('{"cost": 13000}', "ungrounded_number"),
        ('The text says "the bridge closed in winter".', "ungrounded_quote"),
        ("Photosynthesis converts sunlight to chemical energy inside chloroplasts.", "ungrounded"),
    ],
)
async def test_what_stands_nowhere_in_the_request_is_rejected(text: str, reason: str) -> None:
    judgement = await GroundedCheck().judge(case(reply(text), asked()))
    assert judgement.verdict == (Reject(reason) if reason else Accept())
    assert judgement.score is not None


async def test_what_is_ignored_does_not_reject() -> None:
    lenient = GroundedCheck(ignore=("numbers", "names", "quotes"), min_share=0.0)
    for text in ("By Peter Olsen.", "It cost 13,000 crowns.", 'It says "the bridge closed in winter".'):
        assert (await lenient.judge(case(reply(text), asked()))).verdict == Accept()


async def test_the_text_may_be_a_marked_part_of_the_prompt_or_a_tool_result() -> None:
    marked = request(f"Use only this. <text>{SOURCE}</text> What of photosynthesis in chloroplasts?")
    check = GroundedCheck(begin="<text>", end="</text>")
    assert (await check.judge(case(reply("The bridge opened in spring."), marked))).verdict == Accept()
    tool = ToolResultBlock("t1", (TextBlock(SOURCE),))
    result = request(messages=(Message("user", (tool,)),))
    assert (await GroundedCheck().judge(case(reply("It cost 99 crowns."), result))).verdict == Reject(
        "ungrounded_number"
    )
    assert (await check.judge(case(reply("x"), request("<text> no end")))).verdict == Unjudged("no_source")


async def test_no_text_and_too_much_of_it_are_unjudged() -> None:
    assert (await GroundedCheck().judge(case(reply("x"), request()))).verdict == Unjudged("no_source")
    pdf = request(messages=(Message("user", (DocumentBlock("application/pdf", b"%PDF"),)),))
    assert (await GroundedCheck().judge(case(reply("x"), pdf))).verdict == Unjudged("no_source")
    long = request(messages=(Message("user", (DocumentBlock("text/plain", b"word " * 50_000),)),))
    assert (await GroundedCheck().judge(case(reply("x"), long))).verdict == Unjudged("source_too_long")
