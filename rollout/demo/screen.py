"""What a person sees: lines that stay, and below them a panel that is redrawn in place. Plain lines if no terminal."""

import shutil
from typing import IO, NamedTuple

RESET = "\x1b[0m"
STYLES = {
    "": "",
    "bold": "\x1b[1m",
    "dim": "\x1b[2m",
    "red": "\x1b[31m",
    "green": "\x1b[32m",
    "yellow": "\x1b[33m",
    "cyan": "\x1b[36m",
    "alarm": "\x1b[1;97;41m",
    "done": "\x1b[1;30;42m",
}
NARROWEST, WIDEST = 40, 120


class Span(NamedTuple):
    """A piece of a line in one style."""

    text: str
    style: str = ""


Line = tuple[Span, ...]


def fit(line: Line, width: int) -> Line:
    """The line, cut with an ellipsis where it is longer than `width`."""
    if sum(len(span.text) for span in line) <= width:
        return line
    kept: list[Span] = []
    left = width - 1
    for span in line:
        kept.append(Span(span.text[:left], span.style))
        left -= len(kept[-1].text)
        if left <= 0:
            break
    return (*kept, Span("…", kept[-1].style))


def wrap(line: Line, width: int, indent: int = 4) -> list[Line]:
    """The line in pieces of at most `width`, broken at blanks; the pieces after the first are indented."""
    lines: list[Line] = []
    rest = line
    first = plain(line)
    hanging = len(first) - len(first.lstrip()) + indent
    while sum(len(span.text) for span in rest) > width:
        text = "".join(span.text for span in rest)
        least = len(text) - len(text.lstrip())
        end = text.rfind(" ", least + 1, width + 1)
        if end <= least:
            break
        lines.append(_part(rest, 0, end))
        rest = (Span(" " * hanging), *_part(rest, end + 1, len(text)))
    return [*lines, rest]


def _part(line: Line, start: int, end: int) -> Line:
    """The columns from `start` to `end`."""
    kept = []
    for span in line:
        piece = span.text[max(0, start) : max(0, end)]
        if piece:
            kept.append(Span(piece, span.style))
        start, end = start - len(span.text), end - len(span.text)
    return tuple(kept)


def plain(line: Line) -> str:
    """The text alone."""
    return "".join(span.text for span in line).rstrip()


def coloured(line: Line) -> str:
    """The text with its styles as escape sequences."""
    return "".join(f"{STYLES[span.style]}{span.text}{RESET}" if span.style else span.text for span in line)


class Screen:
    """Writes to a stream; `live` redraws the panel, otherwise the panel is not shown at all."""

    def __init__(self, stream: IO[str], *, live: bool, colour: bool) -> None:
        self._stream = stream
        self._live, self._colour = live, colour
        self._panel: list[Line] = []
        self._write("\x1b[?25l" if live else "")  # without a cursor that jumps about

    @property
    def width(self) -> int:
        """Columns to use."""
        columns = shutil.get_terminal_size((100, 40)).columns if self._live else 100
        return max(NARROWEST, min(WIDEST, columns - 1))

    @property
    def rows(self) -> int:
        """Lines that a panel may have: what does not fit could not be erased again."""
        return shutil.get_terminal_size((100, 40)).lines - 1

    def say(self, *lines: Line) -> None:
        """Print lines that stay, above the panel; long ones are wrapped."""
        pieces = [piece for line in lines for piece in wrap(line, self.width)]
        self._write(self._erasing() + "".join(f"{self._text(piece)}\n" for piece in pieces) + self._drawn())

    def show(self, panel: list[Line]) -> None:
        """Replace the panel."""
        if self._live:
            erasing = self._erasing()
            self._panel = panel
            self._write(erasing + self._drawn())

    def close(self) -> None:
        """Leave the panel as it is, and give the cursor back."""
        self._panel = []
        self._write("\x1b[?25h" if self._live else "")

    def _erasing(self) -> str:
        """What takes the panel away: back to its first line, then clear to the end of the screen."""
        return f"\x1b[{len(self._panel)}F\x1b[J" if self._panel else ""

    def _drawn(self) -> str:
        if len(self._panel) > self.rows:
            hidden = (Span(f" … and {len(self._panel) - self.rows + 1} more lines in a taller terminal", "yellow"),)
            self._panel = [*self._panel[: max(0, self.rows - 1)], hidden]
        return "".join(f"{self._text(fit(line, self.width))}\n" for line in self._panel)

    def _text(self, line: Line) -> str:
        return coloured(line) if self._colour else plain(line)

    def _write(self, text: str) -> None:
        """In one piece, so that nothing flickers."""
        self._stream.write(text)
        self._stream.flush()
