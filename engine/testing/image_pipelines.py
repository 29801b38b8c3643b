"""Tiny, randomly initialised image pipelines of the families users have: each returns (pipeline, call arguments)."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from transformers import Gemma2Config, Gemma2Model, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen3Config, Qwen3Model

from .text_parts import clip_encoder, clip_tokenizer, qwen_tokenizer, t5_encoder, t5_tokenizer

Built = tuple[Any, dict[str, Any]]


def flow_match(**options: Any) -> diffusers.FlowMatchEulerDiscreteScheduler:
    return diffusers.FlowMatchEulerDiscreteScheduler(**options)


def autoencoder(latent_channels: int = 4, **options: Any) -> diffusers.AutoencoderKL:
    sizes = dict(
        in_channels=3,
        out_channels=3,
        block_out_channels=(8,),
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=4,
        sample_size=32,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.06,
        scaling_factor=1.5,
    )
    return diffusers.AutoencoderKL(**sizes | options).eval()


def text_call(**options: Any) -> dict[str, Any]:
    return dict(prompt="a squirrel", num_inference_steps=2, output_type="np") | options


def dit() -> Built:
    transformer = diffusers.DiTTransformer2DModel(
        sample_size=16,
        num_layers=2,
        patch_size=4,
        attention_head_dim=32,
        num_attention_heads=2,
        in_channels=4,
        out_channels=8,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_zero",
        norm_elementwise_affine=False,
    ).eval()
    pipe = diffusers.DiTPipeline(transformer=transformer, vae=autoencoder(), scheduler=diffusers.DDIMScheduler())
    return pipe, dict(class_labels=[1], num_inference_steps=2, output_type="np")


def _flux_transformer() -> diffusers.FluxTransformer2DModel:
    return diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=4,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=[4, 4, 8],
        guidance_embeds=True,
    ).eval()


def flux() -> Built:
    pipe = diffusers.FluxPipeline(
        scheduler=flow_match(),
        vae=autoencoder(1),
        text_encoder=clip_encoder(),
        tokenizer=clip_tokenizer(),
        text_encoder_2=t5_encoder(),
        tokenizer_2=t5_tokenizer(),
        transformer=_flux_transformer(),
    )
    return pipe, text_call(height=16, width=16, max_sequence_length=32)


def _embeds(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def flux_embeds_only() -> Built:
    parts = dict(text_encoder=None, tokenizer=None, text_encoder_2=None, tokenizer_2=None)
    pipe = diffusers.FluxPipeline(scheduler=flow_match(), vae=autoencoder(1), transformer=_flux_transformer(), **parts)
    embeds = dict(prompt_embeds=_embeds((1, 16, 32)), pooled_prompt_embeds=_embeds((1, 32)))
    return pipe, dict(**embeds, num_inference_steps=2, height=16, width=16, output_type="np")


def flux2_embeds_only() -> Built:
    transformer = diffusers.Flux2Transformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=4,
        joint_attention_dim=16,
        timestep_guidance_channels=256,
        axes_dims_rope=[4, 4, 4, 4],
    ).eval()
    vae = diffusers.AutoencoderKLFlux2(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",),
        block_out_channels=(4,),
        layers_per_block=1,
        latent_channels=1,
        norm_num_groups=1,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).eval()
    pipe = diffusers.Flux2Pipeline(scheduler=flow_match(), vae=vae, text_encoder=None, tokenizer=None, transformer=transformer)
    return pipe, dict(prompt_embeds=_embeds((1, 16, 16)), num_inference_steps=2, height=16, width=16, output_type="np")


def sdxl() -> Built:
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(32, 64),
        layers_per_block=1,
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 2),
        projection_class_embeddings_input_dim=80,
        cross_attention_dim=64,
        norm_num_groups=8,
    ).eval()
    scheduler = diffusers.EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, steps_offset=1, beta_schedule="scaled_linear", timestep_spacing="leading"
    )
    pipe = diffusers.StableDiffusionXLPipeline(
        unet=unet,
        scheduler=scheduler,
        vae=autoencoder(use_quant_conv=True, use_post_quant_conv=True, shift_factor=None),
        text_encoder=clip_encoder(),
        tokenizer=clip_tokenizer(),
        text_encoder_2=clip_encoder(projected=True),
        tokenizer_2=clip_tokenizer(),
        add_watermarker=False,
    )
    return pipe, text_call(height=16, width=16)


def sd3() -> Built:
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=32,
        patch_size=1,
        in_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=4,
        caption_projection_dim=64,
        joint_attention_dim=32,
        pooled_projection_dim=64,
        out_channels=4,
    ).eval()
    pipe = diffusers.StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=flow_match(),
        vae=autoencoder(),
        text_encoder=clip_encoder(projected=True),
        tokenizer=clip_tokenizer(),
        text_encoder_2=clip_encoder(projected=True),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=t5_encoder(),
        tokenizer_3=t5_tokenizer(),
    )
    return pipe, text_call(height=16, width=16, max_sequence_length=32)


def pixart() -> Built:
    transformer = diffusers.PixArtTransformer2DModel(
        sample_size=16,
        num_layers=2,
        patch_size=2,
        attention_head_dim=16,
        num_attention_heads=4,
        caption_channels=32,
        in_channels=4,
        cross_attention_dim=64,
        out_channels=8,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
    ).eval()
    pipe = diffusers.PixArtAlphaPipeline(
        transformer=transformer, vae=autoencoder(), scheduler=diffusers.DDIMScheduler(), text_encoder=t5_encoder(), tokenizer=t5_tokenizer()
    )
    return pipe, text_call(height=16, width=16, max_sequence_length=32, use_resolution_binning=False, clean_caption=False)


def sana() -> Built:
    transformer = diffusers.SanaTransformer2DModel(
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        num_attention_heads=4,
        attention_head_dim=16,
        num_cross_attention_heads=4,
        cross_attention_head_dim=16,
        cross_attention_dim=64,
        caption_channels=8,
        sample_size=32,
    ).eval()
    vae = diffusers.AutoencoderDC(
        in_channels=3,
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=[1, 1],
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.41407,
    ).eval()
    text_encoder = Gemma2Model(
        Gemma2Config(
            head_dim=16,
            hidden_size=8,
            intermediate_size=64,
            num_attention_heads=2,
            num_hidden_layers=1,
            num_key_value_heads=2,
            vocab_size=512,
            attn_implementation="eager",
        )
    ).eval()
    pipe = diffusers.SanaPipeline(
        transformer=transformer, vae=vae, scheduler=flow_match(shift=7.0), text_encoder=text_encoder, tokenizer=t5_tokenizer()
    )
    return pipe, text_call(height=32, width=32, max_sequence_length=16, complex_human_instruction=None, use_resolution_binning=False)


def qwenimage() -> Built:
    transformer = diffusers.QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=4,
        joint_attention_dim=16,
        guidance_embeds=False,
        axes_dims_rope=(8, 4, 4),
    ).eval()
    vae = diffusers.AutoencoderKLQwenImage(
        base_dim=24,
        z_dim=4,
        dim_mult=[1, 2, 4],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    ).eval()
    config = Qwen2_5_VLConfig(
        text_config=dict(
            vocab_size=512,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            rope_scaling={"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"},
            rope_theta=1e6,
        ),
        vision_config=dict(depth=2, hidden_size=16, intermediate_size=16, num_heads=2, out_hidden_size=16),
    )
    pipe = diffusers.QwenImagePipeline(
        transformer=transformer,
        vae=vae,
        scheduler=flow_match(),
        text_encoder=Qwen2_5_VLForConditionalGeneration(config).eval(),
        tokenizer=qwen_tokenizer(),
    )
    return pipe, text_call(negative_prompt="bad", true_cfg_scale=2.0, height=32, width=32, max_sequence_length=64)


def zimage() -> Built:
    transformer = diffusers.ZImageTransformer2DModel(
        all_patch_size=(2,),
        all_f_patch_size=(1,),
        in_channels=16,
        dim=64,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=4,
        n_kv_heads=4,
        norm_eps=1e-5,
        qk_norm=True,
        cap_feat_dim=16,
        rope_theta=256.0,
        t_scale=1000.0,
        axes_dims=[8, 4, 4],
        axes_lens=[256, 32, 32],
    ).eval()
    with torch.no_grad():  # both are uninitialised memory until a checkpoint is loaded
        transformer.x_pad_token.fill_(1)
        transformer.cap_pad_token.fill_(1)
    vae = autoencoder(
        16,
        block_out_channels=(32, 64),
        norm_num_groups=32,
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
    )
    text_encoder = Qwen3Model(
        Qwen3Config(
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            vocab_size=512,
            max_position_embeddings=512,
        )
    ).eval()
    pipe = diffusers.ZImagePipeline(
        transformer=transformer, vae=vae, scheduler=flow_match(), text_encoder=text_encoder, tokenizer=qwen_tokenizer()
    )
    return pipe, text_call(height=32, width=32, max_sequence_length=64, guidance_scale=3.0)
