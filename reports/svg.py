"""SVG: a figure as markup that stands inside an HTML page beside other figures.

matplotlib writes a whole document with its own prologue, style and ids. Inlined, the style would
apply to the page and equal ids would collide (a clip path of one figure would cut another). So
only the <svg> element is kept; ids that something refers to get the figure's prefix, and the
others go. Text stays text. The output depends on the figure and the prefix only.
"""

import io
import re
from html import escape

import matplotlib
from matplotlib.axes import Axes

REFERENCE = re.compile(r'(url\(#|href="#)([^")]+)')
IDENTIFIER = re.compile(r' id="([^"]*)"')
ROOT = re.compile(r"<svg[^>]*>", re.DOTALL)
DROPPED = re.compile(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", re.DOTALL)
NO_METADATA: dict[str, str | None] = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def inline_svg(ax: Axes, prefix: str, label: str) -> str:
    """The whole figure of `ax` as an <svg> element; `prefix` is unique on the page."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}):
        figure.savefig(text, format="svg", metadata=NO_METADATA)
    return _embedded(text.getvalue(), prefix, label)


def _embedded(document: str, prefix: str, label: str) -> str:
    root = ROOT.search(document)
    assert root is not None
    box = re.search(r'viewBox="[^"]*"', root[0])
    assert box is not None
    inside = DROPPED.sub("", document[root.end() :])
    head = f'<svg {box[0]} role="img" aria-label="{escape(label)}">'
    return head + _prefixed(inside, prefix).strip()


def _prefixed(markup: str, prefix: str) -> str:
    used = {match[1] for match in REFERENCE.findall(markup)}
    renamed = REFERENCE.sub(rf"\g<1>{prefix}-\g<2>", markup)
    return IDENTIFIER.sub(lambda m: f' id="{prefix}-{m[1]}"' if m[1] in used else "", renamed)
