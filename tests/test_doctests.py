"""The examples in docstrings are run, and must give the results that are written there."""

import doctest
import importlib
import pkgutil

import pytest

import camlab

MODULES = sorted(module.name for module in pkgutil.walk_packages(camlab.__path__, "camlab."))


@pytest.mark.parametrize("name", MODULES)
def test_examples(name, capsys):
    failures, _ = doctest.testmod(importlib.import_module(name))
    assert not failures, capsys.readouterr().out


def test_the_public_interface_has_examples():
    import camlab.attribution.explainer as explainer

    finder = doctest.DocTestFinder(recurse=False)
    for shown in (explainer.heatmaps, explainer.Explainer):
        assert finder.find(shown)[0].examples, shown
