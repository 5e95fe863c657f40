"""Frames of clients that nobody has written: commands with odd fields, and text that was changed at random."""

from __future__ import annotations

import json
import random
from typing import Any

from antiphon.wire.centrifuge.commands import COMMANDS

__all__ = ["frame"]

ODD: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1,
    7,
    2**31,
    2**53,
    2**70,
    0.5,
    -0.0,
    1e300,
    "",
    "a",
    "b",
    "é",
    "\ud800",
    [],
    {},
    [[]],
]


def value(rng: random.Random, depth: int = 0) -> Any:
    kind = rng.random()
    if kind < 0.6 or depth > 3:
        return rng.choice([*ODD, *"abc", rng.randrange(-(2**60), 2**60), "x" * rng.randrange(40)])
    if kind < 0.8:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {
        str(rng.choice(["channel", "offset", "epoch", "x"])): value(rng, depth + 1) for _ in range(rng.randrange(4))
    }


def command(rng: random.Random) -> dict[str, Any]:
    method = rng.choice(list(COMMANDS))
    fields: dict[str, Any] = {}
    for name, kind in COMMANDS[method].fields.items():
        if rng.random() < 0.8:
            good = {str: rng.choice("abcdef"), int: rng.randrange(5), bool: rng.random() < 0.5, dict: {"offset": 1}}
            fields[name] = good.get(kind, value(rng)) if rng.random() < 0.93 else value(rng)
    content: dict[str, Any] = {method: fields}
    if method != "send" or rng.random() < 0.05:
        content["id"] = rng.randrange(1, 1000) if rng.random() < 0.95 else value(rng)
    if rng.random() < 0.03:
        content[rng.choice([*COMMANDS, "zap"])] = value(rng)
    return content


def mutated(rng: random.Random, text: str) -> str:
    characters = list(text)
    for _ in range(rng.choice([0, 0, 0, 1, 3])):
        at = rng.randrange(len(characters) + 1)
        action = rng.randrange(4)
        if action == 0:
            characters[at:at] = rng.choice(
                ['"', "{", "}", "[" * 250, "\n", "\\u", "\\ud800", ",", "NaN", "1e999", "\x00"]
            )
        elif action == 1:
            del characters[at : at + rng.randrange(1, 6)]
        elif action == 2:
            characters[at:at] = characters[: rng.randrange(40)]
        elif characters:
            characters[min(at, len(characters) - 1)] = chr(
                rng.choice([0, 10, 34, 92, 123, 127, 0x2028, 0xD800, 0x1F600])
            )
    return "".join(characters)


def frame(rng: random.Random) -> Any:
    """Return what a client sends: mostly text, of one or more lines."""
    kind = rng.random()
    if kind < 0.02:
        return rng.choice([None, b"{}", "", "\n", 7, "{}" * 2000, "x" * 4000])
    if kind < 0.05:
        return "".join(chr(rng.randrange(32, 400)) for _ in range(rng.randrange(60)))
    lines = [json.dumps(command(rng)) if rng.random() < 0.95 else "{}" for _ in range(rng.choice([1, 1, 2, 5]))]
    return mutated(rng, "\n".join(lines))
