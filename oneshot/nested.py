"""Parts of nested dicts of arrays: without some paths, and put back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Tree = Any


def trained(tree: Tree, frozen: frozenset, prefix: str = "") -> Tree:
    """Return nested dicts without the arrays of the frozen paths."""
    if not frozen or not isinstance(tree, Mapping):
        return tree
    return {
        key: trained(value, frozen, f"{prefix}{key}/")
        for key, value in tree.items()
        if f"{prefix}{key}" not in frozen
    }


def part_like(tree: Tree, other: Tree) -> Tree:
    """Return of nested dicts what `other` has, too."""
    if not isinstance(other, Mapping):
        return tree
    return {key: part_like(tree[key], value) for key, value in other.items()}


def overlaid(tree: Tree, part: Tree) -> Tree:
    """Return nested dicts with the arrays of `part` in the place of their own."""
    if not isinstance(part, Mapping):
        return part
    return {
        key: overlaid(value, part[key]) if key in part else value
        for key, value in tree.items()
    }
