"""Rows of answers as people read them: `12.5` requests a second, `3.1ms`, `1.2 GiB`."""

from __future__ import annotations

from typing import Final

from .answers import BackendNow, Backends, Counters, Measured, RouteNow, Routes, Top

__all__ = ["backend_rows", "headline", "route_rows", "top_rows"]

Table = tuple[list[dict[str, object]], list[str]]
"""Rows, and the columns that are shown."""

_MEASURED: Final = ("rps", "errors", "p50", "p95", "p99", "in_flight")
_NO_ROUTE: Final = "(no route)"
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def route_rows(answer: Routes, *, wide: bool) -> Table:
    """Return a row for each backend of each rule."""
    columns = ["route", "rule", "hosts", "match", "backend", "version", "weight", *_MEASURED]
    if wide:
        columns[2:2] = ["listeners", "ports"]
        columns += ["share", "requests"]
    if wide or any(row.regions for row in answer.rows):
        columns.insert(columns.index("weight"), "regions")
    return [_route(row) for row in answer.rows], columns


def _route(row: RouteNow) -> dict[str, object]:
    return {
        "route": row.route or _NO_ROUTE,
        "rule": row.rule,
        "listeners": list(row.listeners),
        "ports": list(row.ports),
        "hosts": list(row.hosts) or ("*" if row.listeners else ""),
        "match": " | ".join(row.matches),
        "backend": row.backend or ("(invalid)" if row.weight else "(none)"),
        "version": row.version,
        "regions": list(row.regions),
        "weight": row.weight if row.weight or (row.backend and row.listeners) else "",
        "share": _percent(row.share) if row.listeners and row.backend else "",
        "requests": row.measured.requests,
        **_measured(row.measured),
    }


def backend_rows(answer: Backends, *, wide: bool) -> Table:
    """Return a row for each address."""
    columns = ["backend", "protocol", "address", "state", "ejected", "in_flight", "open", "idle", "rps", "failures"]
    if wide:
        columns += ["requests", "waiting", "total", "failed", "ejected_until"]
    return [_backend(row) for row in answer.rows], columns


def _backend(row: BackendNow) -> dict[str, object]:
    told = sum(row.workers.values())
    some = row.workers.get(row.state, 0)
    state = f"{row.state} {some}/{told}" if some < told else row.state or "unknown"
    return {
        "backend": row.backend,
        "protocol": row.protocol,
        "address": row.address or "(no endpoints)",
        "state": state if row.address else "",
        "ejected": f"{row.ejected_seconds:.0f}s" if row.ejected_seconds else "",
        "ejected_until": row.ejected_until,
        "in_flight": row.in_flight,
        "open": row.open,
        "idle": row.idle,
        "rps": _rate(row.rate),
        "requests": row.requests,
        "failures": row.failures,
        "waiting": row.waiting,
        "total": row.total,
        "failed": row.failed,
    }


def top_rows(answer: Top, *, wide: bool) -> Table:
    """Return a row for each of the busiest."""
    columns = [*answer.by, *_MEASURED]
    columns[-1:-1] = ["in_per_s", "out_per_s"]
    if wide:
        columns.append("requests")
    rows = []
    for row in answer.rows:
        names: dict[str, object] = {
            name: value or (_NO_ROUTE if name == "route" else "-") for name, value in row.names.items()
        }
        moved = {"in_per_s": _bytes(row.measured.bytes_in_rate), "out_per_s": _bytes(row.measured.bytes_out_rate)}
        rows.append(names | _measured(row.measured) | moved | {"requests": row.measured.requests})
    return rows, columns


def headline(answer: Top) -> list[str]:
    """Return what stands above the busiest: the sum of all, and how bytes moved since the start."""
    whole, counters = answer.whole, answer.counters
    shown = _measured(whole)
    now = (
        f"{shown['rps']} requests/s over {answer.seconds} s, {shown['errors'] or '0%'} errors, "
        f"p50 {shown['p50'] or '-'}, p95 {shown['p95'] or '-'}, p99 {shown['p99'] or '-'}; "
        f"{whole.in_flight} in flight, {counters.connections} connections, {counters.workers} workers"
    )
    lines = [now, *_moved(counters)]
    if counters.refused:
        most = sorted(counters.refused.items(), key=lambda each: -each[1])[:8]
        lines.append(f"refused: {', '.join(f'{kind} {count:,}' for kind, count in most)}")
    return lines


def _moved(counters: Counters) -> list[str]:
    spliced, copied = _bytes(counters.bytes_spliced), _bytes(counters.bytes_copied)
    buffers, pipes = _percent(counters.buffer_reuse), _percent(counters.pipe_reuse)
    share, writes = _percent(counters.spliced_share), counters.vectored_writes_per_response
    requests = f"{counters.requests:,}"
    return [
        f"{requests} requests since the start; {spliced} of bodies spliced, {copied} copied ({share} spliced)",
        f"{writes:.2f} vectored writes a response; reused: {buffers} of buffers, {pipes} of pipes",
    ]


def _measured(told: Measured) -> dict[str, object]:
    has_any = told.requests > 0
    return {
        "rps": _rate(told.rate),
        "errors": _percent(told.error_ratio) if has_any else "",
        "p50": _duration(told.p50) if has_any else "",
        "p95": _duration(told.p95) if has_any else "",
        "p99": _duration(told.p99) if has_any else "",
        "in_flight": told.in_flight,
    }


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 or not rate else f"{rate:.1f}"


def _percent(part: float) -> str:
    percent = part * 100
    if percent in {0.0, 100.0}:
        return f"{percent:.0f}%"
    return f"{min(max(percent, 0.01), 99.99):.2f}%"


def _duration(seconds: float) -> str:
    millis = seconds * 1000
    if millis < 10:
        return f"{millis:.2f}ms"
    return f"{millis:.0f}ms" if millis < 1000 else f"{seconds:.2f}s"


def _bytes(size: float) -> str:
    for unit in _UNITS[:-1]:
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} {_UNITS[-1]}"
