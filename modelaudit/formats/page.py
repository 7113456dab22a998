"""What all HTML pages share: their templates, and how values are written in them."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from modelaudit.formats.wording import p_text


@cache
def page_template(name: str) -> Template:
    """The template ``<name>.html.jinja``; every text that is put in it is escaped."""
    environment = Environment(
        loader=PackageLoader("modelaudit.formats", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["p"] = p_text
    environment.filters["plain"] = _plain
    return environment.get_template(f"{name}.html.jinja")


def _plain(value: object) -> str:
    """A value of the settings for a person."""
    if value is None or value in ({}, [], ()):
        return "-"
    if isinstance(value, dict):
        return ", ".join(f"{key} = {_plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return str(value)
