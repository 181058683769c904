"""Bar charts as SVG text: for each target the median, and a whisker from the lowest to the highest value."""
import math
from xml.sax.saxutils import escape

from .cases import IDLE_TITLE, TARGETS

WIDTH, LABEL_WIDTH, PANEL_GAP, MARGIN = 1040, 250, 36, 16
ROW, BAR, HEAD, FOOT = 28, 16, 84, 44
VALUE_ROOM = 62  # right of a panel's longest bar, for its number
COLOURS = {"ours": "#1f6fb4", "control": "#9dc3e6", "socks": "#d9822b", "plain": "#5b8c5a", "tls": "#5b8c5a", "dns": "#5b8c5a",
           "none": "#8a8a8a"}
LEGEND = {"ours": "socks6d", "control": "socks6d again (A/A)", "socks": "SOCKS proxies", "plain": "plain relays, no SOCKS",
          "tls": "TLS ended, no SOCKS", "dns": "resolver, no proxy", "none": "for comparison"}
FONT = "font-family=\"DejaVu Sans, Verdana, Helvetica, sans-serif\""


def colour_of(target):
    return "control" if target.endswith("-again") else TARGETS[target].group


def number(value):
    if value >= 1e6:
        return f"{value / 1e6:.3g} M"
    if value >= 1e4:
        return f"{value / 1e3:.3g} k"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def ticks(top):
    """About five round steps from 0 to `top`."""
    step = 10 ** math.floor(math.log10(top / 4))
    for factor in (1, 2, 5, 10):
        if top / (step * factor) <= 5:
            step *= factor
            break
    return [i * step for i in range(int(top / step + 1e-9) + 1)]


class Axis:
    """From values to x within a panel, linear from 0, or logarithmic over whole decades."""

    def __init__(self, values, left, width, is_log=False):
        self.left, self.width = left, width - VALUE_ROOM
        self.is_log = is_log
        top = max(values, default=1) or 1
        if is_log:
            self.low = math.floor(math.log10(max(min(values, default=1), 1)))
            self.high = max(math.log10(top), self.low + 1)
            self.marks = [10 ** i for i in range(self.low, math.floor(self.high) + 1)]
        else:
            self.top = top
            self.marks = ticks(top)

    def x(self, value):
        if self.is_log:
            share = (math.log10(max(value, 10 ** self.low)) - self.low) / (self.high - self.low)
        else:
            share = value / self.top
        return self.left + self.width * max(0.0, min(1.0, share))


def clip_of(values):
    """Where an axis ends so that one giant does not flatten all others; None if there is none. Longer bars are cut off."""
    values = sorted(values)
    if len(values) > 2 and values[-1] > 4 * values[-2] > 0:
        return 1.5 * values[-2]
    return None


def text(x, y, what, *, size=12, anchor="start", weight="normal", colour="#222222"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}" fill="{colour}">'
            f"{escape(what)}</text>")


def line(x1, y1, x2, y2, colour, width=1.0):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"/>'


def is_cut(axis, value):
    return not axis.is_log and value["median"] > axis.top


def bar(axis, target, value, top):
    """One target in one panel."""
    if value is None:
        return [text(axis.left + 4, top + BAR - 4, "-", colour="#666666")]
    middle, end = top + BAR / 2, axis.x(value["median"])
    parts = [f'<rect x="{axis.left:.1f}" y="{top:.1f}" width="{max(end - axis.left, 1):.1f}" height="{BAR}" '
             f'fill="{COLOURS[colour_of(target)]}"/>']
    if is_cut(axis, value):
        parts.append(text(end - 14, top + BAR - 3.5, "//", weight="bold", colour="#ffffff"))
        parts.append(text(end + 6, top + BAR - 3.5, number(value["median"])))
        return parts
    low, high = axis.x(value["low"]), axis.x(value["high"])
    parts.append(line(low, middle, high, middle, "#111111", 1.4))
    parts += [line(x, middle - 4, x, middle + 4, "#111111", 1.4) for x in (low, high)]
    parts.append(text(max(high, end) + 6, top + BAR - 3.5, number(value["median"])))
    return parts


def panel(left, width, title, rows, is_log=False):
    values = [value[key] for _, value in rows if value for key in ("median", "high")]
    if is_log:
        values += [value["low"] for _, value in rows if value]
    clip = None if is_log else clip_of([value["median"] for _, value in rows if value])
    axis = Axis([min(value, clip) for value in values] if clip else values, left, width, is_log)
    bottom = HEAD + ROW * len(rows)
    parts = [text(left, HEAD - 26, title + (" (logarithmic)" if is_log else ""), weight="bold")]
    for mark in axis.marks:
        parts.append(line(axis.x(mark), HEAD - 6, axis.x(mark), bottom, "#dddddd"))
        parts.append(text(axis.x(mark), HEAD - 10, number(mark) if mark else "0", size=10, anchor="middle", colour="#555555"))
    for row, (target, value) in enumerate(rows):
        parts += bar(axis, target, value, HEAD + ROW * row + (ROW - BAR) / 2)
    return parts


def legend(targets, y):
    parts, x = [], MARGIN
    for key, title in LEGEND.items():
        if any(colour_of(target) == key for target in targets):
            parts.append(f'<rect x="{x}" y="{y - 10}" width="12" height="12" fill="{COLOURS[key]}"/>')
            parts.append(text(x + 18, y, title, size=11))
            x += 40 + 7 * len(title)
    parts.append(text(WIDTH - MARGIN, y, "bars: medians; whiskers: lowest and highest", size=11, anchor="end", colour="#555555"))
    return parts


def draw(title, targets, panels):
    """`panels` is a list of (title, values by target, is_log)."""
    height = HEAD + ROW * len(targets) + FOOT
    parts = [text(MARGIN, 30, title, size=17, weight="bold")]
    for row, target in enumerate(targets):
        parts.append(text(LABEL_WIDTH, HEAD + ROW * row + ROW / 2 + 4, TARGETS[target].title, anchor="end"))
    left = LABEL_WIDTH + 12
    width = (WIDTH - MARGIN - left - PANEL_GAP * (len(panels) - 1)) / len(panels)
    for panel_title, values, is_log in panels:
        parts += panel(left, width, panel_title, [(target, values.get(target)) for target in targets], is_log)
        left += width + PANEL_GAP
    parts += legend(targets, height - 14)
    body = "\n".join(parts)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" {FONT}>\n'
            f'<title>{escape(title)}</title>\n<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>\n{body}\n</svg>\n')


def measure_chart(result):
    found = result["targets"]
    rate = {"1/s": "per second (more is better)", "GiB/s": "GiB/s (more is better)"}[result["rate_unit"]]
    cpu = {"CPU us": "proxy's CPU us each (less is better)",
           "CPU s/GiB": "proxy's CPU s per GiB (less is better)"}[result["cpu_unit"]]
    return draw(result["title"], list(found), [
        (rate, {t: v["rate"] for t, v in found.items()}, False),
        (cpu, {t: v.get("cpu") for t, v in found.items()}, False),
    ])


def idle_chart(idle):
    found = {target: value for target, value in idle.items() if target != "direct"}
    return draw(IDLE_TITLE, list(found), [
        ("user bytes", {t: v["user_bytes"] for t, v in found.items()}, True),
        ("descriptors", {t: v["descriptors"] for t, v in found.items()}, False),
    ])
