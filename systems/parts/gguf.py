"""Language models in GGUF files, the format of llama.cpp.

transformers takes a minute to read such a file. Therefore, the kit converts the model once to a folder in the user's
cache. The folder has the layout of transformers: config, weights as safetensors, and tokeniser. Its weights have the
values of the GGUF file, but in single precision, so the folder is several times as large as the file.
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
END_OF_TEXT = "<|endoftext|>"  # the token between training texts, in vocabularies like GPT-2's


def converted_folder(path: Path) -> Path:
    """Return the path of the converted model of a GGUF file. The folder's name contains a digest of the file."""
    return cache_folder() / f"gguf-{digest(path.read_bytes())[:12]}"


def model_folder(path: Path) -> Path:
    """Return the folder with the converted model of a GGUF file, and convert the file if the folder does not exist.

    A changed file is converted again. Several processes may call this function at the same time.

    Raises:
        BadRequest: A package that reads GGUF files is not installed, or transformers cannot read the file.
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
    """Write the model and the tokeniser of a GGUF file to a new folder.

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
    """Read the model (in single precision) and the tokeniser of a GGUF file.

    In the GGUF file of a chat model, the start token and the end token are those of chat messages. After this start
    token, the model expects the name of a role, which a caption does not have. If the vocabulary contains
    `END_OF_TEXT`, this token becomes the start token. The end token is not changed, because chat models predict it
    after a complete sentence (systems/guided_gpt2/README.md contains measurements).
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = {"gguf_file": path.name, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(path.parent, **place)
    model = AutoModelForCausalLM.from_pretrained(path.parent, dtype=torch.float32, **place)
    start = tokenizer.get_vocab().get(END_OF_TEXT)
    if start is not None and start < model.config.vocab_size:  # transformers may add the token to the tokeniser only
        model.config.bos_token_id = start
        model.generation_config.bos_token_id = start
    # The weights are not quantised any more, but with these attributes, transformers would refuse to save the model.
    model.hf_quantizer = None
    del model.config.quantization_config
    return model, tokenizer
