"""Settings of a session, between the words of the API (milliseconds) and those of the session (nanoseconds)."""

from __future__ import annotations

from isochrone.api.requests import SettingsRequest
from isochrone.model.choices import PaceLevel
from isochrone.report.models import SessionSettings
from isochrone.report.times import NS_PER_MS, NS_PER_S
from isochrone.session.document import SessionDocument


def chosen_settings(request: SettingsRequest) -> dict[str, object]:
    """Return the settings that `request` gives, as transitions.with_settings takes them."""
    settings = {
        "group_interval_ns": _ns(request.group_interval_ms),
        "group_bytes_max": request.group_bytes_max,
        "retry_ns_max": _ns(request.retry_ms_max),
        "retry_tracks_max": request.retry_tracks_max,
        "history_ns_max": _ns_of_s(request.history_s_max),
        "history_bytes_max": request.history_bytes_max,
        "compression": request.compression,
        "overflow_policy": request.overflow_policy,
        "pace_level": request.pace_level,
        "pace_delay_ns_max": _ns(request.pace_delay_ms_max),
        "hold_ns_max": _ns(request.hold_ms_max),
        "copy_rate_bytes_max": request.copy_rate_bytes_max,
        "copy_share_percent": request.copy_share_percent,
        "compare": request.compare,
        "mark_policy": request.mark_policy,
        "link_timeout_ns": _ns_of_s(request.link_timeout_s),
        "auto_resume": request.auto_resume,
        "auto_resume_budget_ns": _ns_of_s(request.auto_resume_budget_s),
    }
    return {name: value for name, value in settings.items() if value is not None}


def chosen_pair_pace(request: SettingsRequest) -> dict[str, PaceLevel | None]:
    """Return the pace levels that `request` gives to pairs, None for the session's."""
    return {
        name: level if isinstance(level, PaceLevel) else None
        for name, level in (request.pair_pace or {}).items()
    }


def settings_report(document: SessionDocument) -> SessionSettings:
    """Return the settings that a session runs with."""
    policy = document.policy
    return SessionSettings(
        group_interval_ms=document.group_interval_ns / NS_PER_MS,
        group_bytes_max=document.group_bytes_max,
        retry_ms_max=document.retry_ns_max / NS_PER_MS,
        retry_tracks_max=document.retry_tracks_max,
        history_s_max=document.history_ns_max / NS_PER_S,
        history_bytes_max=document.history_bytes_max,
        compression=document.compression,
        overflow_policy=policy.overflow_policy,
        pace_level=policy.pace_level,
        hold_ms_max=policy.hold_ns_max / NS_PER_MS,
        pace_delay_ms_max=policy.pace_delay_ns_max / NS_PER_MS,
        copy_rate_bytes_max=policy.copy_rate_bytes_max,
        copy_share_percent=policy.copy_share_percent,
        compare=policy.compare,
        mark_policy=policy.mark_policy,
        link_timeout_s=policy.link_timeout_ns / NS_PER_S,
        auto_resume=policy.auto_resume,
        auto_resume_budget_s=policy.auto_resume_budget_ns / NS_PER_S,
    )


def _ns(time_ms: float | None) -> int | None:
    return None if time_ms is None else round(time_ms * NS_PER_MS)


def _ns_of_s(time_s: float | None) -> int | None:
    return None if time_s is None else round(time_s * NS_PER_S)
