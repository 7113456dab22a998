"""The page of the JSON reports, from their schemas and the classes that they describe."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import modelaudit
from modelaudit.failure import Failure
from modelaudit.fleet.evaluation import Evaluation
from modelaudit.fleet.sweep_summary import SweepSummary
from modelaudit.report import Report
from modelaudit.screen_report import ScreenReport
from tests.docs.markdown import code, meanings, plain, table

_FOLDER = Path(modelaudit.__file__).parent
#: Schema -> the class of the report that is no failure.
_CLASSES: Mapping[str, type] = {
    "evaluation": Evaluation,
    "report": Report,
    "screen": ScreenReport,
    "sweep": SweepSummary,
}
_BOUNDS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "pattern": "`{}`",
    "minItems": "at least {}",
    "maxItems": "at most {}",
}
Row = tuple[str, str, str]


def schemas_page() -> str:
    """Every shipped schema, field by field."""
    parts = [
        "# JSON reports\n",
        "The reports of `scan`, `screen`, `sweep` and `evaluate` have a schema and a "
        "`schema_version`. A major number changes when a field is removed or changes its meaning, "
        "a minor one when a field is added. Fields in *italics* are optional. `[]` "
        "stands for each element of a list, `{}` for each value of an object.\n",
    ]
    for path in sorted(_FOLDER.glob("*.schema.json")):
        name = path.name.partition(".")[0]
        parts += [_Page(name, json.loads(path.read_text("utf-8"))).text()]
    return "\n".join(parts)


class _Page:
    """One schema. Definitions that are objects get a section of their own, others are put in."""

    def __init__(self, name: str, schema: dict[str, Any]) -> None:
        self.name, self.schema = name, schema
        self.waiting: dict[str, type | None] = {}

    def text(self) -> str:
        title = plain(str(self.schema.get("title", self.name)))
        link = f"[`{self.name}.schema.json`](../../modelaudit/{self.name}.schema.json)"
        parts = [f"## {title}\n", f"Schema: {link}\n"]
        if "properties" in self.schema:
            parts += [self._fields(self.schema, _CLASSES.get(self.name))]
        for one in self.schema.get("oneOf", []):
            known = Failure if one["$ref"].endswith("/failure") else _CLASSES.get(self.name)
            self.waiting[one["$ref"].rpartition("/")[2]] = known
        done: set[str] = set()
        while todo := [name for name in self.waiting if name not in done]:
            done.add(todo[0])
            parts += [f"### {self.name}: {todo[0]}\n"]
            parts += [self._fields(self.schema["$defs"][todo[0]], self.waiting[todo[0]])]
        return "\n".join(parts)

    def _fields(self, schema: dict[str, Any], known: type | None) -> str:
        return table(("field", "type", "meaning"), self._rows("", schema, known))

    def _rows(self, prefix: str, schema: dict[str, Any], known: type | None) -> Iterator[Row]:
        said = meanings(known) if known else {}
        hints = get_type_hints(known) if known else {}
        for name, one in schema.get("properties", {}).items():
            inner = _class_in(hints.get(name))
            field = code(prefix + name)
            if name not in schema.get("required", []):
                field = f"*{field}*"
            meaning = plain(one.get("description", "")) or said.get(name, "")
            yield field, self._type(one, inner), meaning.replace("`None`", "`null`")
            yield from self._inner(prefix + name, one, inner)

    def _inner(self, path: str, one: dict[str, Any], known: type | None) -> Iterator[Row]:
        """Rows of what an object, or the elements of a list, consist of."""
        if isinstance(one.get("items"), dict):
            one, path = one["items"], path + "[]"
        elif isinstance(one.get("additionalProperties"), dict):
            one, path = one["additionalProperties"], path + "{}"
        if "properties" in one:
            yield from self._rows(path + ".", one, known)

    def _type(self, one: dict[str, Any], known: type | None) -> str:
        if "$ref" in one:
            return self._reference(one["$ref"].rpartition("/")[2], known)
        for key in ("oneOf", "anyOf"):
            if key in one:
                return " or ".join(self._type(choice, known) for choice in one[key])
        if "enum" in one or "const" in one:
            values = one.get("enum", [one.get("const")])
            return ", ".join(code("null" if value is None else value) for value in values)
        kinds = one.get("type", "any")
        kinds = " or ".join(kinds) if isinstance(kinds, list) else kinds
        if isinstance(one.get("items"), dict) and "properties" not in one["items"]:
            kinds += f" of {self._type(one['items'], known)}"
        if isinstance(one.get("additionalProperties"), dict):
            kinds += f" of {self._type(one['additionalProperties'], known)}"
        bounds = [words.format(one[key]) for key, words in _BOUNDS.items() if key in one]
        return ", ".join([kinds, *bounds])

    def _reference(self, name: str, known: type | None) -> str:
        definition = self.schema["$defs"][name]
        if "properties" not in definition:
            return self._type(definition, known)
        self.waiting.setdefault(name, known)
        return f"[{name}](#{self.name}-{name})"


def _class_in(hint: Any) -> type | None:
    """The dataclass in a type hint such as ``tuple[X, ...]`` or ``X | None``."""
    if isinstance(hint, type) and is_dataclass(hint):
        return hint
    return next((found for one in get_args(hint) if (found := _class_in(one))), None)
