"""Kernels are compiled again when their source, a header or the command changed, and not because of a file's time."""

import os
import runpy
from pathlib import Path

import pytest
import setuptools

ROOT = Path(__file__).parents[1]


@pytest.fixture
def build(monkeypatch, tmp_path):
    """compile() -> how often the compiler ran, in a folder with one kernel and one header."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("HALFBYTE_CUDA_ARCHS", "none")
    monkeypatch.setattr(setuptools, "setup", lambda **options: None)
    names = runpy.run_path(str(ROOT / "setup.py"))
    compile_object = names["BuildExtensions"].compile_object
    monkeypatch.setitem(compile_object.__globals__, "HEADERS", ["a.h"])
    monkeypatch.chdir(tmp_path)
    for name in ("a.cu", "a.h"):
        Path(name).write_text(name)
    compiler = tmp_path / "planted-compiler"
    compiler.write_text(f'#!/bin/sh\necho >> {tmp_path}/runs\ntouch "$5"\n')
    compiler.chmod(0o755)

    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    def compile(flag="-O3"):
        compile_object("a.cu", [compiler.name, flag])
        return (tmp_path / "runs").read_text().count("\n")

    return compile


def test_what_an_object_is_made_of_decides(build):
    assert build() == 1 == build()
    os.utime("a.cu")
    os.utime("a.h")
    assert build() == 1
    Path("a.h").write_text("changed")
    assert build() == 2
    Path("a.cu").write_text("changed")
    assert build() == 3
    assert build("-O1") == 4 == build("-O1")
