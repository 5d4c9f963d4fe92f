"""Random histories of commands: results stay, belong to their configuration, and have the bits that were promised.

A history that fails is printed as a sequence of calls. `python -m pytest -m long` draws two hundred of them.
"""

from pathlib import Path

import hypothesis
import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from properties.histories import Histories

drawing = settings(
    database=None,
    deadline=None,
    phases=[hypothesis.Phase.generate],
    suppress_health_check=list(hypothesis.HealthCheck),
    print_blob=False,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("histories")


def draw(place: Path, seed: int, histories: int, steps: int) -> None:
    machine = type("History", (Histories,), {"place": place, "logs": place / "logs"})
    run_state_machine_as_test(
        hypothesis.seed(seed)(machine), settings=settings(drawing, max_examples=histories, stateful_step_count=steps)
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_ten_histories(place, seed):
    draw(place, seed, histories=5, steps=4)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_two_hundred_histories(place, seed):
    draw(place, 1000 + seed, histories=10, steps=10)
