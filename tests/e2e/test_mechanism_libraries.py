"""Mechanisms of other libraries: what is sound is not flagged, and the known hole of floats is found."""

from importlib.util import find_spec

import pytest

from dpaudit.mechanism import Settings, audit_mechanism
from dpaudit.mechanism_cli import load
from dpaudit.verdict import Status

pytestmark = pytest.mark.slow
SOUND = (
    "opendp/laplace",
    "opendp/noisy-max",
    "diffprivlib/snapping",
    "diffprivlib/geometric",
    "diffprivlib/gaussian-discrete",
    "python-dp/count",
)


def need(name: str) -> None:
    library = name.split("/", maxsplit=1)[0].replace("python-dp", "pydp")
    if find_spec(library) is None:
        pytest.skip(f"{library} is not installed: pip install 'dpaudit[mechanisms]'")


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_mechanism_is_not_refuted_and_something_is_shown(name):
    need(name)
    settings = Settings(samples=16_000, examples=20, alpha=1e-3)
    audit = audit_mechanism(load(name), name=name, settings=settings)
    assert audit.verdict.status is Status.NOT_REFUTED, audit.verdict.reason
    assert 0 < audit.confirmations[0].epsilon_lower <= load(name).epsilon


def test_the_bits_of_a_float_laplace_give_the_data_away():
    need("diffprivlib/laplace")
    settings = Settings(samples=40_000, examples=20, stop_early=False)
    audit = audit_mechanism(load("diffprivlib/laplace"), settings=settings)
    assert audit.verdict.status is Status.REFUTED
    assert audit.witness.event_words.count("whole multiple of 2^") == 1
    print(f"bound {audit.confirmations[0].epsilon_lower:.2f} with {audit.outputs:,} outputs")
    assert audit.confirmations[0].epsilon_lower >= 5


def test_bits_of_a_model_that_its_labels_show():
    need("diffprivlib/gaussian-nb")
    settings = Settings(samples=4_000, examples=20, seconds=20)
    audit = audit_mechanism(load("diffprivlib/gaussian-nb"), settings=settings)
    assert audit.verdict.status is Status.REFUTED, audit.verdict.reason
