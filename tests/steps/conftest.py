"""Tiny denoisers and a bare denoising loop, so that the tests see latents, not decoded images."""

import pytest
import torch


@pytest.fixture
def build_dit():
    from diffusers import DiTTransformer2DModel

    def build(layers=3, seed=0):
        torch.manual_seed(seed)
        model = DiTTransformer2DModel(
            sample_size=8,
            num_layers=layers,
            patch_size=2,
            attention_head_dim=8,
            num_attention_heads=3,
            in_channels=2,
            out_channels=2,
            num_embeds_ada_norm=20,
        ).eval()
        # adaLN-Zero starts near the identity; gates of size one make every block count
        for block in model.transformer_blocks:
            torch.nn.init.normal_(block.norm1.linear.weight, std=0.2)
        return model

    return build


@pytest.fixture
def denoise():
    @torch.no_grad()
    def denoise(model, steps=8, labels=(3, 5), seed=0, size=8, timesteps=None, on_step=None, guidance=3.0):
        """Euler steps under classifier-free guidance in one batched call; returns the final latents."""
        count = len(labels)
        latents = torch.randn(count, 2, size, size, generator=torch.Generator().manual_seed(seed))
        both = torch.tensor([*labels, *[20] * count])
        timesteps = timesteps if timesteps is not None else torch.linspace(990, 10, steps).long().tolist()
        for index, timestep in enumerate(timesteps):
            if on_step:
                on_step(index)
            batch = torch.cat([latents, latents])
            output = model(batch, timestep=torch.full((2 * count,), timestep), class_labels=both, return_dict=False)[0]
            cond, uncond = output.chunk(2)
            latents = latents - 0.3 / len(timesteps) * (uncond + guidance * (cond - uncond))
        return latents

    return denoise


@pytest.fixture
def build_unet():
    from diffusers import UNet2DConditionModel

    def build(levels=3, seed=0, outer_attention=False):
        torch.manual_seed(seed)
        outer = "CrossAttn" if outer_attention else ""
        return UNet2DConditionModel(
            sample_size=8, in_channels=2, out_channels=2, block_out_channels=(8, 16, 24, 32)[:levels],
            layers_per_block=2, norm_num_groups=4, attention_head_dim=2, cross_attention_dim=12,
            down_block_types=(f"{outer}DownBlock2D",) + ("CrossAttnDownBlock2D",) * (levels - 1),
            up_block_types=("CrossAttnUpBlock2D",) * (levels - 1) + (f"{outer}UpBlock2D",),
        ).eval()  # fmt: skip

    return build


@pytest.fixture
def denoise_unet():
    @torch.no_grad()
    def denoise(model, steps=8, seed=0, size=8, **arguments):
        """Plain steps with one prompt and its negative in one call; returns the final latents."""
        latents = torch.randn(1, 2, size, size, generator=torch.Generator().manual_seed(seed))
        prompts = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(9))
        for timestep in torch.linspace(990, 10, steps).long():
            noise = model(torch.cat([latents, latents]), timestep, encoder_hidden_states=prompts, return_dict=False, **arguments)[
                0
            ]
            uncond, cond = noise.chunk(2)
            latents = latents - 0.1 * (uncond + 3 * (cond - uncond))
        return latents

    return denoise


@pytest.fixture
def build_flux_pipeline():
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    def build(transformer=None):
        torch.manual_seed(0)
        transformer = transformer or FluxTransformer2DModel(
            patch_size=1, in_channels=4, num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=12, pooled_projection_dim=10, axes_dims_rope=[4, 4, 8], guidance_embeds=True,
        ).eval()  # fmt: skip
        parts = dict.fromkeys(("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
        pipe = FluxPipeline(scheduler=FlowMatchEulerDiscreteScheduler(), transformer=transformer, **parts)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return build


@pytest.fixture
def draw_flux():
    def draw(pipe, seed=0, steps=6, size=64, **options):
        """Latents of one Flux call on random embeddings that depend on the seed."""
        generator = torch.Generator().manual_seed(seed)
        embeds = torch.randn(1, 6, 12, generator=generator)
        pooled = torch.randn(1, 10, generator=generator)
        return pipe(
            prompt_embeds=embeds, pooled_prompt_embeds=pooled, generator=generator, num_inference_steps=steps,
            height=size, width=size, output_type="latent", **options,
        ).images  # fmt: skip

    return draw


@pytest.fixture
def build_wan_pipeline():
    from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel

    def build():
        torch.manual_seed(0)
        transformer = WanTransformer3DModel(
            patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=16,
            freq_dim=32, ffn_dim=48, num_layers=3, cross_attn_norm=True, qk_norm="rms_norm_across_heads", rope_max_seq_len=32,
        ).eval()  # fmt: skip
        pipe = WanPipeline(
            transformer=transformer, vae=None, scheduler=FlowMatchEulerDiscreteScheduler(), text_encoder=None, tokenizer=None
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return build


@pytest.fixture
def draw_wan():
    def draw(pipe, seed=0, steps=6, guidance=5.0):
        """Latents of one Wan call, prompt and negative prompt in calls of their own."""
        generator = torch.Generator().manual_seed(seed)
        embeds, negative = torch.randn(2, 1, 7, 16, generator=generator)
        return pipe(
            prompt_embeds=embeds, negative_prompt_embeds=negative, generator=generator, num_inference_steps=steps,
            height=32, width=32, num_frames=5, guidance_scale=guidance, output_type="latent",
        ).frames  # fmt: skip

    return draw
