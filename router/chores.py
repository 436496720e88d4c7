"""What a running service does beside its requests, at the store: recover, and keep its promises about retention."""

from __future__ import annotations

import logging
from collections.abc import Callable

from fallback.clock import Clock
from router.config import Config
from router.experience import Experience
from router.recorder import Recorder
from router.store import StoreError

_log = logging.getLogger(__name__)
_RETENTION_EVERY_S = 3_600.0
_RECOVER_EVERY_S = 60.0
_SEED_WINDOW_S = 7 * 86_400.0


async def seed_experience(experience: Experience, recorder: Recorder, clock: Clock) -> None:
    """Yesterday's costs and escalation rates, so that a restart does not begin from list prices."""
    since_s = clock.wall_s() - _SEED_WINDOW_S
    try:
        experience.seed(await recorder.run(lambda store: store.stats(since_s=since_s)))
    except StoreError as error:
        _log.error("the store cannot be used now: %s; outcomes wait until it can", error)
        recorder.store_failed(error.code)


async def recover(recorder: Recorder, clock: Clock) -> None:
    """For ever: drain the journal that an earlier process left, at start and again for those that end later."""
    while True:
        try:
            await recorder.recover()
        except StoreError as error:
            _log.warning("the journal cannot be looked at now: %s", error)
        await clock.sleep(_RECOVER_EVERY_S)


async def enforce_retention(config_now: Callable[[], Config], recorder: Recorder, clock: Clock) -> None:
    """For ever: delete retained text past its workload's age limit, every hour."""
    while True:
        config = config_now()
        limits = {name: policy.retention_days * 86_400.0 for name, policy in config.workloads.items()}
        default_s = config.workload("default").retention_days * 86_400.0
        now_s = clock.wall_s()
        try:
            gone = await recorder.run(
                lambda store: store.enforce_retention(now_s=now_s, max_age_s=limits, default_max_age_s=default_s)  # noqa: B023 - awaited in this turn
            )
            if gone:
                _log.info("retention: %d texts deleted", gone)
        except StoreError as error:
            _log.warning("retention could not be enforced now: %s", error)
        await clock.sleep(_RETENTION_EVERY_S)
