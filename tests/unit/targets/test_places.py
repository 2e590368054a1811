"""Findings name what a user knows: parameters of the model, and the line that makes the steps."""

from torch import nn

from dpaudit.targets.places import caller, names_of


def test_parameters_have_the_names_of_the_model_that_was_wrapped():
    inner = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1, bias=False))
    outer = nn.Module()
    outer._module = inner
    names = names_of(outer)
    assert [names[id(p)] for p in inner.parameters()] == ["0.weight", "0.bias", "1.weight"]
    assert names_of("no module") == {}


def test_the_caller_is_the_innermost_line_of_no_library():
    assert caller().startswith("test_places.py:")
