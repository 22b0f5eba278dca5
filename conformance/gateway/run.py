"""Run Gateway API's conformance suite against the cluster of a kubeconfig, and write what came of it as a page.

`pilothouse up --gateway-address 127.91.0.0/16` has to run, as root so that pods have addresses of their own.
The suite's images are replaced by the echo backend beside this file, which the interpreter that runs this one runs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PAGE = ROOT / "docs" / "conformance-gateway.md"
BEGIN, END = "<!-- begin of the report -->", "<!-- end of the report -->"
PROFILES = ("GATEWAY-HTTP", "GATEWAY-GRPC", "GATEWAY-TLS", "GATEWAY-TCP")


def features() -> list[str]:
    """Return what our class says that it can do."""
    from pilothouse.traffic.control.features import FEATURES

    return list(FEATURES)


def version() -> str:
    """Return the version that is measured."""
    import pilothouse

    return pilothouse.__version__


def run(given: argparse.Namespace, report: Path) -> int:
    """Build and run the suite; return its exit status, which is not 0 where a test fails."""
    command = [
        *("go", "test", "-count=1", "-timeout=60m", "-run=^TestConformance$", ".", "-args"),
        f"-gateway-class={given.gateway_class}",
        f"-echo={sys.executable} {HERE / 'echo.py'}",
        f"-conformance-profiles={','.join(given.profiles)}",
        f"-supported-features={','.join(features())}",
        *("-organization=pilothouse", "-project=pilothouse", "-url=https://pilothouse.dev", f"-version={version()}"),
        "-contact=https://pilothouse.dev",
        f"-report-output={report}",
        f"-usable-address={given.usable}",
        f"-unusable-address={given.unusable}",
        *([f"-run-test={given.only}"] if given.only else []),
    ]
    environment = {**os.environ, "KUBECONFIG": given.kubeconfig}
    return subprocess.run(command, cwd=HERE, env=environment, check=False).returncode


def page(report: dict[str, Any]) -> str:
    """Return the part of the page that a report gives."""
    lines = [
        f"Suite {report['gatewayAPIVersion']}, channel {report['gatewayAPIChannel']}, {report['date'][:10]}.",
        "",
        "| profile | core tests passed | failed | extended tests passed | failed |",
        "| --- | --- | --- | --- | --- |",
    ]
    for each in report["profiles"]:
        counts = [_counts(each.get(part)) for part in ("core", "extended")]
        lines.append(f"| {each['name']} | " + " | ".join(f"{passed} | {failed}" for passed, failed in counts) + " |")
    lines.append("")
    for each in report["profiles"]:
        extended = each.get("extended") or {}
        lines += _listed(f"Extended features of {each['name']}", extended.get("supportedFeatures"))
        lines += _listed(f"Not supported of {each['name']}", extended.get("unsupportedFeatures"))
        failed = [*(each["core"].get("failedTests") or ()), *(extended.get("failedTests") or ())]
        lines += _listed(f"Failed of {each['name']}", failed)
    return "\n".join(lines).rstrip()


def _counts(part: dict[str, Any] | None) -> tuple[int, int]:
    found = (part or {}).get("statistics") or {}
    return found.get("Passed", 0), found.get("Failed", 0)


def _listed(title: str, names: Sequence[str] | None) -> list[str]:
    if not names:
        return []
    return [f"{title}, {len(names)}:", "", *(f"- {name}" for name in sorted(names)), ""]


def written(text: str) -> None:
    """Put the report's part into the page."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def main() -> int:
    """Run the suite, and write the page where all of it ran."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kubeconfig", required=True)
    parser.add_argument("--gateway-class", default="pilothouse")
    parser.add_argument("--profiles", type=lambda text: text.split(","), default=PROFILES)
    parser.add_argument("--usable", default="127.91.7.7", help="an address that a Gateway may ask for")
    parser.add_argument("--unusable", default="127.92.7.7", help="an address that it may not have")
    parser.add_argument("--only", default="", help="the name of one test; no page is written")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.yaml"
        status = run(given, report)
        if report.exists() and not given.only:
            found = yaml.safe_load(report.read_text(encoding="utf-8"))
            (HERE / "report.yaml").write_text(yaml.safe_dump(found, sort_keys=False), encoding="utf-8")
            written(page(found))
    return status


if __name__ == "__main__":
    sys.exit(main())
