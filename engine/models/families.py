"""Facts about denoiser classes, as data: what each block passes on and in which order, and which layers see only the timestep."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

from torch import nn

TIMESTEP_ARGUMENTS = ("timestep", "t", "timestep_ratio")
TIME_LIKE_ARGUMENTS = (*TIMESTEP_ARGUMENTS, "timesteps", "timestep_r", "r", "sigma")
UNETS = ("UNet2DConditionModel", "UNet2DModel")
# UNet blocks that hand on (hidden_states, residuals) on the way down and take one residual per resnet on the way up
UNET_BLOCKS = (
    "DownBlock2D", "CrossAttnDownBlock2D", "AttnDownBlock2D", "SimpleCrossAttnDownBlock2D", "ResnetDownsampleBlock2D",
    "UpBlock2D", "CrossAttnUpBlock2D", "AttnUpBlock2D", "SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D",
)  # fmt: skip
# lists whose names say that they prepare the conditioning or the tokens, before the blocks that denoise
PREPARING_STACKS = ("refiner", "text", "txt", "context", "caption")
INJECTED_RESIDUALS = ("down_block_additional_residuals", "mid_block_additional_residual", "down_intrablock_additional_residuals")


@dataclass(frozen=True)
class BlockStreams:
    """names: the streams a block takes and hands on, in the order it returns them; one stream is returned as a bare tensor.

    denoised: index of the stream that holds the noisy latents; the others follow the conditioning and hardly move.
    """

    names: tuple[str, ...]
    denoised: int = 0


ENCODER_FIRST = BlockStreams(("encoder_hidden_states", "hidden_states"), denoised=1)
HIDDEN_FIRST = BlockStreams(("hidden_states", "encoder_hidden_states"))

STREAMS: dict[str, BlockStreams | None] = {
    **dict.fromkeys(
        (
            "AuraFlowJointTransformerBlock", "BriaTransformerBlock", "BriaSingleTransformerBlock", "BriaFiboTransformerBlock",
            "ChromaTransformerBlock", "Flux2TransformerBlock", "FluxTransformerBlock", "FluxSingleTransformerBlock",
            "JointTransformerBlock", "LongCatImageTransformerBlock", "LongCatImageSingleTransformerBlock",
            "OvisImageTransformerBlock", "OvisImageSingleTransformerBlock", "QwenImageTransformerBlock",
        ),
        ENCODER_FIRST,
    ),
    **dict.fromkeys(
        (
            "CogVideoXBlock", "ConsisIDBlock", "CogView3PlusTransformerBlock", "CogView4TransformerBlock",
            "EasyAnimateTransformerBlock", "GlmImageTransformerBlock", "HunyuanVideoTransformerBlock",
            "HunyuanVideoSingleTransformerBlock", "HunyuanVideoTokenReplaceTransformerBlock",
            "HunyuanVideoTokenReplaceSingleTransformerBlock", "HunyuanVideo15TransformerBlock", "HunyuanImageTransformerBlock",
            "HunyuanImageSingleTransformerBlock", "JoyImageTransformerBlock", "JoyImageEditPlusTransformerBlock",
            "MochiTransformerBlock", "MotifVideoTransformerBlock", "MotifVideoSingleTransformerBlock",
        ),
        HIDDEN_FIRST,
    ),
    "Cosmos3VLTextMoTDecoderLayer": BlockStreams(("und_seq", "gen_seq"), denoised=1),
    "Kandinsky6FusedTransformerDecoderBlock": BlockStreams(("vis", "aud")),
    "LTX2VideoTransformerBlock": BlockStreams(("hidden_states", "audio_hidden_states")),
    # these pick what they return at run time, or hand on values that are no stream
    "CosmosTransformerBlock": None,
    "Flux3SingleTransformerBlock": None,
    "HiDreamBlock": None,
    "WanVACETransformerBlock": None,
}  # fmt: skip


def block_streams(block: nn.Module) -> BlockStreams | None:
    """The streams of a block by its class; a class the table lacks is taken to hand on its first argument alone.

    None when the class is known to fit neither form. Whoever relies on the guess must check that the block returns one tensor
    of its input's shape.
    """
    name = type(block).__name__
    return STREAMS[name] if name in STREAMS else BlockStreams((argument_names(block)[0],))


def argument_names(module: nn.Module) -> list[str]:
    """Names of forward's arguments in order, `self` left out."""
    return list(inspect.signature(type(module).forward).parameters)[1:]


@dataclass(frozen=True)
class TimeOnly:
    """Layers of one denoiser class whose output depends on nothing but these call arguments.

    paths: dotted names, `*` for any part. arguments: the denoiser's own arguments the value is a function of.
    forbidden: config fields that mix other inputs into the embedding when they are set.
    """

    paths: tuple[str, ...]
    arguments: tuple[str, ...]
    forbidden: tuple[str, ...] = ()


TIME_ONLY: dict[str, TimeOnly] = {
    "DiTTransformer2DModel": TimeOnly(
        ("transformer_blocks.*.norm1.emb", "transformer_blocks.*.norm1.linear"), ("timestep", "class_labels")
    ),
    "PixArtTransformer2DModel": TimeOnly(("adaln_single",), ("timestep", "added_cond_kwargs")),
    "SanaTransformer2DModel": TimeOnly(("time_embed",), ("timestep", "guidance")),
    "UNet2DConditionModel": TimeOnly(
        (
            "time_embedding", "down_blocks.*.resnets.*.time_emb_proj", "mid_block.resnets.*.time_emb_proj",
            "up_blocks.*.resnets.*.time_emb_proj",
        ),
        ("timestep", "timestep_cond"),
        forbidden=("addition_embed_type", "class_embed_type", "num_class_embeds"),
    ),
}  # fmt: skip
