"""Goldens are refused where another version than the locked one is installed."""

from importlib.metadata import version

from reference_environment import LOCK, differences, pins


def test_this_environment_is_the_locked_one() -> None:
    assert differences(LOCK.read_text()) == []


def test_another_version_is_named() -> None:
    assert differences("torch==1.0 \\\n    --hash=sha256:0\n") == [f"torch==1.0: {version('torch')} is installed"]


def test_packages_that_decide_nothing_do_not_matter() -> None:
    assert differences("rich==1.0\n") == []


def test_pins_for_other_pythons_do_not_count() -> None:
    assert [str(pin) for pin in pins("numpy==1 ; python_full_version < '3.8'\nnumpy==2 \\\n    --hash=sha256:0\n")] == [
        "numpy==2"
    ]
