"""Blocks are compiled underneath the hooks, so that skipping compiles nothing anew."""

import pytest
import torch

from halfbyte.steps import CacheConfig, FirstBlockGate, Linear, StaticSchedule, StepEngine, compile_blocks

CONFIGS = {
    "static": CacheConfig(StaticSchedule(interval=2), Linear()),
    "gate": CacheConfig(FirstBlockGate(0.3)),
    "every step": CacheConfig(StaticSchedule(interval=1)),
}


@pytest.fixture
def counting_backend():
    torch.compiler.reset()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    yield backend, graphs
    torch.compiler.reset()


def draw(engine, denoise, **options):
    with engine.run() as run:
        return denoise(engine.model, **options), run.stats


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_compiled_equals_eager_in_one_graph_a_block_and_compiles_nothing_after_the_first_image(
    build_dit, denoise, counting_backend, config
):
    backend, graphs = counting_backend
    eager = StepEngine(build_dit(layers=2), config)
    eager.attach()
    expected, _ = draw(eager, denoise)
    model = build_dit(layers=2)
    compile_blocks(model, backend=backend, fullgraph=True)
    engine = StepEngine(model, config)
    engine.attach()
    latents, stats = draw(engine, denoise)
    assert torch.allclose(latents, expected, atol=1e-5)
    assert stats.tabulated == 0
    compiled = len(graphs)
    assert compiled >= 1
    draw(engine, denoise, seed=1)
    draw(engine, denoise, seed=2)
    assert len(graphs) == compiled


def test_compiling_under_attached_block_hooks_and_undoing_it(build_dit, denoise, counting_backend):
    backend, graphs = counting_backend
    model = build_dit(layers=2)
    engine = StepEngine(model, CacheConfig(StaticSchedule(interval=2), tabulate=False))
    engine.attach()
    expected, _ = draw(engine, denoise)
    undo = compile_blocks(model, backend=backend, fullgraph=True)
    assert torch.allclose(draw(engine, denoise)[0], expected, atol=1e-5) and graphs
    undo()
    engine.detach()
    assert not any("forward" in vars(block) for block in model.transformer_blocks)


def test_undo_without_hooks_leaves_the_blocks_as_they_were(build_dit, counting_backend):
    model = build_dit(layers=2)
    compile_blocks(model, backend=counting_backend[0])()
    assert not any("forward" in vars(block) for block in model.transformer_blocks)


def test_hooks_inside_a_block_are_refused(build_dit):
    model = build_dit(layers=2)
    StepEngine(model, CONFIGS["static"]).attach()
    with pytest.raises(ValueError, match="norm1.emb has one: compile first, then attach"):
        compile_blocks(model)


def test_a_block_compiled_with_its_hooks_is_refused(build_dit):
    model = build_dit(layers=2)
    model.transformer_blocks[0].compile()
    with pytest.raises(ValueError, match="use halfbyte.steps.compile_blocks"):
        StepEngine(model, CONFIGS["static"]).attach()
