import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halfbyte.checkpoint.patterns import compress, expand, fill

part = st.sampled_from(["0", "1", "2", "3", "10", "to_q", "attn", "net"])
name = st.lists(part, min_size=1, max_size=4).map(".".join)


@given(st.lists(name, unique=True, max_size=40), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_patterns_stand_for_exactly_the_chosen_names(universe, rng):
    chosen = [x for x in universe if rng.random() < 0.6]
    patterns = compress(chosen, universe)
    matched = [x for pattern in patterns for x in expand(pattern, universe)]
    assert sorted(matched) == sorted(chosen)


@given(name, st.lists(name, max_size=20))
@settings(max_examples=100, deadline=None)
def test_wildcard_values_fill_the_pattern_back(first, others):
    universe = [first, *others]
    for pattern in compress(universe, universe):
        for match, values in expand(pattern, universe).items():
            assert fill(pattern, values) == match


OUT, FF = "blocks.*.attn.to_out.*", "blocks.*.ff.net.*"
UNIVERSE = [f"blocks.{i}.{x}" for i in range(12) for x in ("attn.to_q", "attn.to_out.0", "ff.net.2")] + ["proj_out"]


@pytest.mark.parametrize(
    ("left_out", "patterns"),
    [
        ([], ["blocks.*.attn.to_q", OUT, FF, "proj_out"]),
        (["blocks.0.attn.to_q", "blocks.7.attn.to_q", "proj_out"], ["blocks.{1-6,8-11}.attn.to_q", OUT, FF]),
        ([x for x in UNIVERSE if x.endswith("to_q") and ".3." not in x], ["blocks.3.attn.to_q", OUT, FF, "proj_out"]),
    ],
    ids=["all", "two-missing", "one-left"],
)  # fmt: skip
def test_reads_as_a_person_would_write_it(left_out, patterns):
    assert sorted(compress([x for x in UNIVERSE if x not in left_out], UNIVERSE)) == sorted(patterns)


@pytest.mark.parametrize("bad", ["a.{1", "a.{1-2-3}", "a.{}", "a.{x}", "a.{1,}", "a.{99999999}", "a.{1}b"])
def test_refuses_a_broken_set(bad):
    with pytest.raises(ValueError, match="a set like"):
        expand(bad, ["a.1"])


def test_numbers_are_plain_digits_only():
    assert expand("a.*", ["a.1", "a.\u0661", "a.\u00b2", "a.x", "a.1.2"]) == {"a.1": ("1",)}


def test_counts_of_wildcards_must_agree():
    with pytest.raises(ValueError, match="1 wildcards are needed to hold 2"):
        fill("a.*", ["1", "2"])
