"""Language models in GGUF files, the format of llama.cpp.

transformers takes a minute to read such a file. Therefore, the model is converted once to a folder in the user's cache,
in the layout of transformers: config, weights as safetensors, and tokeniser. The weights keep the values that the GGUF
file gives, in single precision, so the folder is several times as large as the file.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from evaluation.assets import silence
from evaluation.extras import EXTRAS, absent
from evaluation.files import appearing, cache_folder
from evaluation.findings import BadRequest
from systems.caching.store import exclusive
from systems.parts.digests import digest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SUFFIX = ".gguf"
NEEDED = ("gguf", "accelerate")  # transformers imports both to read a GGUF file
END_OF_TEXT = "<|endoftext|>"  # separates the texts that models with GPT-2's kind of vocabulary are trained on


def converted_folder(path: Path) -> Path:
    """Return the folder for the converted model of a GGUF file. Its name contains a digest of the file."""
    return cache_folder() / f"gguf-{digest(path.read_bytes())[:12]}"


def model_folder(path: Path) -> Path:
    """Return a folder of transformers with the model of a GGUF file. Convert the file if this was not done before.

    A changed file is converted again. Several processes may call this function at the same time.

    Raises:
        BadRequest: A package that reads GGUF is missing, or transformers cannot read the file.
    """
    folder = converted_folder(path)
    if folder.is_dir():
        return folder
    missing = absent(NEEDED)
    if missing:
        raise BadRequest(
            f"{path}: the package {missing} must be installed to read GGUF files; install dcase-kit[{EXTRAS[missing]}] "
            f"(or only: pip install {' '.join(NEEDED)})"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(folder.with_suffix(".lock")):
        if not folder.is_dir():  # another process may have converted the file
            tqdm.write(f"converting {path} once to {folder}; this takes about a minute")
            convert(path, folder)
    return folder


def convert(path: Path, folder: Path) -> None:
    """Write the model and the tokeniser of a GGUF file to a folder that does not exist yet.

    Raises:
        BadRequest: transformers cannot read the file.
    """
    try:
        with silence():
            model, tokenizer = read(path)
    except (MemoryError, ImportError):
        raise
    except Exception as failure:  # the libraries raise errors of many types for a damaged file
        reason = " ".join(str(failure).split())[:300] or type(failure).__name__
        raise BadRequest(
            f"{path}: must be an undamaged GGUF file of a language model whose architecture transformers can read; "
            f"found: {reason}: download the file again, or give another model"
        ) from failure
    with appearing(folder) as part, silence():
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)


def read(path: Path) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """Read the model, in single precision, and the tokeniser of a GGUF file.

    A chat model's file names the tokens before and after a chat message as start and end token. A caption is not a
    message: after the start of a message, such models expect the name of a role. If the vocabulary has the token that
    separates plain texts, this token is the start token instead. The end token stays as it is, because chat models
    predict it after a complete sentence (systems/guided_gpt2/README.md gives measurements).
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = {"gguf_file": path.name, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(path.parent, **place)
    model = AutoModelForCausalLM.from_pretrained(path.parent, dtype=torch.float32, **place)
    start = tokenizer.get_vocab().get(END_OF_TEXT)
    if start is not None and start < model.config.vocab_size:  # transformers may add the token to the tokeniser
        model.config.bos_token_id = start
        model.generation_config.bos_token_id = start
    # The weights are plain tensors now, but transformers refuses to save a model that it takes for a quantised one.
    model.hf_quantizer = None
    del model.config.quantization_config
    return model, tokenizer
