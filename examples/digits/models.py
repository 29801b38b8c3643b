"""The four small networks, untrained, and the noise schedule they share; every width is a multiple of 64 where it can be."""

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTTransformer2DModel, DPMSolverMultistepScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, ResNetConfig, ResNetForImageClassification

from data import NAMES

NULL_LABEL = 1000  # DiTPipeline's fixed id of "no class"
MAX_TOKENS = 16


def build_classifier() -> ResNetForImageClassification:
    """A residual network on (n, 3, 32, 32); its pooled (n, 64) features are the space in which FID is measured."""
    return ResNetForImageClassification(ResNetConfig(
        embedding_size=32, hidden_sizes=[32, 64, 64], depths=[1, 1, 1], layer_type="basic",
        id2label=dict(enumerate(NAMES)), label2id={name: label for label, name in enumerate(NAMES)}))


def build_vae() -> AutoencoderKL:
    """Images (n, 3, 32, 32) to latents (n, 4, 8, 8)."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64), layers_per_block=1, latent_channels=4, norm_num_groups=8, sample_size=32)


def build_dit() -> DiTTransformer2DModel:
    """Sixteen tokens of width 192, eight blocks, adaLN-Zero start (Peebles and Xie 2023, section 3.2)."""
    transformer = DiTTransformer2DModel(
        num_attention_heads=3, attention_head_dim=64, in_channels=4, out_channels=4, num_layers=8, attention_bias=True,
        sample_size=8, patch_size=2, activation_fn="gelu-approximate", num_embeds_ada_norm=1000,
        norm_type="ada_norm_zero", norm_elementwise_affine=False)
    for block in transformer.transformer_blocks:
        nn.init.zeros_(block.norm1.linear.weight)
        nn.init.zeros_(block.norm1.linear.bias)
        nn.init.normal_(block.norm1.emb.class_embedder.embedding_table.weight, std=0.02)
        # The loop drops labels itself, one draw for all blocks: each block drawing its own would mix both conditions.
        block.norm1.emb.class_embedder.dropout_prob = 0.0
    for linear in (transformer.proj_out_1, transformer.proj_out_2):
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
    return transformer


def build_unet() -> UNet2DConditionModel:
    """Three levels (8x8, 4x4, 2x2); channels stay multiples of 64 after each skip concatenation."""
    return UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(64, 128, 128), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=64, attention_head_dim=(1, 2, 2), use_linear_projection=True)


def build_text_encoder(vocab_size: int, start: int, end: int) -> CLIPTextModel:
    """Two CLIP layers of width 64 over at most 16 tokens; `end` also pads."""
    return CLIPTextModel(CLIPTextConfig(
        vocab_size=vocab_size, hidden_size=64, intermediate_size=256, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=MAX_TOKENS, projection_dim=64, bos_token_id=start, eos_token_id=end, pad_token_id=end))


def build_scheduler() -> DDIMScheduler:
    """1,000 scaled-linear steps, v-prediction (Salimans and Ho 2022), sampled from the noisy end."""
    return DDIMScheduler(
        num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        prediction_type="v_prediction", timestep_spacing="trailing", clip_sample=False, steps_offset=1)


def build_sampler() -> DPMSolverMultistepScheduler:
    """DPM++ 2M (Lu et al. 2022) over the same noise schedule: what the shipped pipelines sample with."""
    return DPMSolverMultistepScheduler.from_config(build_scheduler().config, algorithm_type="dpmsolver++", solver_order=2)


def parameter_count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def min_snr_weight(scheduler: DDIMScheduler, timestep: torch.Tensor, gamma: float = 5.0) -> torch.Tensor:
    """(n,) weights min(SNR, gamma) / (SNR + 1) of the v-prediction loss (Hang et al. 2023, Min-SNR, section 3.4)."""
    alpha_bar = scheduler.alphas_cumprod.to(timestep.device)[timestep]
    snr = alpha_bar / (1 - alpha_bar)
    return snr.clamp(max=gamma) / (snr + 1)
