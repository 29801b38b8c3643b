"""The facts about block classes agree with the classes that are installed."""

import ast
import inspect
import textwrap

import pytest
from torch import nn

from halfbyte.models import families


def installed_blocks() -> dict[str, type]:
    import diffusers.models.attention
    from diffusers.models import transformers

    modules = [diffusers.models.attention] + [
        inspect.getmodule(getattr(transformers, name))
        for name in dir(transformers)
        if inspect.isclass(getattr(transformers, name))
    ]
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, nn.Module) and value.__module__ == module.__name__
    }


@pytest.fixture(scope="module")
def blocks():
    return installed_blocks()


def returned_names(cls: type) -> set[tuple[str, ...]]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls.forward)))
    tuples = [node.value for node in ast.walk(tree) if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple)]
    return {
        tuple(element.id for element in value.elts)
        for value in tuples
        if all(isinstance(element, ast.Name) for element in value.elts)
    }


def test_the_streams_of_every_known_class_are_arguments_of_its_forward(blocks):
    known = {name: streams for name, streams in families.STREAMS.items() if streams and name in blocks}
    assert len(known) > 25
    for name, streams in known.items():
        assert set(streams.names) <= set(inspect.signature(blocks[name].forward).parameters), name


def test_the_streams_of_every_known_class_are_named_in_the_order_it_returns_them(blocks):
    checked = 0
    for name, streams in families.STREAMS.items():
        if streams and name in blocks and (returned := returned_names(blocks[name])):
            assert streams.names in returned, f"{name} returns {returned}, the table says {streams.names}"
            checked += 1
    assert checked > 25


def test_every_class_the_table_lacks_returns_one_stream_or_is_no_denoiser_block(blocks):
    one_of_two = "Flux2SingleTransformerBlock"  # its model asks for the joined stream
    wrapped = "HiDreamImageTransformerBlock"  # its stack holds HiDreamBlock
    for name, cls in blocks.items():
        if name.endswith("TransformerBlock") and name not in {*families.STREAMS, one_of_two, wrapped}:
            several = [names for names in returned_names(cls) if {"hidden_states", "encoder_hidden_states"} <= set(names)]
            assert not several, f"{name} returns {several}"


def test_a_block_the_table_lacks_is_taken_to_hand_on_its_first_argument():
    class Unheard(nn.Module):
        def forward(self, tokens, temb=None):
            return tokens

    assert families.block_streams(Unheard()).names == ("tokens",)


def test_tabulated_layers_are_named_after_arguments_of_the_model():
    import diffusers

    for name, facts in families.TIME_ONLY.items():
        assert set(facts.arguments) <= set(inspect.signature(getattr(diffusers, name).forward).parameters), name
