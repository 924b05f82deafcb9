"""Tiny models with random weights: two HEAR modules, a BERT, a GPT-2, a Llama and a BART."""

import os
import sys
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from evaluation.data.soundscapes import generate
from systems.modules import trusting

ROOT = Path(__file__).parents[2]
HEAR = '''
"""A HEAR module: 100 ms windows of 8 kHz through a layer."""
import torch

class Model(torch.nn.Module):
    sample_rate = 8000
    timestamp_embedding_size = scene_embedding_size = 12
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(800, 12)
        self.unused = torch.nn.Linear(2, 2)

def load_model(path=""):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(len(path))
        return Model()

def get_timestamp_embeddings(audio, model):
    windows = torch.nn.functional.pad(audio, (0, 800)).unfold(1, 800, 800)
    values = model.layer(windows).tanh()
    return values, torch.arange(values.shape[1]).mul(100.0).expand(len(audio), -1)

def get_scene_embeddings(audio, model):
    return get_timestamp_embeddings(audio, model)[0].mean(1)
'''

NETWORK = '''
"""A HEAR module whose functions compute without gradients, and whose model offers its network, with dropout."""
import torch

class FrontEnd(torch.nn.Module):
    def forward(self, audio):
        return audio.unfold(1, 800, 800).transpose(1, 2)[:, ::50]

class Model(torch.nn.Module):
    sample_rate = 8000
    timestamp_embedding_size = scene_embedding_size = 12
    max_model_window = 4000
    def __init__(self):
        super().__init__()
        self.mel = FrontEnd()
        self.layer = torch.nn.Linear(16, 12)
        self.drop = torch.nn.Dropout(0.1)
        self.unused = torch.nn.Linear(2, 2)
    def forward(self, audio):
        return self.drop(self.layer(self.mel(audio).mean(2)).tanh())

def load_model(path=""):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Model()

@torch.no_grad()
def get_scene_embeddings(audio, model):
    return model.eval()(torch.nn.functional.pad(audio, (0, 800)))

def get_timestamp_embeddings(audio, model):
    return get_scene_embeddings(audio, model)[:, None], torch.zeros(len(audio), 1)
'''

WORDS = "a again and bark barks bell bird birds crowd dog door engine evaluation fall falls in no rain ring saw sings"


def make_hear_data(folder, **clips):
    """Write the module `tiny_hear` and a data set with these numbers of clips of each split."""
    (folder / "modules").mkdir()
    (folder / "modules" / "tiny_hear.py").write_text(HEAR)
    generate.make_soundscapes(folder / "data", clips=clips, progress=False)


@contextmanager
def trusting_hear(folder, monkeypatch):
    """Let this process and other processes import `tiny_hear` from the folder of `make_hear_data`."""
    monkeypatch.syspath_prepend(str(folder / "modules"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(folder / "modules")]))
    with trusting(["tiny_hear"]):
        yield
    sys.modules.pop("tiny_hear", None)


def text_model(folder, layers=3, seed=0):
    """Write a BERT of 16 values and its tokeniser, which splits unknown words into letters."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    letters = [letter for one in "abcdefghijklmnopqrstuvwxyz0123456789.,&;'" for letter in (one, f"##{one}")]
    pieces = list(dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *WORDS.split()]))
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=pieces[1]))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    named = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        size = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "max_position_embeddings": 40}
        BertModel(BertConfig(vocab_size=len(pieces), num_hidden_layers=layers, **size)).save_pretrained(folder)
    return folder


def byte_tokenizer(folder, *, brackets=()):
    """Write a byte-pair tokeniser of single letters, whose last token is <|endoftext|>. Return its number of tokens.

    Args:
        folder: The folder.
        brackets: The tokens before and after each text, as in BART's tokeniser.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    pieces = [*brackets, *sorted(pre_tokenizers.ByteLevel.alphabet()), "<|endoftext|>"]
    tokenizer = Tokenizer(models.BPE({piece: number for number, piece in enumerate(pieces)}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = dict.fromkeys(("bos_token", "eos_token"), pieces[-1])
    if brackets:
        tokenizer.post_processor = processors.BertProcessing((brackets[1], 1), (brackets[0], 0))
        special = {"bos_token": brackets[0], "eos_token": brackets[1]}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    return len(pieces)


def causal_model(folder, seed=0, **sizes):
    """Write a GPT-2 of 16 values with a byte-pair vocabulary of single letters."""
    from transformers import GPT2Config, GPT2LMHeadModel

    tokens = byte_tokenizer(folder)
    size = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": tokens}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        ends = dict.fromkeys(("bos_token_id", "eos_token_id"), tokens - 1)
        GPT2LMHeadModel(GPT2Config(**{**size, **ends, **sizes})).save_pretrained(folder)
    return folder


def llama_model(folder, seed=0):
    """Write a Llama of 16 values with a byte-pair vocabulary of single letters."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokens = byte_tokenizer(folder)
    size = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "max_position_embeddings": 96}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    ends = dict.fromkeys(("bos_token_id", "eos_token_id"), tokens - 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        LlamaForCausalLM(LlamaConfig(vocab_size=tokens, **size, **heads, **ends)).save_pretrained(folder)
    return folder


def bart_model(folder, seed=0):
    """Write a BART of 16 values with a vocabulary of single letters. As in the published files, it has no LM head."""
    from transformers import BartConfig, BartModel

    tokens = byte_tokenizer(folder, brackets=("<s>", "</s>"))
    size = {"d_model": 16, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "max_position_embeddings": 64}
    layers = {"encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    ends = {"bos_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 1, "pad_token_id": tokens - 1}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        BartModel(BartConfig(vocab_size=tokens, **size, **layers, **ends)).save_pretrained(folder)
    return folder
