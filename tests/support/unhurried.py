"""Hypothesis, where the machine has others to serve: an input is judged, never how long it took."""

from __future__ import annotations

from functools import partial

from hypothesis import HealthCheck, settings

unhurried = partial(settings, deadline=None, suppress_health_check=[HealthCheck.too_slow])
