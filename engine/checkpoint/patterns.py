"""Lists of layer names in a short form that stands for exactly the same names.

A pattern is a layer name in which a number may be `*` (any number) or a set such as `{0-3,7}`. Short matters: diffusers sends a
model's quantization config along as an HTTP header when it is small.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable

Indices = tuple[str, ...]


def is_index(part: str) -> bool:
    return part.isascii() and part.isdigit()


def template(name: str) -> tuple[str, Indices]:
    """A name with every number replaced by `*`, and the numbers."""
    parts = name.split(".")
    return ".".join("*" if is_index(part) else part for part in parts), tuple(part for part in parts if is_index(part))


def fill(pattern: str, values: Iterable[str]) -> str:
    """The pattern with its `*` and `{}` parts replaced by the values in turn; raises ValueError when their counts differ."""
    values = list(values)
    parts = pattern.split(".")
    slots = [i for i, part in enumerate(parts) if is_wild(part)]
    if len(slots) != len(values):
        raise ValueError(f"pattern {pattern!r}: {len(slots)} wildcards are needed to hold {len(values)} numbers")
    for slot, value in zip(slots, values, strict=True):
        parts[slot] = value
    return ".".join(parts)


def is_wild(part: str) -> bool:
    return part == "*" or part.startswith("{")


def compress(names: Collection[str], universe: Iterable[str]) -> list[str]:
    """Patterns that match, among the names of `universe`, exactly `names` (a subset of it), each once."""
    chosen: dict[str, list[Indices]] = defaultdict(list)
    present: dict[str, list[Indices]] = defaultdict(list)
    names = set(names)
    for name in universe:
        form, indices = template(name)
        present[form].append(indices)
        if name in names:
            chosen[form].append(indices)
    return [pattern for form, rows in chosen.items() for pattern in _compress_one(form, rows, present[form])]


def _compress_one(form: str, chosen: list[Indices], present: list[Indices]) -> list[str]:
    if len(chosen) == len(present):
        return [form]
    # A first number with all of its rows chosen joins one set; what is left is listed by everything but the first number.
    count = {first: sum(row[0] == first for row in present) for first, *_ in present}
    whole = [first for first in count if sum(row[0] == first for row in chosen) == count[first]]
    stars = ["*"] * (len(present[0]) - 1)
    patterns = [fill(form, [_as_set(whole), *stars])] if whole else []
    rest: dict[Indices, list[str]] = defaultdict(list)
    for first, *others in chosen:
        if first not in whole:
            rest[tuple(others)].append(first)
    return patterns + [fill(form, [_as_set(firsts), *others]) for others, firsts in rest.items()]


def _as_set(numbers: list[str]) -> str:
    """["0", "1", "2", "7"] -> "{0-2,7}"; a single number stays itself."""
    if len(numbers) == 1:
        return numbers[0]
    ranges: list[list[int]] = []
    for number in sorted(map(int, numbers)):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return "{" + ",".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges) + "}"


def expand(pattern: str, universe: Iterable[str]) -> dict[str, Indices]:
    """Every name of `universe` that the pattern matches -> the numbers its wildcards took. Raises ValueError for a bad set."""
    parts = [_parse_set(pattern, part) if part.startswith("{") else part for part in pattern.split(".")]
    matches: dict[str, Indices] = {}
    for name in universe:
        found = name.split(".")
        if len(found) == len(parts) and all(map(_matches, parts, found)):
            matches[name] = tuple(
                value for part, value in zip(parts, found, strict=True) if part == "*" or not isinstance(part, str)
            )
    return matches


def _matches(part: str | list[tuple[int, int]], value: str) -> bool:
    if isinstance(part, str):
        return part == value or (part == "*" and is_index(value))
    return is_index(value) and any(low <= int(value) <= high for low, high in part)


def _parse_set(pattern: str, part: str) -> list[tuple[int, int]]:
    ranges = []
    for item in part.removeprefix("{").removesuffix("}").split(","):
        bounds = item.split("-")
        if not part.endswith("}") or len(bounds) > 2 or not all(is_index(bound) and len(bound) < 7 for bound in bounds):
            raise ValueError(f"pattern {pattern!r}: a set like {{0-3,7}} is needed, got {part!r}")
        ranges.append((int(bounds[0]), int(bounds[-1])))
    return ranges
