"""The demo's report: one page of HTML, without anything from elsewhere, in dark and light. Pure."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from string import Template
from typing import Final, NamedTuple

from .charts import Chart, Limit, Mark, Scale, areas, lines
from .figures import Harm, harm_of, per_second, windows
from .records import REGIONS, SLOW_SECONDS, Row

__all__ = ["MOST_ERRORS", "Moment", "Recording", "page"]

MOST_ERRORS: Final = 0.003
"""The share of failed answers that a version may have, as the shop's manifests have it."""
_MILLISECONDS: Final = 1000
_LEGEND_MOST: Final = 9


class Moment(NamedTuple):
    """Something that happened. at: seconds since 1970; kind: commit, step, bad, decision, done or note."""

    at: float
    kind: str
    event: str
    detail: str = ""


class Recording(NamedTuple):
    """All that the report is made of. faulty: the version that was taken back, and what was wrong with it."""

    began: float
    rows: Sequence[Row]
    moments: Sequence[Moment]
    faulty: int = 3
    fault: str = ""


def page(recording: Recording) -> str:
    """Return the report."""
    # The last second is not a whole one.
    last = math.floor(max((row.sent for row in recording.rows), default=0.0) - recording.began)
    seconds = max([10, last, *(math.ceil(moment.at - recording.began) for moment in recording.moments)])
    harm = harm_of(recording.rows, recording.faulty)
    day = datetime.fromtimestamp(recording.began, UTC)
    template = Template(Path(__file__).with_suffix(".html").read_text(encoding="utf-8"))
    return template.substitute(
        day=f"{day:%Y-%m-%d %H:%M} UTC",
        sentence=_sentence(recording, harm),
        tiles=_tiles(recording, harm),
        legend=_legend(recording.rows),
        charts=_charts(recording, seconds),
        rows="".join(_table_row(number, each, recording) for number, each in enumerate(recording.moments, 1)),
        note=html.escape(_NOTE.format(limit=_percent(MOST_ERRORS), slow=f"{SLOW_SECONDS * _MILLISECONDS:.0f}")),
    )


def _moment(recording: Recording, kind: str) -> float | None:
    """Return when the last moment of a kind was."""
    return next((each.at for each in reversed(recording.moments) if each.kind == kind), None)


def _sentence(recording: Recording, harm: Harm) -> str:
    version, decision = recording.faulty, _moment(recording, "decision")
    if harm.first_bad is None:
        return f"No answer of version {version} was bad."
    fault = html.escape(f" ({recording.fault})" if recording.fault else "")
    if decision is None:
        return f"Version {version}{fault} was not taken back."
    return (
        f"Version {version}{fault} was taken back by itself <strong>{decision - harm.first_bad:.1f} s</strong> after "
        f"its first bad answer. <strong>{harm.hit:,} of {harm.users:,} users</strong> who came meanwhile were hit, "
        f"{_percent(harm.share)}."
    )


def _tiles(recording: Recording, harm: Harm) -> str:
    commit, decision = _moment(recording, "commit"), _moment(recording, "decision")
    good = [row for row in recording.rows if row.version != recording.faulty]
    tiles = [
        ("commit to first bad answer", _seconds(commit, harm.first_bad)),
        ("first bad answer to decision", _seconds(harm.first_bad, decision)),
        ("decision to last request to it", _seconds(decision, harm.last_sent)),
        ("users hit", _percent(harm.share)),
        ("requests in all", f"{len(recording.rows):,}"),
        ("failed of all other versions", f"{sum(row.is_failed for row in good):,}"),
    ]
    return "".join(f"<div><b>{value}</b><span>{name}</span></div>" for name, value in tiles)


def _charts(recording: Recording, seconds: int) -> str:
    marks = [
        Mark(each.at - recording.began, number, each.kind, f"{number} {each.event}")
        for number, each in enumerate(recording.moments, 1)
    ]
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


def _seconds(begin: float | None, end: float | None) -> str:
    return "-" if begin is None or end is None else f"{end - begin:.1f} s"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


_NOTE: Final = (
    "Each request was recorded by the clients that sent it, from three regions, in an open loop: it was sent when "
    "it was due, and its latency counts from then. A user is one of 30,000 people, any of whom sends each "
    "request. An answer is bad where it failed (no answer, or a status of 500 and above) or took longer than "
    "{slow} ms. The judge looks each second at the last 5 s, and takes a version back that surely has more than "
    "{limit} of failed answers or a 95th percentile above {slow} ms."
)
