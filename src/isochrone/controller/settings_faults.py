"""What is wrong with a settings file, in words: one line for a fault, with its key and its cure."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

Sections = Mapping[str, Mapping[str, FieldInfo]]
"""Section -> key -> field; a field's description says what to write."""


def describe_fault(fault: ErrorDetails, values: Mapping[str, Any], sections: Sections) -> str:
    """Return `section.key: what is wrong; what to write` for one fault that pydantic found in `values`."""
    where = [str(part) for part in fault["loc"]]
    if len(where) == 1 and where[0] in sections:
        return _describe_section(where[0], fault, sections)
    if fault["type"] == "extra_forbidden":
        return f"{'.'.join(where)}: {_describe_unknown(where, values, sections)}"
    section, key = where[:2]
    cure = f"write {sections[section][key].description}"
    match fault["type"]:
        case "missing":
            return f"{section}.{key}: is missing; {cure}"
        case "too_short":
            return f"{section}.{key}: is empty; {cure}"
        case "value_error":  # our own words, which name the cure
            return f"{section}.{key}: {fault['ctx']['error']}"
        case _:
            text = fault["msg"]
            return f"{section}.{key}: {fault['input']!r} is not usable: {text[:1].lower()}{text[1:]}; {cure}"


def _describe_section(section: str, fault: ErrorDetails, sections: Sections) -> str:
    if fault["type"] != "missing":
        return f"{section}: is not a section; write [{section}] and its keys below"
    needed = [key for key, field in sections[section].items() if field.is_required()]
    return f"{section}: is missing; write a section [{section}] with {', '.join(needed)}"


def _describe_unknown(where: list[str], values: Mapping[str, Any], sections: Sections) -> str:
    """Why an unknown name is refused, with the nearest known one: of its section first, then of any."""
    if len(where) == 1:
        near = difflib.get_close_matches(where[0], sections, n=1)
        if near:
            return f"is not a section; did you mean [{near[0]}]?"
        owners = [section for section, keys in sections.items() if where[0] in keys]
        if owners and not isinstance(values[where[0]], dict):
            return f"is outside a section; put it below [{'] or ['.join(owners)}]"
        return f"is not a section; known are {', '.join(sections)}"
    section, key = where[:2]
    near = difflib.get_close_matches(key, sections[section], n=1)
    if near:
        return f"is not a setting; did you mean {section}.{near[0]}?"
    owners = [other for other, keys in sections.items() if key in keys]
    if owners:
        return f"is not a setting; did you mean {owners[0]}.{key}?"
    return f"is not a setting; known are {', '.join(sections[section])}"
