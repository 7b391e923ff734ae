"""Glob patterns."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csi_model.errors import InvalidRequestError
from csi_model.tree.globs import compile_glob


def _matches(pattern: str, path: str) -> bool:
    return compile_glob(pattern).matches(path.split("/"))


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*.bin", "a.bin"),
        ("*.bin", "x/y/a.bin"),
        ("a/*.bin", "a/b.bin"),
        ("/a.bin", "a.bin"),
        ("a/", "x/a"),
        ("a/**", "a/b/c"),
        ("a/**", "a/b"),
        ("**/c", "c"),
        ("**/c", "a/b/c"),
        ("a/**/c", "a/c"),
        ("a/**/b/**/c", "a/x/b/b/y/c"),
        ("**", "a/b"),
        ("**/**", "a"),
        ("a/**/*.b/c", "a/x.b/y.b/c"),
        ("model-?????-of-00002.safetensors", "model-00001-of-00002.safetensors"),
        ("[a-c]x", "bx"),
        ("[!a-c]x", "dx"),
        ("[^a-c]x", "dx"),
        ("[]]", "]"),
        ("[!]]", "x"),
        ("[a-]", "-"),
        ("[*]", "*"),
        ("[]^\\-]", "^"),
        ("a.b", "a.b"),
        ("*", ".hidden"),
        ("?", "ü"),
        ("*", "new\nline"),
        ("a*b*c", "axxbxxc"),
        ("*a", "baa"),
        ("*ab*ab", "ababab"),
    ],
)
def test_matches(pattern: str, path: str) -> None:
    """Each pattern matches its path."""
    assert _matches(pattern, path)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*.bin", "a.bin/b"),
        ("a/*.bin", "x/a/b.bin"),
        ("a/*", "a/b/c"),
        ("/a.bin", "x/a.bin"),
        ("a?b", "a/b"),
        ("[!a]b", "a/b"),
        ("a/**/c", "a/b"),
        ("a/**/a", "a"),
        ("a.b", "axb"),
        ("a*b*c", "acb"),
        ("*ab*ab", "ab"),
        ("[a-c]", "d"),
        ("A", "a"),
        ("a/**/b/**/c", "a/b/b"),
        ("a/**/b/**/c", "a/x/y/c"),
        ("?", "\udcff\udcfe"),
    ],
)
def test_does_not_match(pattern: str, path: str) -> None:
    """Stars stay within a component, a slash anchors, dots are dots and case counts."""
    assert not _matches(pattern, path)


def test_no_pattern_matches_no_path() -> None:
    """The exposed root itself is never matched."""
    assert not compile_glob("**").matches([])


def _slow(pattern: list[str], path: list[str]) -> bool:
    """The same language, decided by trying everything."""
    if not pattern:
        return not path
    if pattern[0] == "**":
        return any(_slow(pattern[1:], path[i:]) for i in range(len(path) + 1))
    return bool(path) and _slow_name(pattern[0], path[0]) and _slow(pattern[1:], path[1:])


def _slow_name(pattern: str, name: str) -> bool:
    if not pattern:
        return not name
    if pattern[0] == "*":
        return any(_slow_name(pattern[1:], name[i:]) for i in range(len(name) + 1))
    return bool(name) and pattern[0] in ("?", name[0]) and _slow_name(pattern[1:], name[1:])


_COMPONENT = st.text("ab*?", min_size=1, max_size=5).filter(lambda text: "**" not in text) | st.just("**")


@settings(max_examples=500)
@given(st.lists(_COMPONENT, min_size=1, max_size=6), st.lists(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=6))
def test_matching_without_backtracking_agrees_with_trying_everything(pattern: list[str], path: list[str]) -> None:
    """Taking the first fit of each part never misses a match and never invents one."""
    assert compile_glob("/" + "/".join(pattern)).matches(path) == _slow(pattern, path)


@pytest.mark.parametrize(
    "pattern", ["", "/", "a//b", "../a", "a/./b", "a**", "**b/c", "[a", "[", "[]", "[!]", "[z-a]", "a\0", "x" * 1025, "é" * 600]
)
def test_malformed_patterns_are_refused(pattern: str) -> None:
    """Empty, climbing, unclosed, backward and overlong patterns are refused."""
    with pytest.raises(InvalidRequestError):
        compile_glob(pattern)


@pytest.mark.parametrize(("pattern", "path"), [("*a" * 25 + "b", "a" * 255), ("/" + "**/a*/" * 140 + "c", "/".join(["a" * 30] * 120))])
def test_no_pattern_takes_exponential_time(pattern: str, path: str) -> None:
    """Patterns made to make matchers backtrack are decided at all, where backtracking would outlive the test's time-out by far."""
    assert not compile_glob(pattern).matches(path.split("/"))
