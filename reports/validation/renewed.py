"""Renewed: the document with some of its figures made again, the rest as it stands.

Making everything takes most of an hour; a change of the model often reaches a few rows only. Of a
new document that holds just these,

    sections named as whole     take the place of the old ones
    rows of tables              take the place of those with the same first cell under the same head
    lines of what falls short   take the place of those about the same rows

and a line at the top says what was made when. What is not made again must not be touched by the
change: whoever renews decides that.
"""

import re
from collections.abc import Collection, Iterator, Sequence

SHORT = "What falls short"
MADE = re.compile(r"^Made .*$", re.MULTILINE)
AGAIN = re.compile(r" Again on (\S+): ([^.]*)\.")


def renewed(old: str, new: str, whole: Collection[str], day: str, words: Sequence[str]) -> str:
    """The old text with what the new one has. words: what was made again, on that day."""
    fresh = dict(_sections(new))
    titles = [cell for body in fresh.values() for cell, _, _ in _rows(body)]
    parts = []
    for title, body in _sections(old):
        if title in fresh and title in whole:
            body = fresh[title]
        elif title == SHORT:
            body = _shortened(body, fresh[title], titles)
        elif title in fresh and title:
            body = _with_rows(body, fresh[title])
        parts.append(f"## {title}\n{body}" if title else _made(body, day, words))
    return "".join(parts)


def _made(body: str, day: str, words: Sequence[str]) -> str:
    """The line that says what was made when, with these words for the day once each."""

    def told(line: re.Match[str]) -> str:
        days: dict[str, list[str]] = {}
        for each, named in (*AGAIN.findall(line[0]), (day, ", ".join(words))):
            known = days.setdefault(each, [])
            known += [word for word in named.split(", ") if word not in known]
        again = "".join(f" Again on {each}: {', '.join(known)}." for each, known in days.items())
        return line[0].partition(" Again on ")[0] + again

    return MADE.sub(told, body, count=1)


def _sections(text: str) -> Iterator[tuple[str, str]]:
    """(title, body), the first without a title."""
    first, *others = re.split(r"^## ", text, flags=re.MULTILINE)
    yield "", first
    for each in others:
        title, _, body = each.partition("\n")
        yield title, body


def _rows(body: str) -> Iterator[tuple[str, str, str]]:
    """(first cell, head of the table, line) of every row of every table."""
    head = ""
    for line in body.splitlines():
        if not line.startswith("|"):
            head = ""
        elif not head:
            head = line
        elif line.startswith("| "):
            yield line.split("|")[1].strip(), head, line


def _with_rows(body: str, fresh: str) -> str:
    made = {(cell, head): line for cell, head, line in _rows(fresh)}
    known = {line: made.get((cell, head), line) for cell, head, line in _rows(body)}
    return "\n".join(known.get(line, line) for line in body.split("\n"))


def _shortened(body: str, fresh: str, titles: Collection[str]) -> str:
    lines = [line for line in body.splitlines() if line.startswith("- ")]
    kept = [line for line in lines if not any(line.startswith(f"- {each}:") for each in titles)]
    new = [line for line in fresh.splitlines() if line.startswith("- ")]
    found = [line for line in kept + new if line != "- Nothing."] or ["- Nothing."]
    return "\n" + "".join(f"{line}\n" for line in found)
