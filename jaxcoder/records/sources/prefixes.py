"""Prefixes of the codes of events: `LAB//RESULT` is that code, and all that begin `LAB//RESULT//`.

One that ends in `/` is a beginning as it stands. Each function gives SQL over a column `code`.
"""

from collections.abc import Iterable, Mapping

from jaxcoder.records.sources.columns import literal


def _longest(prefixes: Iterable[str]) -> list[str]:
    return sorted(prefixes, key=len, reverse=True)


def _begins(prefix: str) -> str:
    return prefix if prefix.endswith("/") else f"{prefix}//"


def has(prefixes: Iterable[str]) -> str:
    """SQL that is true of a code that has one of the prefixes."""
    tests = [f"code = {literal(p)} OR starts_with(code, {literal(_begins(p))})" for p in prefixes]
    return f"({' OR '.join(tests) or 'false'})"


def rest(prefixes: Iterable[str]) -> str:
    """SQL of what follows the longest of the prefixes that a code has."""
    cases = [
        f"WHEN {has([p])} THEN substr(code, {len(_begins(p)) + 1})" for p in _longest(prefixes)
    ]
    return f"CASE {' '.join(cases)} END" if cases else "CAST(NULL AS VARCHAR)"


def system_of(systems: Mapping[str, str]) -> str:
    """SQL of the system of a code, by the longest of the prefixes that it has."""
    cases = [f"WHEN {has([p])} THEN {literal(systems[p])}" for p in _longest(systems)]
    return f"CASE {' '.join(cases)} END"
