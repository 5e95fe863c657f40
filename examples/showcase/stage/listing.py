"""The code drawer: files of this project, read from disk as they are, with a little colour. Knows no request."""

import io
import keyword
import re
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from django.conf import settings
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe

_JAVASCRIPT = re.compile(
    r"(?P<comment>//[^\n]*|/\*.*?\*/)"
    r"|(?P<string>\"[^\"\n]*\"|'[^'\n]*'|`[^`]*`)"
    r"|(?P<keyword>\b(?:await|async|class|const|else|export|for|from|function|if|import|let|new|of|return|switch|case)\b)",
    re.DOTALL,
)
_TEMPLATE = re.compile(
    r"(?P<comment>\{#.*?#\}|<!--.*?-->)"
    r"|(?P<keyword>\{%.*?%\}|\{\{.*?\}\})"
    r"|(?P<name></?[a-z][a-z0-9]*|/?>)"
    r"|(?P<string>\"[^\"<]*?\")",
    re.DOTALL,
)


class Listing(NamedTuple):
    """One file as the drawer shows it."""

    name: str
    lines: int
    html: SafeString


def read(name: str) -> Listing:
    """Read a file of the project; ``name`` is relative to the folder of ``manage.py``."""
    text = Path(settings.BASE_DIR, name).read_text(encoding="utf-8").strip("\n") + "\n"
    if name.endswith(".py"):
        marks = _python_marks(text)
    else:
        marks = _marks(_TEMPLATE if name.endswith(".html") else _JAVASCRIPT, text)
    return Listing(name, text.count("\n"), _render(text, marks))


def _marks(pattern: re.Pattern[str], text: str) -> Iterator[tuple[int, int, str]]:
    for match in pattern.finditer(text):
        yield match.start(), match.end(), match.lastgroup or ""


def _python_marks(text: str) -> Iterator[tuple[int, int, str]]:
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    previous = ""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        kind = ""
        if token.type == tokenize.COMMENT:
            kind = "comment"
        elif token.type == tokenize.STRING or tokenize.tok_name[token.type].startswith("FSTRING"):
            kind = "string"
        elif token.type == tokenize.NAME:
            if previous in {"def", "class"}:
                kind = "name"
            elif keyword.iskeyword(token.string) or _begins_match(token):
                kind = "keyword"
            previous = token.string
        if kind:
            (row, column), (end_row, end_column) = token.start, token.end
            yield starts[row - 1] + column, starts[end_row - 1] + end_column, kind


def _begins_match(token: tokenize.TokenInfo) -> bool:
    # Soft keywords are names elsewhere; at the start of a line they are keywords in all the code shown here.
    return token.string in {"match", "case"} and not token.line[: token.start[1]].strip()


def _render(text: str, marks: Iterable[tuple[int, int, str]]) -> SafeString:
    parts, position = [], 0
    for start, end, kind in marks:
        parts.append(escape(text[position:start]))
        parts.append(f'<span class="t-{kind}">{escape(text[start:end])}</span>')
        position = end
    parts.append(escape(text[position:]))
    return mark_safe("".join(parts))  # noqa: S308 - every piece of the file was escaped above
