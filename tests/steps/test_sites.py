"""Where models are cut: block streams of several forms, guidance in two calls, the deep part of a UNet."""

import pytest
import torch
from torch import nn

from halfbyte.steps import CacheConfig, FirstBlockGate, Hold, Linear, StaticSchedule, StepEngine, sites_for

EVERY_OTHER = CacheConfig(StaticSchedule(interval=2), Hold())
ALWAYS = CacheConfig(StaticSchedule(interval=1), Linear())


def run(engine, draw, *args, **options):
    engine.attach()
    try:
        with engine.run() as current:
            return draw(*args, **options), current.stats
    finally:
        engine.detach()


def count_calls(modules):
    calls = []
    for module in modules:
        module.register_forward_hook(lambda *_: calls.append(1))
    return calls


def test_flux_hands_on_two_streams_through_two_stacks(build_flux_pipeline, draw_flux):
    pipe = build_flux_pipeline()
    model = pipe.transformer
    reference = draw_flux(pipe)
    cut = sites_for(model)
    assert [(site.name, len(site.modules), site.streams.names[0]) for site in cut.sites] == [
        ("transformer_blocks", 2, "encoder_hidden_states"),
        ("single_transformer_blocks", 2, "encoder_hidden_states"),
    ]
    assert torch.equal(run(StepEngine(model, ALWAYS), draw_flux, pipe)[0], reference)
    calls = count_calls([model.transformer_blocks[1].attn, model.single_transformer_blocks[1].attn])
    latents, stats = run(StepEngine(model, EVERY_OTHER), draw_flux, pipe)
    assert len(calls) == 2 * stats.computed == 6 and stats.reused == 3
    assert 0 < float((latents - reference).norm() / reference.norm()) < 0.5


def test_flux_gate_leaves_the_first_block_out_of_its_site(build_flux_pipeline, draw_flux):
    pipe = build_flux_pipeline()
    model = pipe.transformer
    cut = sites_for(model, probes=True)
    assert cut.probe is model.transformer_blocks[0] and [len(site.modules) for site in cut.sites] == [1, 2]
    reference = draw_flux(pipe)
    assert torch.equal(run(StepEngine(model, CacheConfig(FirstBlockGate(0.0))), draw_flux, pipe)[0], reference)
    _, stats = run(StepEngine(model, CacheConfig(FirstBlockGate(10.0))), draw_flux, pipe)
    assert stats.reused == 4


def test_wan_calls_prompt_and_negative_apart_and_each_keeps_its_own_state(build_wan_pipeline, draw_wan):
    pipe = build_wan_pipeline()
    reference = draw_wan(pipe)
    assert torch.equal(run(StepEngine(pipe.transformer, ALWAYS), draw_wan, pipe)[0], reference)
    _, stats = run(StepEngine(pipe.transformer, EVERY_OTHER), draw_wan, pipe)
    assert [(record.step, record.branch) for record in stats.timeline[:4]] == [
        (0, "cond"),
        (0, "uncond"),
        (1, "cond"),
        (1, "uncond"),
    ]
    assert [record.action for record in stats.timeline[:4]] == ["computed", "computed", "reused", "reused"]


class TwoCallDenoiser(nn.Module):
    """The smallest denoiser with blocks: what it returns depends on its conditioning."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.ModuleList(TwoCallBlock() for _ in range(3))

    def forward(self, hidden_states, timestep, encoder_hidden_states=None):
        for block in self.layers:
            hidden_states = block(hidden_states, encoder_hidden_states * timestep / 1000)
        return hidden_states


class TwoCallAttention(nn.Linear):
    pass


class TwoCallBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.ff = TwoCallAttention(4, 4), nn.Linear(4, 4)

    def forward(self, hidden_states, temb):
        return hidden_states + self.ff(torch.tanh(self.attention(hidden_states) + temb))


@torch.no_grad()
def guided(model, apart, order=(0, 1)):
    """One latent under guidance, its two calls batched or apart, in either order."""
    prompts, latents = torch.tensor([[[3.0] * 4], [[-3.0] * 4]]), torch.ones(1, 1, 4)
    for timestep in (900, 700, 500, 300, 100):
        if apart:
            outputs = {index: model(latents, timestep, prompts[index : index + 1]) for index in order}
        else:
            outputs = model(torch.cat([latents, latents]), timestep, prompts).split(1)
        latents = latents + 0.1 * (outputs[1] + 2 * (outputs[0] - outputs[1]))
    return latents


@pytest.mark.parametrize("predictor", [Hold(), Linear()], ids=["hold", "linear"])
def test_guidance_is_the_same_in_one_call_in_two_and_in_either_order(predictor):
    config = CacheConfig(StaticSchedule(interval=2), predictor)
    batched, _ = run(StepEngine(model := TwoCallDenoiser(), config), guided, model, apart=False)
    for order in ((0, 1), (1, 0)):
        apart, stats = run(StepEngine(model, config), guided, model, apart=True, order=order)
        assert torch.allclose(apart, batched, atol=1e-6)
        assert stats.reused + stats.forecast == 4


def test_a_block_that_hands_on_something_else_keeps_computing_and_says_why():
    class Pair(TwoCallBlock):
        def forward(self, hidden_states, temb):
            return super().forward(hidden_states, temb), temb

    class Model(TwoCallDenoiser):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(Pair() for _ in range(2))

        def forward(self, hidden_states, timestep, encoder_hidden_states=None):
            for block in self.layers:
                hidden_states, _ = block(hidden_states, encoder_hidden_states)
            return hidden_states

    model = Model()
    reference = guided(model, apart=False)
    latents, stats = run(StepEngine(model, EVERY_OTHER), guided, model, apart=False)
    assert torch.equal(latents, reference)
    assert stats.computed == 5 and "layers returned streams of an unknown form" in stats.reasons


def test_a_model_without_blocks_computes_and_says_why():
    class Plain(nn.Module):
        def forward(self, hidden_states, timestep):
            return hidden_states

    engine = StepEngine(Plain(), EVERY_OTHER)
    assert engine.reason == "Plain has no repeated blocks"
    engine.attach()
    with engine.run() as current:
        engine.model(torch.ones(1), 5)
        engine.model(torch.ones(1), 4)
    assert current.stats.reasons == {"Plain has no repeated blocks": 2}


def test_refiners_are_no_site():
    class Refined(TwoCallDenoiser):
        def __init__(self):
            super().__init__()
            self.context_refiner = nn.ModuleList(TwoCallBlock() for _ in range(2))

    assert [site.name for site in sites_for(Refined()).sites] == ["layers"]


@pytest.mark.parametrize("depth", [1, 2])
def test_unet_skips_run_only_the_outer_levels(build_unet, denoise_unet, depth):
    model = build_unet(levels=3)
    reference = denoise_unet(model)
    assert torch.equal(
        run(StepEngine(model, CacheConfig(StaticSchedule(interval=1), Linear(), depth=depth)), denoise_unet, model)[0], reference
    )
    outer = count_calls(block.resnets[0] for block in (*model.down_blocks[:depth], *model.up_blocks[-depth:]))
    idle = count_calls(block.resnets[0] for block in (*model.down_blocks[depth:], model.mid_block, *model.up_blocks[:-depth]))
    latents, stats = run(StepEngine(model, CacheConfig(StaticSchedule(interval=4), depth=depth)), denoise_unet, model)
    assert (stats.computed, stats.reused) == (2, 6)
    assert len(outer) == 8 * 2 * depth and len(idle) == 2 * (2 * (3 - depth) + 1)
    assert 0 < float((latents - reference).norm() / reference.norm()) < 0.2


@pytest.mark.parametrize("with_attention", [True, False], ids=["attention", "plain"])
def test_unet_at_depth_0_runs_the_last_residual_block_alone(build_unet, denoise_unet, with_attention):
    model = build_unet(levels=2, outer_attention=with_attention)
    reference = denoise_unet(model)
    config = CacheConfig(StaticSchedule(interval=1), Linear(), depth=0)
    assert torch.equal(run(StepEngine(model, config), denoise_unet, model)[0], reference)
    last = count_calls([model.up_blocks[-1].resnets[-1].conv1])
    idle = count_calls(
        module.conv1 for name, module in model.named_modules() if hasattr(module, "conv1") and name != "up_blocks.1.resnets.2"
    )
    latents, stats = run(StepEngine(model, CacheConfig(StaticSchedule(interval=4), depth=0)), denoise_unet, model)
    assert stats.computed == 2 and len(last) == 8 and len(idle) == 2 * (2 + 2 + 2 + 3 + 2)
    assert 0 < float((latents - reference).norm() / reference.norm()) < 0.3


def test_a_gate_at_depth_0_has_no_block_to_ask(build_unet):
    with pytest.raises(ValueError, match="FirstBlockGate needs a first block that always computes; depth 0 leaves none"):
        StepEngine(build_unet(), CacheConfig(FirstBlockGate(0.1), depth=0))


def test_unconditional_unet_with_attention_blocks():
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    model = UNet2DModel(
        sample_size=8,
        in_channels=2,
        out_channels=2,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=8,
        down_block_types=("AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D"),
    ).eval()

    @torch.no_grad()
    def draw():
        latents = torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(1))
        for timestep in (900, 700, 500, 300):
            latents = latents - 0.1 * model(latents, timestep).sample
        return latents

    reference = draw()
    assert torch.equal(run(StepEngine(model, ALWAYS), draw)[0], reference)
    latents, stats = run(StepEngine(model, EVERY_OTHER), draw)
    assert stats.reused == 2 and 0 < float((latents - reference).norm()) < 0.2 * float(reference.norm())


def test_unet_blocks_of_another_form_are_no_site(build_unet):
    class KUpBlock2D(nn.Module):
        pass

    model = build_unet()
    model.up_blocks[0] = KUpBlock2D()
    assert sites_for(model).reason == "KUpBlock2D hands on residuals of an unknown form"


def test_unet_output_is_exact_where_the_deep_part_does_not_change(build_unet, denoise_unet):
    model = build_unet()
    for block in model.up_blocks[:-1]:
        block.forward = lambda hidden_states, upsample_size=None, **_: (
            torch.ones(2, 16, 8, 8) if hidden_states.shape[-1] == 4 else torch.ones(2, 24, 4, 4)
        )
    reference = denoise_unet(model)
    latents, stats = run(StepEngine(model, CacheConfig(StaticSchedule(interval=3), Linear())), denoise_unet, model)
    assert stats.computed < 4 and torch.equal(latents, reference)


def test_unet_gate_asks_the_first_down_block(build_unet, denoise_unet):
    model = build_unet()
    reference = denoise_unet(model)
    assert torch.equal(run(StepEngine(model, CacheConfig(FirstBlockGate(0.0))), denoise_unet, model)[0], reference)
    _, stats = run(StepEngine(model, CacheConfig(FirstBlockGate(10.0, max_consecutive=2))), denoise_unet, model)
    assert [record.action[0] for record in stats.timeline] == list("crrcrrcr")


def test_unet_under_a_control_network_computes(build_unet, denoise_unet):
    model = build_unet(levels=2)
    with torch.no_grad():
        down = [torch.zeros(())] * 6
        reference = denoise_unet(model, down_block_additional_residuals=down, mid_block_additional_residual=torch.zeros(()))
    engine = StepEngine(model, EVERY_OTHER)
    latents, stats = run(
        engine, denoise_unet, model, down_block_additional_residuals=down, mid_block_additional_residual=torch.zeros(())
    )
    assert torch.equal(latents, reference) and stats.reasons == {"down_block_additional_residuals were given": 8}


def test_unet_too_shallow_for_the_depth_says_so(build_unet):
    engine = StepEngine(build_unet(levels=2), CacheConfig(StaticSchedule(interval=2), depth=2))
    assert engine.reason == "deep_main at depth 2 needs more than 2 levels; UNet2DConditionModel has 2"
