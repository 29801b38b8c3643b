"""The starting scripts run, and what README.md and docs/ name exists."""

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from PIL import Image

from halfbyte import RECIPES, env
from halfbyte.cli.app import app
from halfbyte.testing import LIMITS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SMALL = {
    "quickstart.py": "--steps 4 --recipe rtn_int4 --out made/one.png".split(),
    "quantize_and_reload.py": "--steps 2 --images 2 --recipe rtn_int4 --numerics w4a4 --out made/low".split(),
    "own_cache.py": "--steps 6 --images 2 --out made/rows.png".split(),
}
# made by the commands that name them
MADE = ("out/", ".venv", "digits-4bit", "pictures")


def code_blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def shell_lines():
    lines = [shlex.split(line, comments=True) for block in code_blocks(README, "sh") for line in block.splitlines()]
    return [line for line in lines if line]


def run(script, folder):
    environment = {**os.environ, "HALFBYTE_CPU_KIND": "float32", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "examples" / script), *SMALL[script]]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_script_is_run_here():
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == set(SMALL)


def test_quickstart_saves_a_picture(tmp_path):
    printed = run("quickstart.py", tmp_path)
    assert "2 steps computed, 2 reused, 0 forecast" in printed and "int4 x int4" in printed
    assert Image.open(tmp_path / "made/one.png").size == (32, 32)


def test_quantize_and_reload_leaves_a_folder_that_draws_the_same(tmp_path):
    printed = run("quantize_and_reload.py", tmp_path)
    assert "the same 2 images bit for bit" in printed
    numbers = re.findall(r"([\d,]+) (?:bytes float|quantized)", printed)
    float_bytes, quantized = (int(number.replace(",", "")) for number in numbers)
    assert quantized < float_bytes / 2
    assert {"model_index.json", "halfbyte_plan.json"} <= {path.name for path in (tmp_path / "made/low").iterdir()}


def test_own_cache_prints_what_each_cache_did(tmp_path):
    printed = run("own_cache.py", tmp_path)
    assert "every step: 6 computed, 0 reused, 0 forecast" in printed and "schedule: 3 computed, 2 reused, 1 forecast" in printed
    counts = re.search(r"gate: (\d) computed, (\d) reused, 0 forecast", printed)
    assert counts and sum(map(int, counts.groups())) == 6
    assert (tmp_path / "made/rows.png").is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_compile(page):
    for block in code_blocks(page.read_text(), "python"):
        compile(block, page.name, "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_dotted_names_and_variables_exist(page):
    text = page.read_text()
    for name in set(re.findall(r"(?<![\w.])halfbyte(?:\.\w+)+(?![\w:])", text)):
        thing = importlib.import_module("halfbyte")
        for part in name.split(".")[1:]:
            try:
                thing = getattr(thing, part)
            except AttributeError:
                thing = importlib.import_module(f"{thing.__name__}.{part}")
    assert set(re.findall(r"\bHALFBYTE_[A-Z_]+\b", text)) <= {variable.name for variable in env.VARIABLES}


def test_files_that_the_readme_names_exist():
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", README, flags=re.DOTALL | re.MULTILINE))
    words = [span for span in spans if re.fullmatch(r"[\w.-]+(/[\w.-]*)+|[\w-]+\.(py|md)", span)]
    words += [word for line in shell_lines() for word in line[1:] if "/" in word or word.endswith(".py")]
    words = [word for word in words if not word.startswith(MADE)]
    assert len(words) > 20
    assert [word for word in words if not (ROOT / word).exists() and not (ROOT / "engine" / word).exists()] == []


def test_commands_and_options_that_the_readme_names_exist():
    makefile = (ROOT / "Makefile").read_text()
    commands = typer.main.get_command(app).commands
    known = {name: {option for parameter in command.params for option in parameter.opts} for name, command in commands.items()}
    names = set()
    for program, *words in shell_lines():
        options = {word for word in words if word.startswith("-")}
        if program == "make":
            assert all(re.search(rf"^{word.split('=')[0]}( \?=|:)", makefile, re.MULTILINE) for word in words), words
        elif program == "halfbyte":
            names.add(words[0])
            assert options <= known[words[0]], words
        else:
            assert program == ".venv/bin/python"
            assert options <= set(re.findall(r'"(--[\w-]+)"', (ROOT / words[0]).read_text())), words
    assert names == set(known), "README.md shows every command"


def test_tables_of_limits_and_recipes_are_those_of_the_code():
    rows = re.findall(r"^\| (\w+) \| ([\d.e-]+) \| ([\d.e-]+) \|$", (ROOT / "docs/testing.md").read_text(), re.MULTILINE)
    assert {name: (float(a), float(b)) for name, a, b in rows} == {n: (x.agreement, x.rounding) for n, x in LIMITS.items()}
    pattern = r"^\| `(\w+)` \| (\w+) x ([\w-]+)(, four over six)? \| (\d+) \| (\w+) \| (\w+) \| (\w+) \| (\w+) x 16-bit \|$"
    rows = re.findall(pattern, (ROOT / "docs/recipes.md").read_text(), re.MULTILINE)
    assert {row[0]: row[1:] for row in rows} == {name: as_row(recipe) for name, recipe in RECIPES.items()}


def as_row(recipe):
    flags = ["yes" if flag else "no" for flag in (recipe.smooth, recipe.shift, recipe.gptq)]
    six = ", four over six" if recipe.four_over_six else ""
    return recipe.weight, recipe.activation or "16-bit", six, str(recipe.rank), *flags, recipe.adaln.weight
