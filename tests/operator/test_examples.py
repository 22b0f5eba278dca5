"""Each example of an operator can be run and installed by the command line: `build`, and definitions of its kinds."""

from __future__ import annotations

import pytest

from pilothouse.cli import main
from pilothouse.operator import Harness
from support.examples import EXAMPLES, example
from support.operatorkit import plane_and_client

OPERATORS = ["database_backup", "namespace_class", "website"]


@pytest.mark.parametrize("name", OPERATORS)
async def test_an_example_builds_controllers_as_the_command_wants_it(name: str) -> None:
    async with plane_and_client(crd=False) as (_, client):
        harness = Harness(client)
        example(name).build(harness.manager)
        assert len(harness.manager.controllers) == 1


@pytest.mark.parametrize("name", OPERATORS)
def test_an_examples_definitions_are_generated(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["crd", "generate", str(EXAMPLES / f"{name}.py")])
    assert ended.value.code == 0
    assert f"kind: {name.title().replace('_', '')}\n" in capsys.readouterr().out
