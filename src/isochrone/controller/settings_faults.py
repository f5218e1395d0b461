"""What is wrong with a settings file, in words: one line for a fault, with its key and its cure."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

Sections = Mapping[str, Mapping[str, FieldInfo]]
"""Section -> key -> field; a field's description says what to write."""


def describe_fault(fault: ErrorDetails, values: Mapping[str, Any], sections: Sections) -> str:
    """Return `section.key: what is wrong; what to write` for one fault that pydantic found in `values`."""
    where = [str(part) for part in fault["loc"]]
    entry = _entry_fields(where, sections)
    if entry is not None:
        name = f"{where[0]}.{where[1]}, number {int(where[2]) + 1}"
        return _describe_entry(f"{name}: {where[3]}", where[3], fault, entry)
    if len(where) == 1 and where[0] in sections:
        return _describe_section(where[0], fault, sections)
    if fault["type"] == "extra_forbidden":
        return f"{'.'.join(where)}: {_describe_unknown(where, values, sections)}"
    section, key = where[:2]
    return _describe_value(f"{section}.{key}", fault, sections[section][key])


def _describe_value(name: str, fault: ErrorDetails, field: FieldInfo) -> str:
    cure = f"write {field.description}"
    match fault["type"]:
        case "missing":
            return f"{name}: is missing; {cure}"
        case "too_short":
            return f"{name}: is empty; {cure}"
        case "value_error":  # our own words, which name the cure
            return f"{name}: {fault['ctx']['error']}"
        case _:
            text = fault["msg"]
            return f"{name}: {fault['input']!r} is not usable: {text[:1].lower()}{text[1:]}; {cure}"


def _entry_fields(where: list[str], sections: Sections) -> Mapping[str, FieldInfo] | None:
    """Return the fields of the entry of a list of tables (`[[copy.schedule]]`) that a fault is in, None for no such."""
    if len(where) < 4 or where[0] not in sections or where[1] not in sections[where[0]]:
        return None
    kinds = get_args(sections[where[0]][where[1]].annotation)
    is_table = len(kinds) == 1 and isinstance(kinds[0], type) and issubclass(kinds[0], BaseModel)
    return kinds[0].model_fields if is_table else None


def _describe_entry(name: str, key: str, fault: ErrorDetails, fields: Mapping[str, FieldInfo]) -> str:
    if fault["type"] != "extra_forbidden":
        return _describe_value(name, fault, fields[key])
    near = difflib.get_close_matches(key, fields, n=1)
    return f"{name}: is not a setting; " + (
        f"did you mean {near[0]}?" if near else f"known are {', '.join(fields)}"
    )


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
