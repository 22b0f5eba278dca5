"""The demo's report: one page of HTML, without anything from elsewhere, in dark and light. Pure."""

from __future__ import annotations

import html
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from string import Template
from typing import Final, NamedTuple

from .charts import Chart, Limit, Mark, Scale, areas, dots, lines
from .figures import Harm, harm_of, per_second, windows
from .records import REGIONS, SLOW_SECONDS, Row

__all__ = ["MOST_ERRORS", "Fault", "Moment", "Recording", "page"]

MOST_ERRORS: Final = 0.003
"""The share of failed answers that a version may have, as the shop's manifests have it."""
_MILLISECONDS: Final = 1000
_LEGEND_MOST: Final = 9
_DOTS: Final = {"fine": "a good answer", "wrong": "one that failed, or that was too slow"}
_CLOSER_KINDS: Final = ("commit", "step", "bad", "decision")
_CLOSE_SECONDS: Final = 2.0
"""What a closer look shows beyond the last that belongs to a version."""


class Moment(NamedTuple):
    """Something that happened. at: seconds since 1970; kind: commit, step, bad, decision, done or note.

    version: that it is about; 0 for none.
    """

    at: float
    kind: str
    event: str
    detail: str = ""
    version: int = 0


class Fault(NamedTuple):
    """A version that is to be taken back, and what is wrong with it."""

    version: int
    words: str = ""


class Recording(NamedTuple):
    """All that the report is made of. faults: in the order in which they were committed."""

    began: float
    rows: Sequence[Row]
    moments: Sequence[Moment]
    faults: Sequence[Fault] = (Fault(3),)

    def when(self, kind: str, version: int) -> float | None:
        """Return when the last moment of a kind was that is about a version."""
        return next((each.at for each in reversed(self.moments) if (each.kind, each.version) == (kind, version)), None)


def page(recording: Recording) -> str:
    """Return the report."""
    # The last second is not a whole one.
    last = math.floor(max((row.sent for row in recording.rows), default=0.0) - recording.began)
    seconds = max([10, last, *(math.ceil(moment.at - recording.began) for moment in recording.moments)])
    day = datetime.fromtimestamp(recording.began, UTC)
    template = Template(Path(__file__).with_suffix(".html").read_text(encoding="utf-8"))
    return template.substitute(
        day=f"{day:%Y-%m-%d %H:%M} UTC",
        lead=_lead(recording),
        tiles=_tiles(_totals(recording)),
        faults="".join(_fault(recording, each) for each in recording.faults),
        legend=_legend(recording.rows),
        charts=_charts(recording, seconds),
        rows="".join(_table_row(number, each, recording) for number, each in enumerate(recording.moments, 1)),
        note=html.escape(_NOTE.format(limit=_percent(MOST_ERRORS), slow=f"{SLOW_SECONDS * _MILLISECONDS:.0f}")),
    )


def _lead(recording: Recording) -> str:
    count = len(recording.faults)
    taken = sum(recording.when("decision", each.version) is not None for each in recording.faults)
    bad = {1: "The bad version was", 2: "Both bad versions were"}.get(count, f"All {count} bad versions were")
    if taken < count:
        bad = f"{taken} of {count} bad versions {'was' if taken == 1 else 'were'}"
    good = [each.version for each in recording.moments if each.kind == "done" and each.version]
    there = "".join(f"Version {version} reached everybody, region by region. " for version in good)
    return f"{there}{bad} taken back by the platform itself, in the cluster and in git."


def _totals(recording: Recording) -> list[tuple[str, str]]:
    bad = {each.version for each in recording.faults}
    failed = sum(row.is_failed for row in recording.rows if row.version not in bad)
    return [
        ("users hit of all that came", _percent(_hit(recording, bad))),
        ("requests in all", f"{len(recording.rows):,}"),
        ("failed of all other versions", f"{failed:,}"),
    ]


def _hit(recording: Recording, bad: Collection[int]) -> float:
    users = {row.user for row in recording.rows}
    return len({row.user for row in recording.rows if row.version in bad and row.is_bad}) / len(users) if users else 0.0


# One bad version


def _fault(recording: Recording, fault: Fault) -> str:
    """Return the part about a bad version."""
    harm = harm_of(recording.rows, fault.version)
    commit, decision = (recording.when(kind, fault.version) for kind in ("commit", "decision"))
    tiles = [
        ("commit to first bad answer", _seconds(commit, harm.first_bad)),
        ("first bad answer to decision", _seconds(harm.first_bad, decision)),
        ("decision to last request to it", _seconds(decision, harm.last_sent, 2)),
        ("users hit of those who came meanwhile", _percent(harm.share)),
    ]
    words = f": {html.escape(fault.words)}" if fault.words else ""
    return (
        f"<h2>Version {fault.version}{words}</h2>\n"
        f'<p class="sentence">{_sentence(fault, harm, decision)}</p>\n'
        f'<div class="tiles">{_tiles(tiles)}</div>\n{_closer(recording, fault, harm)}'
    )


def _sentence(fault: Fault, harm: Harm, decision: float | None) -> str:
    version = fault.version
    if harm.first_bad is None:
        return f"No answer of version {version} was bad."
    if decision is None:
        return f"Version {version} was not taken back."
    return (
        f"Version {version} was taken back by itself <strong>{decision - harm.first_bad:.1f} s</strong> after "
        f"its first bad answer. <strong>{harm.hit:,} of {harm.users:,} users</strong> who came meanwhile were hit."
    )


def _closer(recording: Recording, fault: Fault, harm: Harm) -> str:
    """Return a chart of each answer of a version, from its commit on; empty where there were none."""
    own = [row for row in recording.rows if row.version == fault.version]
    if not own or harm.last_sent is None:
        return ""
    commit = recording.when("commit", fault.version)
    begin = own[0].sent if commit is None else commit
    end = max(harm.last_sent, harm.last_bad or 0.0, recording.when("decision", fault.version) or 0.0) + _CLOSE_SECONDS
    marks = [each for each in _marks(recording, begin, *_CLOSER_KINDS) if 0 <= each.at <= end - begin]
    high = max(2.5 * SLOW_SECONDS, *(row.latency for row in own)) * _MILLISECONDS
    chart = Chart(f"Each answer of version {fault.version}", end - begin, Scale(1, high, " ms", is_log=True), marks)
    layers = {"fine": [row for row in own if not row.is_bad], "wrong": [row for row in own if row.is_bad]}
    points = {
        name: [(row.sent - begin, max(1.0, row.latency * _MILLISECONDS)) for row in rows]
        for name, rows in layers.items()
    }
    named = "".join(f'<span><i class="{name}"></i>{text}</span>' for name, text in _DOTS.items())
    title = f"Each request to version {fault.version}, by when it was sent after the commit and how long it took"
    svg = chart.svg(
        dots(chart, points), Limit(SLOW_SECONDS * _MILLISECONDS, f"limit {SLOW_SECONDS * _MILLISECONDS:.0f} ms")
    )
    return f'{_figure(title, svg)}<div class="key">{named}</div>\n'


def _marks(recording: Recording, begin: float, *kinds: str) -> list[Mark]:
    """Return moments of some kinds, of all where none is given, numbered as the table has them."""
    return [
        Mark(each.at - begin, number, each.kind, f"{number} {each.event}")
        for number, each in enumerate(recording.moments, 1)
        if not kinds or each.kind in kinds
    ]


# All of it


def _charts(recording: Recording, seconds: int) -> str:
    marks = _marks(recording, recording.began)
    counts = per_second(recording.rows, recording.began)
    seen = windows(recording.rows, recording.began, seconds)
    parts = [
        _figure("Requests a second, by the version that answered", _traffic(counts, seconds, marks)),
        *(_figure(f"Clients in {region}: share of each version", _share(counts, seconds, marks, number))
          for number, region in enumerate(REGIONS)),
        _figure("Failed answers of each version, over 5 s", _errors(
            {f"v{version}": [(each.at, 100 * each.errors) for each in found] for version, found in seen.items()},
            seconds, marks)),
        _figure("Latency of each version, 95th percentile over 5 s, in ms (logarithmic)", _latency(
            {f"v{version}": [(each.at, _MILLISECONDS * each.p95) for each in found] for version, found in seen.items()},
            seconds, marks)),
    ]  # fmt: skip
    return "".join(parts)


def _figure(title: str, svg: str) -> str:
    return f"<figure><figcaption>{html.escape(title)}</figcaption>{svg}</figure>\n"


def _layers(counts: Mapping[tuple[int, int, int], int], seconds: int, region: int | None) -> dict[str, list[float]]:
    layers: dict[str, list[float]] = {}
    for version in sorted({version for _, version, _ in counts}):
        layers[f"v{version}"] = [0.0] * seconds
    for (second, version, where), count in counts.items():
        if 0 <= second < seconds and region in {None, where}:
            layers[f"v{version}"][second] += count
    return layers


def _traffic(counts: Mapping[tuple[int, int, int], int], seconds: int, marks: Sequence[Mark]) -> str:
    layers = _layers(counts, seconds, None)
    high = max(map(sum, zip(*layers.values(), strict=True)), default=0.0)
    chart = Chart("Requests a second, by version", seconds, Scale(0, max(10, high * 1.05)), marks, 170)
    return chart.svg(areas(chart, layers))


def _share(counts: Mapping[tuple[int, int, int], int], seconds: int, marks: Sequence[Mark], region: int) -> str:
    layers = _layers(counts, seconds, region)
    totals = [sum(each) for each in zip(*layers.values(), strict=True)]
    shares = {
        name: [100 * value / total if total else 0.0 for value, total in zip(values, totals, strict=True)]
        for name, values in layers.items()
    }
    title = f"Share of each version in {REGIONS[region]}"
    chart = Chart(title, seconds, Scale(0, 100, " %"), marks, 60, is_numbered=False)
    return chart.svg(areas(chart, shares))


def _errors(layers: Mapping[str, Sequence[tuple[float, float]]], seconds: int, marks: Sequence[Mark]) -> str:
    high = max([1.0, *(value for points in layers.values() for _, value in points)])
    chart = Chart("Failed answers of each version", seconds, Scale(0, min(100, high * 1.1), " %"), marks, 120)
    limit = Limit(100 * MOST_ERRORS, f"limit {_percent(MOST_ERRORS)}")
    return chart.svg(lines(chart, layers), limit)


def _latency(layers: Mapping[str, Sequence[tuple[float, float]]], seconds: int, marks: Sequence[Mark]) -> str:
    most = SLOW_SECONDS * _MILLISECONDS
    high = max([2 * most, *(value for points in layers.values() for _, value in points)])
    chart = Chart("95th percentile of latency", seconds, Scale(1, high * 1.2, is_log=True), marks, 120)
    return chart.svg(lines(chart, layers), Limit(most, f"limit {most:.0f} ms"))


def _legend(rows: Sequence[Row]) -> str:
    found = sorted({row.version for row in rows})[:_LEGEND_MOST]
    names = {version: f"version {version}" if version else "no version answered" for version in found}
    return "".join(f'<span><i class="v{version}"></i>{name}</span>' for version, name in names.items())


def _table_row(number: int, moment: Moment, recording: Recording) -> str:
    event, detail = html.escape(moment.event), html.escape(moment.detail)
    return (
        f'<tr class="{moment.kind}"><td><b class="number">{number}</b></td>'
        f"<td>{moment.at - recording.began:.1f} s</td><td>{event}</td><td>{detail}</td></tr>\n"
    )


def _tiles(tiles: Iterable[tuple[str, str]]) -> str:
    return "".join(f"<div><b>{value}</b><span>{name}</span></div>" for name, value in tiles)


def _seconds(begin: float | None, end: float | None, digits: int = 1) -> str:
    return "-" if begin is None or end is None else f"{end - begin:.{digits}f} s"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


_NOTE: Final = (
    "Each request was recorded by the clients that sent it, from three regions, in an open loop: it was sent when "
    "it was due, and its latency counts from then. A user is one of 30,000 people, any of whom sends each "
    "request. An answer is bad where it failed (no answer, or a status of 500 and above) or took longer than "
    "{slow} ms. The judge looks each second at the last 5 s, and takes a version back that surely has more than "
    "{limit} of failed answers or a 95th percentile above {slow} ms."
)
