"""A model update makes haiku worse within the day: noticed, suspended, not certified any more, and quality kept."""

from __future__ import annotations

from router.alarms import Stream
from tests.support.day import ALLOWED, simulate

WINDOW = 400  # consecutive requests: standard error at most 1.4 points at the target


async def test_after_the_alarm_quality_is_never_a_point_below_the_target() -> None:
    day = await simulate(0, night=3_000, requests=3_000)
    assert day.alarm_s is not None
    first = next(alarm for alarm in day.alarms if alarm.tier == "haiku")
    assert (first.stream, first.cleared) == (Stream.TRUTH, False)
    assert day.update_s < day.alarm_s < day.update_s + 3 * 3_600.0  # reports come half an hour late
    before, hurt, after = (
        day.after(0.0, day.update_s),
        day.after(day.update_s, day.alarm_s),
        day.after(day.alarm_s),
    )

    def share(tier: str, of: list) -> float:  # type: ignore[type-arg]
        return sum(each.tier == tier for each in of) / len(of)

    assert share("haiku", before) > 0.4  # certified, and worth its price
    assert sum(each.good for each in hurt) / len(hurt) < 1.0 - ALLOWED
    assert share("haiku", after) < 0.05  # exploration goes on trying it
    assert day.worst_window(day.alarm_s, WINDOW) >= 1.0 - ALLOWED - 0.01
    states = dict(day.certified)
    assert {state for at_s, state in states.items() if at_s < day.alarm_s} == {"certified"}
    assert "certified" not in {state for at_s, state in states.items() if at_s > day.alarm_s}
