"""CLIP-AAC, captioning with an audio head, a text head and contrastive learning (Chen et al. 2022).

    python -m systems train systems.clip_aac --config systems/clip_aac/system-8.yaml --data DIR --run RUN
    python -m systems predict RUN --data DIR --split evaluation                     # captions
    python -m systems predict RUN --data DIR --split evaluation --as retrieval      # the same checkpoint's two heads

The audio head turns a clip into one vector, the text head a caption (`heads.py`); a Transformer decoder of two blocks
says what the clip's vector holds. Training brings the vectors of a clip and its caption together and keeps those of a
batch's other pairs apart, while it maximises the probability of the caption's next word, and both heads learn. Then
captions need the text head no more: `checkpoints/inference.ckpt` leaves it out. With it, `checkpoints/best.ckpt`, the
two heads are a retriever.

One default differs from the paper. The paper trains on 4884 clips of Clotho, development and validation together
(section 3.1). Here the default is to train on the 3839 clips of development and to choose the epoch on validation.
`learn_from: development-validation` with `monitor: epoch` trains as the paper does: no clips are left to choose an
epoch, so best.ckpt is the last one.

The loss of words is the sum over a caption's words, and the mean of these sums over the batch. Equation 6 gives the sum
for one caption, without dividing it by the number of words; equation 5 gives the mean over the batch of the contrastive
loss. `word_loss: mean` is the mean over all words of the batch, as is common for decoders. It divides the loss of words
by the number of words of a caption, about 11, so the same alpha then gives the contrastive loss 11 times the weight.

The audio head's front end is a log-power spectrogram, as the paper says. `front_end: fbsp` is the transform that
AudioCLIP has learnt, which its published weights were trained behind (`heads.py`).

The decoder is the Transformer that the paper cites (Vaswani et al. 2017): layer norms behind each part, ReLU, and no
norm behind the last block. `decoder_norm: pre` is the other common form. The audio embedding has L values and the
decoder is narrower, so a linear layer (L x width) takes it to the decoder's width; the paper does not say how it does
this. Word vectors are drawn with variance 1 and not multiplied by the square root of the width; Vaswani et al. multiply
vectors that are as much smaller, so both begin with the same values.

The paper is silent on the words (here those of the captions that training learns from, as in the baseline), the
decoder's width (here 4 heads of 128), where dropout is (here in the decoder), and which epoch counts (here the one of
the best CIDEr-D). A caption that several clips of a batch share is a negative for none of them; the paper tells pairs
apart by their place in the batch alone.

With `alpha: 1` the loss is the contrastive one alone. The decoder then keeps its random weights, so such a run only
retrieves: it refuses to caption, and it has no inference.ckpt.
"""

import warnings
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple

import lightning
import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from tokenizers import Tokenizer
from torch import Tensor, nn

from evaluation.data.dataset import DEVELOPMENT, VALIDATION, Clip, Dataset, Split
from evaluation.findings import BadRequest
from systems.caching.features import waveforms
from systems.clip_aac import audioclip, clip_tokenizer, heads
from systems.parts import generation, losses, pairs, texts, vocabulary
from systems.parts.checkpoints import SystemModule, load_weights
from systems.parts.decoder import CachedSteps, Decoder
from systems.parts.descriptions import describe_system
from systems.parts.sequences import chunks
from systems.parts.validation import retrieval_metrics
from systems.parts.vocabulary import END, PADDING, SPECIAL, START, Vocabulary
from systems.training import Run, Schedule, read_checkpoint, save_tensors

PAPER = "Chen et al. 2022"
PARAMETERS = "101,576,001 and 1,025 a word; without the text head 37,885,760"
CLIPS_PER_CALL = 8  # clips that go through the audio head at once where nothing is learnt

PUBLISHED = {  # sizes of AudioCLIP, by the config's keys, and which of them each `init` wants
    "size": heads.SIZE,
    "audio_blocks": heads.BLOCKS,
    "audio_channels": heads.CHANNELS,
    "text_width": heads.WIDTH,
    "text_layers": heads.LAYERS,
}
SIZES = {"random": (), "audio": ("audio_blocks", "audio_channels"), "audio-text": tuple(PUBLISHED)}


METHODS = {  # what the metadata say, by what a run learns
    "words": "encoder-decoder",
    "contrast": "contrastive learning",
    "both": "encoder-decoder, contrastive learning",
}
LOSSES = {"words": "cross-entropy", "contrast": "InfoNCE", "both": "InfoNCE, cross-entropy"}
FEATURES = {"stft": "log-power spectrogram", "fbsp": "log-power spectrogram of learnt wavelets"}


class Config(Schedule):
    """What can be chosen; the defaults are the paper's system 8, of which its Table 1 speaks as system 4."""

    epochs: int = Field(40, ge=1)
    batch: int = Field(8, ge=1)  # pairs a step; on several devices, a step of each
    learning_rate: float = Field(1e-3, gt=0)  # of Adam, for the decoder
    encoder_rate: float = Field(1e-5, gt=0)  # for the heads
    warmup: int = Field(5, ge=0)  # epochs in which both rates rise linearly, step by step
    plateau: int = Field(40, ge=1)  # as many as there are epochs: the rates stay
    patience: int = Field(40, ge=1)  # likewise: all epochs are trained
    monitor: Literal["CIDEr-D", "loss", "mAP@10", "epoch"] = "CIDEr-D"  # chooses best.ckpt; epoch: the last one
    learn_from: Literal["development", "development-validation"] = "development"  # splits; the paper: both
    init: Literal["random", "audio", "audio-text"] = "audio-text"  # what of AudioCLIP's the heads begin with
    weights: str = ""  # its file, or a folder that holds it; where it is looked for by default
    tokenizer: str = "openai/clip-vit-base-patch32"  # CLIP's, a folder or hub name; `train`: from the captions
    train_heads: bool = True  # or they stay as they begin
    front_end: heads.FrontEnd = "stft"  # fbsp: AudioCLIP's learnt transform, from its file, or at its initial values
    pairs: Literal["all", "drawn"] = "all"  # in an epoch, each clip with every caption, or with one at random
    seconds: float | None = Field(None, gt=0)  # that training hears of a longer clip, from a random place; AudioCLIP: 5
    alpha: float = Field(0.2, ge=0, le=1)  # share of the contrastive loss; 0: no text head; 1: no captions
    word_loss: Literal["sum", "mean"] = "sum"  # over a caption's words, as in equation 6; mean: over a batch's words
    audio_to_text: float = Field(0.5, ge=0, le=1)  # lambda of equation 5: share of the loss of sounds among captions
    temperature: float = Field(0.07, ge=0.01, le=1)  # that training begins with, as CLIP's; AudioCLIP has its own
    recompute: bool = False  # the audio head's inner values for the gradient: less memory, more time
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    dropout: float = Field(0.2, ge=0, lt=1)  # of the decoder

    size: int = Field(heads.SIZE, ge=1)  # L, of both heads' vectors
    audio_blocks: tuple[int, int, int, int] = heads.BLOCKS  # bottlenecks of each stage
    audio_channels: int = Field(heads.CHANNELS, ge=16, multiple_of=16)
    text_width: int = Field(heads.WIDTH, ge=heads.HEAD, multiple_of=heads.HEAD)
    text_layers: int = Field(heads.LAYERS, ge=1)
    decoder_norm: Literal["post", "pre"] = "post"  # post: Vaswani et al. 2017, with ReLU; pre: with GELU, a final norm
    blocks: int = Field(2, ge=1)  # of the decoder
    attention_heads: int = Field(4, ge=1)  # of the decoder
    head_size: int = Field(128, ge=2, multiple_of=2)
    hidden: int = Field(512, ge=1)  # between the two linear layers of a block
    longest: int = Field(60, ge=1)  # words of a caption that are learnt; what a longer one goes on to say is left out
    beams: int = Field(3, ge=1)
    max_words: int = Field(30, ge=1)

    @model_validator(mode="after")
    def _published(self) -> "Config":
        if self.monitor == "mAP@10" and not self.alpha:
            raise ValueError("monitor must be CIDEr-D or loss where alpha is 0: there is no text head to retrieve with")
        if self.monitor not in ("loss", "mAP@10", "epoch") and self.alpha == 1:
            found = f"found {self.monitor}; the decoder does not learn, so choose the epoch by mAP@10"
            raise ValueError(f"monitor must be mAP@10, loss or epoch where alpha is 1; {found}")
        if self.monitor != "epoch" and self.learn_from == "development-validation":
            found = f"found {self.monitor}; no clips are left to choose an epoch, so set monitor to epoch"
            raise ValueError(f"monitor must be epoch where learn_from is development-validation; {found}")
        others = [f"{key}={getattr(self, key)}" for key in SIZES[self.init] if getattr(self, key) != PUBLISHED[key]]
        if others:
            raise ValueError(f"init must be random for heads of another size than AudioCLIP's; {', '.join(others)}")
        if self.init == "audio-text" and self.alpha and self.tokenizer == "train":
            raise ValueError("tokenizer must be CLIP's where init is audio-text: its weights know those pieces alone")
        if self.init == "random" and not self.train_heads:
            raise ValueError("train_heads must be true where init is random: there is nothing to keep")
        return self


# The model ---------------------------------------------------------------------------------------------------------


class ClipAac(nn.Module):
    """Says what sounds hold and, where it has a text head, embeds sounds and texts into one space.

    Args:
        config: The config.
        known: The words that it can say.
        tokenizer: How its text head reads; without, it has none.
    """

    sample_rate = heads.SAMPLE_RATE

    def __init__(self, config: Config, known: Vocabulary, tokenizer: Tokenizer | None = None):
        super().__init__()
        self.config, self.vocabulary, self.tokenizer = config, known, tokenizer
        self.heads = heads.AudioClip(
            tokenizer.get_vocab_size() if tokenizer else 0,
            size=config.size,
            blocks=config.audio_blocks,
            channels=config.audio_channels,
            width=config.text_width,
            layers=config.text_layers,
            temperature=config.temperature,
            front_end=config.front_end,
        )
        self.heads.audio.recompute = config.recompute
        width = config.attention_heads * config.head_size
        self.embedding = nn.Embedding(len(known), width, padding_idx=PADDING)
        self.decoder = Decoder(
            len(known),
            width,
            config.size,
            blocks=config.blocks,
            heads=config.attention_heads,
            head_size=config.head_size,
            hidden=config.hidden,
            dropout=config.dropout,
            original=config.decoder_norm == "post",
        )
        if config.decoder_norm == "post":
            # The original has no layer between word vectors and blocks: both have the same width.
            self.decoder.enter = nn.Identity()
        self.rules = vocabulary.rules(1, config.max_words)

    def train(self, mode: bool = True) -> "ClipAac":
        """Begin training or end it: heads that do not learn keep their norms' statistics, too."""
        super().train(mode)
        self.heads.train(mode and self.config.train_heads)
        return self

    def audio_vectors(self, sounds: Tensor, lengths: Tensor) -> Tensor:
        """Embed (N, samples) mono sounds, of `lengths` (N,) samples, as (N, L): clips of one length together.

        No zeros behind a clip's end go through the audio head, so that it is of no account what else is in the batch.
        """
        rows: list[Tensor] = []
        for length in lengths.unique():
            rows += (lengths == length).nonzero()[:, 0].split(CLIPS_PER_CALL)
        found = torch.cat([self.heads.embed_audio(sounds[part, : int(lengths[part[0]])]) for part in rows])
        return found[torch.cat(rows).argsort()]

    def text_vectors(self, captions: Sequence[str]) -> Tensor:
        """Embed texts as (texts, L)."""
        ids, lengths = clip_tokenizer.encode(self.tokenizer, captions)
        device = self.embedding.weight.device
        return self.heads.embed_text(ids.to(device), lengths.to(device))

    def embed_audio(self, audio: Tensor, lengths: Tensor) -> Tensor:
        """Embed (N, samples) mono sounds at `sample_rate`, of `lengths` (N,) samples, as (N, L) of length 1."""
        return F.normalize(self.audio_vectors(audio, lengths), dim=1)

    def embed_text(self, captions: Sequence[str]) -> Tensor:
        """Embed texts as (texts, L) of length 1.

        Raises:
            BadRequest: There is no text head: this is the inference checkpoint, or training had none.
        """
        if self.tokenizer is None:
            raise BadRequest(
                "there is no text head: it is not in inference.ckpt, nor in a run whose alpha is 0; "
                "to retrieve, give a run with its best.ckpt that was trained with alpha above 0"
            )
        parts = chunks(captions, texts.TEXTS_PER_BATCH)
        return F.normalize(torch.cat([self.text_vectors(part) for part in parts]), dim=1)

    def steps(self, heard: Tensor) -> CachedSteps:
        """The decoder a word at a time over (N, L) clips."""
        return CachedSteps(self.decoder, heard[:, None], _ones(heard), lambda ids: self.embedding(ids[:, -1:]))

    def caption_scored(self, audio: Tensor, lengths: Tensor) -> tuple[list[str], Tensor]:
        """Caption sounds, given as to `embed_audio`, by beam search; with log-probabilities (N,).

        Raises:
            BadRequest: The model was trained with alpha 1, so its decoder has not learnt.
        """
        if self.config.alpha == 1:
            raise BadRequest(
                "alpha must be below 1 for captions; found 1: the decoder has not learnt; "
                "ask this run for retrieval, or train a run with a smaller alpha"
            )
        heard = self.audio_vectors(audio, lengths)
        found = generation.beam(self.steps(heard), len(heard), self.rules, self.config.beams, device=heard.device)
        return [self.vocabulary.decode(ids) for ids in found.ids.tolist()], found.log_probability

    def caption(self, audio: Tensor, lengths: Tensor) -> list[str]:
        """Caption sounds; arguments, captions and errors are those of `caption_scored`."""
        return self.caption_scored(audio, lengths)[0]


def _ones(heard: Tensor) -> Tensor:
    """How many vectors each of (N, L) clips has for the decoder."""
    return torch.ones(len(heard), dtype=torch.int64, device=heard.device)


def beginning(config: Config, known: Vocabulary, tokenizer: Tokenizer | None) -> ClipAac:
    """A model before training, with what the config wants of AudioCLIP's weights; the rest is drawn.

    Raises:
        BadRequest: AudioCLIP's file is not on this machine, or is none; or the tokeniser is not CLIP's.
        Faulty: It holds other weights; with every difference.
    """
    if config.init == "audio-text" and tokenizer and tokenizer.get_vocab_size() != heads.WORDS:
        found = f"found {tokenizer.get_vocab_size()}; give the folder of openai/clip-vit-base-patch32's"
        raise BadRequest(f"tokenizer: {config.tokenizer}: must have the {heads.WORDS} pieces of CLIP's; {found}")
    model = ClipAac(config, known, tokenizer)
    if config.init == "audio":
        model.heads.audio = audioclip.audio(config.weights, config.size, config.front_end)
        model.heads.audio.recompute = config.recompute
    elif config.init == "audio-text":
        published = audioclip.both(config.weights, config.front_end).state_dict()
        model.heads.load_state_dict({name: published[name] for name in model.heads.state_dict()})
    model.heads.requires_grad_(config.train_heads)
    return model.train()


# The training step ---------------------------------------------------------------------------------------------------


class Batch(NamedTuple):
    """Pairs of a clip and a caption."""

    sounds: Tensor  # (N, samples), each again and again up to the longest
    lengths: Tensor  # (N,) samples of each
    ids: Tensor  # (N, words) of the captions from start to end, padded
    captions: list[str]
    clips: Tensor  # (N,) numbers of the clips
    owners: Tensor  # (N, K) numbers of all clips whose caption it is


class Material:
    """Clips and captions as a model takes them.

    Args:
        clips: The clips; a clip is known by its place.
        known: The words.
        longest: Words of a caption that are learnt.
        cache: Folder of the cache, for decoded sounds.

    Attributes:
        pairs: Every (clip, caption), by number.
    """

    def __init__(self, clips: Sequence[Clip], known: Vocabulary, longest: int, cache: Path):
        self.captions, _, self.pairs, self.owners = pairs.clip_caption_pairs(clips)
        self.sounds = waveforms([clip.path for clip in clips], heads.SAMPLE_RATE, cache)
        self.ids = []
        for caption in self.captions:
            ids = known.encode(caption)
            self.ids.append(torch.tensor([START, *ids[:longest], *([END] if len(ids) <= longest else [])]))

    def batch(self, items: Sequence[tuple[int, ...]]) -> Batch:
        """Lay clips side by side, each with its caption, or with one of its captions at random.

        A clip is repeated, not silent, behind its end: norms would learn the silence.
        """
        clips = [clip for clip, *_ in items]
        captions = [said[int(torch.randint(len(said), ())) if len(said) > 1 else 0] for _, *said in items]
        lengths = torch.tensor([len(self.sounds[clip]) for clip in clips])
        sounds = np.stack([np.resize(self.sounds[clip], int(lengths.max())) for clip in clips])
        ids = nn.utils.rnn.pad_sequence([self.ids[number] for number in captions], True, PADDING)
        said = [self.captions[number] for number in captions]
        return Batch(torch.from_numpy(sounds), lengths, ids, said, torch.tensor(clips), self.owners[captions])


def contrastive_loss(audio: Tensor, text: Tensor, matches: Tensor, temperature: Tensor, audio_to_text: float) -> Tensor:
    """Return the contrastive loss of Chen et al. 2022, equation 5.

    Args:
        audio: (N, L) embeddings of length 1.
        text: (N, L) embeddings of length 1.
        matches: (N, N) bool, whether sound i and text j belong together; each row and each column has a match.
        temperature: What cosines are divided by.
        audio_to_text: Lambda, the share of equation 2; the rest is the share of equation 4.
    """
    scores = audio @ text.T / temperature
    of_sounds = _cross_entropy(scores, matches)
    of_texts = _cross_entropy(scores.T, matches.T)
    return audio_to_text * of_sounds + (1 - audio_to_text) * of_texts


def _cross_entropy(scores: Tensor, matches: Tensor) -> Tensor:
    """Mean over matches of -log softmax of a row's score among that score and those of the row's negatives."""
    # Not -inf: the gradient of a row without negatives would be NaN.
    smallest = torch.finfo(scores.dtype).min / 2
    negatives = scores.masked_fill(matches, smallest).logsumexp(1, keepdim=True)
    return F.softplus(negatives - scores)[matches].mean()


class Losses(NamedTuple):
    """The two losses, and what training makes smaller."""

    contrastive: Tensor
    words: Tensor
    total: Tensor


class Training(SystemModule):
    """What lightning does with the model: one step of training, one of validation, the optimizer."""

    def __init__(self, model: ClipAac, validation: Split):
        super().__init__(model)
        self.split = validation

    def loss(self, heard: Tensor, batch: Batch, smoothing: float = 0) -> Losses:
        """Return both losses and the total (Chen et al. 2022, equations 5 to 7).

        In training, the losses are those of the pairs of all processes. With alpha 1 the loss of words has no share in
        the total, and the decoder does not learn.

        Args:
            heard: (N, L) embeddings of the batch's clips.
            batch: Clips and captions.
            smoothing: Label smoothing of the loss of words.
        """
        model, alpha = self.model, self.model.config.alpha
        together = losses.gathered if self.training else lambda values: values
        logits = model.decoder(model.embedding(batch.ids[:, :-1]), heard[:, None], _ones(heard))  # (N, words, known)
        wanted = batch.ids[:, 1:].flatten()
        summed = F.cross_entropy(
            logits.flatten(0, 1).float(), wanted, ignore_index=PADDING, label_smoothing=smoothing, reduction="sum"
        )
        counted = wanted != PADDING  # words
        if model.config.word_loss == "sum":
            counted = _ones(heard)  # captions
        words = summed / together(counted.sum()[None]).float().mean()
        if not alpha:
            return Losses(torch.zeros_like(words), words, words)
        both = [F.normalize(vectors.float(), dim=1) for vectors in (heard, model.text_vectors(batch.captions))]
        *both, clips, owners = map(together, (*both, batch.clips, batch.owners))
        matches = losses.matching(clips, owners)[: len(clips), len(clips) :]  # sounds x texts
        contrastive = contrastive_loss(*both, matches, model.heads.temperature, model.config.audio_to_text)
        return Losses(contrastive, words, alpha * contrastive + (1 - alpha) * words)

    def on_train_batch_start(self, batch: Batch, number: int) -> None:
        """Let the learning rates rise through the first epochs."""
        config, steps = self.model.config, self.trainer.num_training_batches
        if self.current_epoch < config.warmup:
            share = (self.current_epoch * steps + number + 1) / (config.warmup * steps)
            for group, rate in zip(self.optimizers().param_groups, self.rates, strict=True):
                group["lr"] = share * rate

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Hear and read the batch's pairs, and return the loss."""
        config, sounds = self.model.config, batch.sounds
        if config.seconds and (length := round(config.seconds * heads.SAMPLE_RATE)) < sounds.shape[1]:
            starts = torch.randint(sounds.shape[1] - length + 1, (len(sounds),)).tolist()
            sounds = torch.stack([sound[start : start + length] for sound, start in zip(sounds, starts, strict=True)])
        found = self.loss(self.model.heads.embed_audio(sounds), batch, config.label_smoothing)
        size = len(batch.clips)
        self.log("loss", found.total, prog_bar=True, on_step=True, on_epoch=True, batch_size=size, sync_dist=True)
        if config.monitor == "epoch":  # it rises with each epoch, so that the last one is the best
            epoch = float(self.current_epoch + 1)
            self.log("validation_epoch", epoch, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)
        return found.total

    def on_validation_epoch_start(self) -> None:
        """Forget the clips of the last time."""
        self.captions: list[str] = []
        self.clips: list[Tensor] = []

    def validation_step(self, batch: Batch, _: int) -> None:
        """Caption the clips greedily, and log the losses of each with its first caption."""
        model = self.model
        heard = model.audio_vectors(batch.sounds, batch.lengths)
        found = generation.greedy(model.steps(heard), len(heard), model.rules, heard.device)
        self.captions += [model.vocabulary.decode(ids) for ids in found.ids.tolist()]
        self.clips.append(F.normalize(heard.float(), dim=1))
        contrastive, words, total = self.loss(heard, batch)
        self.log("validation_loss", total, prog_bar=True, batch_size=len(heard))
        self.log("validation_words", words, batch_size=len(heard))
        if model.config.alpha:
            self.log("validation_contrastive", contrastive, batch_size=len(heard))

    def on_validation_epoch_end(self) -> None:
        """Log CIDEr-D of the captions, by this vocabulary's words, and mAP@10 of the two heads."""
        self.log("validation_CIDEr-D", vocabulary.cider(self.split, self.captions), prog_bar=True)
        if self.model.config.alpha:
            answers = self.model.embed_text(self.split.queries).float() @ torch.cat(self.clips).T
            metrics = retrieval_metrics(self.split, answers)
            self.log("validation_mAP@10", metrics["validation_mAP@10"])

    @property
    def rates(self) -> tuple[float, float]:
        """The learning rates of the decoder and of the heads."""
        return self.model.config.learning_rate, self.model.config.encoder_rate

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam, as published."""
        own = [*self.model.embedding.parameters(), *self.model.decoder.parameters()]
        groups = zip((own, list(self.model.heads.parameters())), self.rates, strict=True)
        return torch.optim.Adam([{"params": part, "lr": rate} for part, rate in groups])

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Add the vocabulary and the tokenizer to the checkpoint."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["vocabulary"] = list(self.model.vocabulary.words)
        checkpoint["tokenizer"] = self.model.tokenizer and self.model.tokenizer.to_str()


# The three names of the contract -------------------------------------------------------------------------------------


def train(config: Config, dataset: Dataset, run: Run) -> None:
    """Train on the development split and choose the best epoch on the validation split, or train on both splits."""
    development, validation = dataset[DEVELOPMENT], dataset[VALIDATION]
    learns_both = config.learn_from == "development-validation"
    learnt = [*validation.clips, *development.clips] if learns_both else development.clips
    captions = [*chain.from_iterable(clip.captions for clip in learnt)]
    known = vocabulary.from_captions(captions)
    tokenizer = None
    if config.alpha:
        if config.tokenizer == "train":
            tokenizer = clip_tokenizer.train(captions)
        else:
            tokenizer = clip_tokenizer.load(config.tokenizer)
    lightning.seed_everything(run.seed, verbose=False)
    # A checkpoint has the heads, wherever they began.
    if run.last.exists():
        model = ClipAac(config, known, tokenizer)
    else:
        model = beginning(config, known, tokenizer)
    model.heads.requires_grad_(config.train_heads)
    material = Material([*validation.clips, *development.clips], known, config.longest, run.cache)

    run.start()
    held_out = 0 if learns_both else len(validation.clips)  # the first clips of the material
    to_train = [pair for pair in material.pairs if pair[0] >= held_out]
    if config.pairs == "drawn":
        together: dict[int, tuple[int, ...]] = {}
        for clip, caption in to_train:
            together[clip] = (*together.get(clip, (clip,)), caption)
        to_train = list(together.values())
    firsts = {clip: (clip, caption) for clip, caption in reversed(material.pairs) if clip < held_out}
    to_validate = [firsts[clip] for clip in sorted(firsts)]
    with warnings.catch_warnings():
        # Nothing is validated where both splits are learnt from.
        warnings.filterwarnings("ignore", message=r"Total length of `DataLoader` across ranks is zero")
        run.fit(Training(model, validation), to_train, to_validate, material.batch, config)
    if config.alpha < 1:
        strip(run.best, run.best.with_name("inference.ckpt"))
    learning = {0: "words", 1: "contrast"}.get(config.alpha, "both")
    description = describe_system(
        config,
        model.sample_rate,
        acoustic_features=FEATURES[config.front_end],
        word_embeddings="learnt",
        data_augmentation="random excerpts" if config.seconds else None,
        machine_learning_method=METHODS[learning],
        audio_modelling="ESResNeXt",
        word_modelling="transformer",
        loss_function=LOSSES[learning],
    )
    if config.monitor == "epoch":
        description["metric_monitored"] = None
    run.describe(load_model(run.best), description)


def strip(checkpoint: Path, target: Path) -> None:
    """Write what captions need of a checkpoint: no text head, and nothing of the training."""
    state = read_checkpoint(checkpoint, config=dict, vocabulary=list)
    kept = ("model.heads.audio.", "model.embedding.", "model.decoder.")
    weights = {name: value for name, value in state["state_dict"].items() if name.startswith(kept)}
    wanted = {"config": state["config"], "vocabulary": state["vocabulary"], "tokenizer": None}
    save_tensors({"state_dict": weights, **wanted}, target)


def load_model(checkpoint: Path) -> ClipAac:
    """Give back the model of a checkpoint, which holds all that it needs; without a text head where that has none."""
    state = read_checkpoint(checkpoint, config=dict, vocabulary=list, tokenizer=str | None)
    tokenizer = state["tokenizer"] and Tokenizer.from_str(state["tokenizer"])
    # Checkpoints from before these keys existed have the decoder that is now `pre`, and the loss that is now `mean`.
    config = {"decoder_norm": "pre", "word_loss": "mean", **state["config"]}
    model = ClipAac(Config(**config), Vocabulary(state["vocabulary"][len(SPECIAL) :]), tokenizer)
    load_weights(model, state, checkpoint)
    return model.eval()
