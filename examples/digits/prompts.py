"""The prompts the UNet knows, and the CLIP tokenizer whose merges are learned from them."""

import json

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from data import NAMES
from models import MAX_TOKENS

START, END, SUFFIX = "<|startoftext|>", "<|endoftext|>", "</w>"
TEMPLATES = (
    "a handwritten {}", "handwritten {}", "a handwritten digit {}", "the digit {}", "{}",
    "a picture of a handwritten {}", "a drawing of the number {}", "the number {} written by hand",
)


def corpus() -> list[str]:
    """Every template with every digit, label by label: entry `label * len(TEMPLATES) + template`."""
    return [template.format(name) for name in NAMES for template in TEMPLATES]


def learn_merges(texts: list[str]) -> list[tuple[str, str]]:
    """Byte-pair merges (Sennrich et al. 2016) in the order learned, enough to make each word of `texts` one token."""
    learner = Tokenizer(models.BPE(end_of_word_suffix=SUFFIX))
    learner.pre_tokenizer = pre_tokenizers.Whitespace()
    learner.train_from_iterator(texts, trainers.BpeTrainer(end_of_word_suffix=SUFFIX, show_progress=False))
    return [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]


def build_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer of at most 16 tokens: all bytes, then one token per merge, so that no text is unknown."""
    merges = learn_merges(corpus())
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = alphabet + [character + SUFFIX for character in alphabet] + [left + right for left, right in merges]
    vocab = {token: index for index, token in enumerate(dict.fromkeys(tokens + [START, END]))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=MAX_TOKENS)
