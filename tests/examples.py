"""How many examples Hypothesis tries: what each test asks for, times what the profile says.

HYPOTHESIS_PROFILE=quick: a fifth, for runs under a sanitizer; thorough: twenty times as many, for a night.
No profile has a deadline or minds slow examples: a busy machine is no bug.
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, settings

FACTORS = {"quick": 0.2, "default": 1.0, "thorough": 20.0}
PATIENCE: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "default")


def examples(count: int) -> settings:
    """The decorator of a test that tries ``count`` examples by default."""
    return settings(max_examples=max(1, round(count * FACTORS[PROFILE])), **PATIENCE)


def register() -> None:
    """Makes the profile the default of tests that ask for no number; 60 examples."""
    for name, factor in FACTORS.items():
        settings.register_profile(name, max_examples=round(60 * factor), **PATIENCE)
    settings.load_profile(PROFILE)
