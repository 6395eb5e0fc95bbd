"""How long to wait before the next attempt to connect. Decides only; waiting is the caller's."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential with full jitter: after a broker's restart a thousand devices must not come back in step.

    Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015 ("full jitter").
    """

    first_s: float = 0.25
    cap_s: float = 8.0
    rng: random.Random = field(default_factory=random.SystemRandom)

    def delay_s(self, failures: int) -> float:
        """Seconds to wait after `failures` failed attempts in a row (1 or more): uniform in [0, ceiling_s)."""
        return self.rng.random() * self.ceiling_s(failures)

    def ceiling_s(self, failures: int) -> float:
        """The longest wait after `failures` failed attempts: doubles each time, up to `cap_s`."""
        doublings = min(max(failures, 1) - 1, 32)
        return min(self.cap_s, self.first_s * 2.0**doublings)
