"""Every example is run by a test, and the documents show nothing but the examples' own text."""

import re
from pathlib import Path

import pytest

from tests.house.project import ROOT, Module, committed, examples

pytestmark = pytest.mark.house

DOCUMENTS = [path for path in committed() if path.suffix == ".md"]
SNIPPET = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.path.stem)
def test_an_example_has_a_test_that_runs_it(example: Module) -> None:
    name = example.path.stem
    test = ROOT / "tests" / "examples" / f"test_{name}.py"
    assert test.is_file(), f"examples/{name}.py needs {test.relative_to(ROOT)}"
    text = test.read_text(encoding="utf-8")
    runs = f'example("{name}"' in text or f'"{name}.py"' in text
    assert runs, f"{test.name} does not run examples/{name}.py"


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.path.stem)
def test_an_example_says_what_it_is(example: Module) -> None:
    assert example.text.startswith('"""'), f"{example.path.name} begins with a docstring"
    assert len(example.text.splitlines()) <= 80, f"{example.path.name} shows one thing"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_snippet_is_an_examples_own_text(document: Path) -> None:
    texts = [example.text for example in examples()]
    for snippet in SNIPPET.findall(document.read_text(encoding="utf-8")):
        assert any(snippet.strip() in text for text in texts), (
            f"{document.name} shows what no example says:\n{snippet}"
        )


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for link in LINK.findall(document.read_text(encoding="utf-8")):
        assert (document.parent / link).exists(), f"{document.name} links to {link}, which is not there"
