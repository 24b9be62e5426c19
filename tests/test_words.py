"""Prose reads plainly: docs, docstrings, comments, messages and the page avoid what stops a reader.

ruff's D401 checks that functions' summaries start with an imperative verb.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WIDTH = 100  # of docs
STARTS = re.compile(r"(?:Of|Whether|What|Where|Who|How|So|Said|Told|Reckoned|Meant)\b")
WORDS = re.compile(
    r"\b(?:foresee\w*|foresaw|foreknow\w*|reckon\w*|lest|but for|who died|for ever|"
    r"anyone's guess|of then|no way led|is the wish|are no (?:strips|list)|nobody waits|so that nobody)\b",
    re.IGNORECASE,
)


def files(*patterns: str) -> list[Path]:
    return [path for pattern in patterns for path in sorted(ROOT.glob(pattern))]


PAGES = files("README.md", "CONTRIBUTING.md", "docs/**/*.md", "hosts/**/*.md", "src/**/*.md")
PYTHON = files("*.py", "src/**/*.py", "benchmarks/*.py", "scripts/*.py", "hosts/**/*.py")
OTHERS = files("src/maximir/**/page/*.[jhc]*", "src/maximir/evaluation/templates/*", "hosts/*/*.y*ml")


def prose(markdown: str) -> Iterator[tuple[int, str]]:
    """Yield numbered lines of Markdown outside code blocks and tables, without code spans and addresses."""
    fenced = False
    for number, line in enumerate(markdown.splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced and not line.lstrip().startswith("|"):
            yield number, line


def is_too_long(line: str) -> bool:
    """True if a line exceeds the width and could be broken: code spans and links stay whole."""
    whole = re.sub(r"`[^`]*`", "x", re.sub(r"\]\([^)]*\)", "]", line.strip()))
    return len(line) > WIDTH and " " in whole


def documented(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text is not None:
                yield node.body[0].lineno, text


def comments(source: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def messages(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield strings of several words: help, errors, notes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.count(" ") > 1:
            yield node.lineno, node.value


def without_code(text: str) -> str:
    return re.sub(r"`[^`]*`", "", text)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_docs(path):
    lines = list(prose(path.read_text("utf-8")))
    assert not [f"{number}: {line}" for number, line in lines if is_too_long(line)], f"wrap at {WIDTH}"
    words = [(number, WORDS.search(without_code(line))) for number, line in lines]
    assert not [f"{number}: {found[0]}" for number, found in words if found]


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_python(path):
    source = path.read_text("utf-8")
    tree = ast.parse(source)
    starts = [(line, STARTS.match(text)) for line, text in documented(tree)]
    assert not [f"{line}: summary starts with {found[0]!r}" for line, found in starts if found]
    texts = [*documented(tree), *comments(source), *messages(tree)]
    words = [(line, WORDS.search(without_code(text))) for line, text in texts]
    assert not [f"{line}: {found[0]}" for line, found in words if found]


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: path.name)
def test_page_and_manifests(path):
    words = [(n, WORDS.search(line)) for n, line in enumerate(path.read_text("utf-8").splitlines(), 1)]
    assert not [f"{number}: {found[0]}" for number, found in words if found]


def test_readme_is_short_and_links_once():
    readme = (ROOT / "README.md").read_text("utf-8")
    assert len(readme.splitlines()) <= 100
    links = re.findall(r"\]\(([^)]+)\)", readme)
    assert len(links) == len(set(links))


@pytest.mark.parametrize(
    "text", ["Of a side, as the network takes it.", "Whether images fit.", "What is read.", "So it stays."]
)
def test_bad_starts_are_found(text):
    assert STARTS.match(text)


@pytest.mark.parametrize(
    "text", ["memory foreseen", "reckoned by pixels", "all but for the page", "who died of what", "lest it"]
)
def test_bad_words_are_found(text):
    assert WORDS.search(text)


def test_long_lines_are_found():
    assert is_too_long("word " * 21)
    assert not is_too_long("`" + "code " * 21 + "`") and not is_too_long("word " * 20)
