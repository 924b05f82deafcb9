"""CLIP-AAC, captioning with an audio head, a text head and contrastive learning (Chen et al. 2022).

    dcase-systems train systems.clip_aac --config systems/clip_aac/system-8.yaml --data DIR --run RUN
    dcase-systems predict RUN --data DIR --split evaluation                     # generates captions
    dcase-systems predict RUN --data DIR --split evaluation --as retrieval      # retrieves with the two heads

The audio head maps a clip to one vector, and the text head maps a caption to one vector (`heads.py`). A Transformer
decoder of two blocks predicts the caption from the clip's vector. Training moves the vectors of a clip and its caption
together, and the vectors of the batch's other pairs apart. At the same time, it maximises the probability of each next
word of the caption. Both heads are trained. Captioning does not use the text head, so `checkpoints/inference.ckpt` does
not contain it. `checkpoints/best.ckpt` contains both heads (unless alpha is 0), so it can also be used for retrieval.

One default differs from the paper. The paper trains on 4884 clips of Clotho: the development and validation splits
together (section 3.1). By default, this module trains on the 3839 clips of the development split and chooses the epoch
on the validation split. `learn_from: development-validation` with `monitor: epoch` trains as the paper does. No clips
are then left to choose an epoch, so best.ckpt is the last epoch.

The word loss of a caption is the sum over its words, and the word loss of a batch is the mean of these sums. Equation 6
gives the sum for one caption and does not divide it by the number of words. Equation 5 gives the contrastive loss as
the mean over the batch. `word_loss: mean` is the mean over all words of the batch, as is common for decoders. It
divides the word loss by the number of words in a caption, about 11. With the same alpha, the contrastive loss then has
11 times the weight.

The audio head's front end is a log-power spectrogram, as in the paper. `front_end: fbsp` replaces it by a transform
that AudioCLIP has learnt. The published weights were trained with this learnt transform (`heads.py`).

The decoder is the Transformer that the paper cites (Vaswani et al. 2017): layer norms after each sublayer, ReLU, and no
norm after the last block. `decoder_norm: pre` is the other common form: layer norms before each sublayer, GELU, and a
final norm. The audio embedding has L values and the
decoder is narrower, so a linear layer (L x width) maps the embedding to the decoder's width; the paper does not
describe this step. Word embeddings are drawn with variance 1 and not multiplied by the square root of the width.
Vaswani et al. draw smaller embeddings and multiply them by this root, so that both start with the same values.

The paper leaves four points open. In this module, the vocabulary consists of the words of the training captions, as in
the baseline; the decoder has 4 heads of 128 values; dropout is applied in the decoder; and the epoch with the best
CIDEr-D is chosen. In the paper, all other pairs of the batch are negatives. In this module, a caption that several
clips of a batch share is not used as a negative for any of them.

With `alpha: 1`, the loss is the contrastive loss only. The decoder then keeps its random weights, so such a run can
only retrieve: it refuses to caption and has no inference.ckpt.
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace
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
from evaluation.downloads import Download
from evaluation.findings import BadRequest
from systems.caching.features import waveforms
from systems.clip_aac import audioclip, clip_tokenizer, heads
from systems.parts import generation, losses, pairs, texts, vocabulary
from systems.parts.checkpoints import SystemModule, load_weights
from systems.parts.decoder import CachedSteps, Decoder
from systems.parts.descriptions import describe_system
from systems.parts.encoders.weights import download
from systems.parts.extra import ExtraCaptions, WithExtra, choose_extra
from systems.parts.sequences import chunks
from systems.parts.validation import retrieval_metrics
from systems.parts.vocabulary import PADDING, SPECIAL, Vocabulary
from systems.training import Run, Schedule, read_checkpoint, save_tensors

PAPER = "Chen et al. 2022"
PARAMETERS = "101,576,001 + 1,025 per word; 37,885,760 without the text head"
CLIPS_PER_CALL = 8  # clips that the audio head encodes at once outside training

# AudioCLIP's sizes, by config key. `SIZES` lists, for each `init`, the keys that must have AudioCLIP's value.
PUBLISHED = {
    "size": heads.SIZE,
    "audio_blocks": heads.BLOCKS,
    "audio_channels": heads.CHANNELS,
    "text_width": heads.WIDTH,
    "text_layers": heads.LAYERS,
}
SIZES = {"random": (), "audio": ("audio_blocks", "audio_channels"), "audio-text": tuple(PUBLISHED)}


METHODS = {  # for a submission's metadata: the method for each combination of losses
    "words": "encoder-decoder",
    "contrast": "contrastive learning",
    "both": "encoder-decoder, contrastive learning",
}
LOSSES = {"words": "cross-entropy", "contrast": "InfoNCE", "both": "InfoNCE, cross-entropy"}
FEATURES = {"stft": "log-power spectrogram", "fbsp": "log-power spectrogram of learnt wavelets"}


class Config(ExtraCaptions, Schedule):
    """The settings. The defaults are the paper's system 8 (system 4 in Table 1), except for `learn_from`."""

    epochs: int = Field(40, ge=1)
    batch: int = Field(8, ge=1)  # pairs in a training step, on each device
    learning_rate: float = Field(1e-3, gt=0)  # of Adam, for the decoder
    encoder_rate: float = Field(1e-5, gt=0)  # learning rate of the heads
    warmup: int = Field(5, ge=0)  # epochs in which both learning rates rise linearly, step by step
    plateau: int = Field(40, ge=1)  # epochs without improvement until the rates are divided by 10; never, if >= epochs
    patience: int = Field(40, ge=1)  # epochs without improvement until training stops; never, if at least `epochs`
    monitor: Literal["CIDEr-D", "loss", "mAP@10", "epoch"] = "CIDEr-D"  # chooses best.ckpt; epoch: the last epoch
    learn_from: Literal["development", "development-validation"] = "development"  # training splits; the paper: both
    init: Literal["random", "audio", "audio-text"] = "audio-text"  # the heads that start with AudioCLIP's weights
    weights: str = ""  # AudioCLIP's file, or the folder with it; empty: the default place
    tokenizer: str = "openai/clip-vit-base-patch32"  # folder or hub name; train: trained on the captions
    train_heads: bool = True  # false: the heads are frozen
    front_end: heads.FrontEnd = "stft"  # fbsp: AudioCLIP's learnt transform; with init=random, from initial values
    pairs: Literal["all", "drawn"] = "all"  # in an epoch, each clip with every caption, or with one random caption
    seconds: float | None = Field(None, gt=0)  # length of random excerpts in training; None: whole clips; AudioCLIP: 5
    alpha: float = Field(0.2, ge=0, le=1)  # weight of the contrastive loss; 0: no text head; 1: no word loss
    word_loss: Literal["sum", "mean"] = "sum"  # sum over a caption's words (equation 6), or mean over a batch's words
    audio_to_text: float = Field(0.5, ge=0, le=1)  # lambda of equation 5: weight of the audio-to-text loss
    temperature: float = Field(0.07, ge=0.01, le=1)  # initial value, as in CLIP; AudioCLIP's file has its own
    recompute: bool = False  # compute the audio head's inner values again for the gradient: less memory, more time
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    dropout: float = Field(0.2, ge=0, lt=1)  # in the decoder

    size: int = Field(heads.SIZE, ge=1)  # L, the size of both heads' vectors
    audio_blocks: tuple[int, int, int, int] = heads.BLOCKS  # number of bottlenecks in each stage
    audio_channels: int = Field(heads.CHANNELS, ge=16, multiple_of=16)
    text_width: int = Field(heads.WIDTH, ge=heads.HEAD, multiple_of=heads.HEAD)
    text_layers: int = Field(heads.LAYERS, ge=1)
    decoder_norm: Literal["post", "pre"] = "post"  # post: Vaswani et al. 2017, ReLU; pre: GELU and a final norm
    blocks: int = Field(2, ge=1)  # of the decoder
    attention_heads: int = Field(4, ge=1)  # of the decoder
    head_size: int = Field(128, ge=2, multiple_of=2)
    hidden: int = Field(512, ge=1)  # values between the two linear layers of a block
    longest: int = Field(60, ge=1)  # maximum number of words in a caption in training; further words are left out
    beams: int = Field(3, ge=1)
    max_words: int = Field(30, ge=1)

    @model_validator(mode="after")
    def _published(self) -> "Config":
        if self.monitor == "mAP@10" and not self.alpha:
            raise ValueError(
                "monitor must be CIDEr-D, loss or epoch with alpha=0, because the model then has no text head; "
                "found mAP@10"
            )
        if self.monitor not in ("loss", "mAP@10", "epoch") and self.alpha == 1:
            raise ValueError(
                f"monitor must be mAP@10, loss or epoch with alpha=1, because the decoder is not trained; found "
                f"{self.monitor}: set monitor=mAP@10"
            )
        if self.monitor != "epoch" and self.learn_from == "development-validation":
            raise ValueError(
                "monitor must be epoch with learn_from=development-validation, because no clips are left to choose an "
                f"epoch; found {self.monitor}: set monitor=epoch"
            )
        different = [f"{key}={getattr(self, key)}" for key in SIZES[self.init] if getattr(self, key) != PUBLISHED[key]]
        if different:
            raise ValueError(
                f"init must be random for heads whose sizes differ from AudioCLIP's; found init={self.init} with "
                f"{', '.join(different)}"
            )
        if self.init == "audio-text" and self.alpha and self.tokenizer == "train":
            raise ValueError(
                "tokenizer must be CLIP's with init=audio-text, because AudioCLIP's weights belong to CLIP's tokens; "
                "found train"
            )
        if self.init == "random" and not self.train_heads:
            raise ValueError(
                "train_heads must be true with init=random, because random heads must be trained; found false"
            )
        return self


def downloads(config: Config) -> list[Download]:
    """Return the published files that a config needs."""
    needed = []
    if config.init == "audio":
        needed.append(download(audioclip.AUDIO, config.weights))
    elif config.init == "audio-text":
        needed.append(download(audioclip.BOTH, config.weights))
    if config.alpha and config.tokenizer != "train":
        needed.append(clip_tokenizer.download(config.tokenizer))
    return needed


# The model ---------------------------------------------------------------------------------------------------------


class ClipAac(generation.WordByWord, nn.Module):
    """A model that captions audio and, if it has a text head, embeds audio and texts in one space.

    Args:
        config: The config.
        vocab: The decoder's vocabulary.
        tokenizer: The text head's tokeniser; if None, the model has no text head.
    """

    sample_rate = heads.SAMPLE_RATE

    def __init__(self, config: Config, vocab: Vocabulary, tokenizer: Tokenizer | None = None):
        super().__init__()
        self.config, self.vocabulary, self.tokenizer = config, vocab, tokenizer
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
        self.embedding = nn.Embedding(len(vocab), width, padding_idx=PADDING)
        self.decoder = Decoder(
            len(vocab),
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
            # The original Transformer has no layer between word embeddings and blocks: both have the same width.
            self.decoder.enter = nn.Identity()
        self.decoding = generation.Decoding(beams=config.beams, max_words=config.max_words)
        self.rules = vocabulary.rules(1, config.max_words)

    def train(self, mode: bool = True) -> "ClipAac":
        """Set training or evaluation mode. Frozen heads stay in evaluation mode; their batch norms do not change."""
        super().train(mode)
        self.heads.train(mode and self.config.train_heads)
        return self

    def audio_vectors(self, sounds: Tensor, lengths: Tensor) -> Tensor:
        """Encode audio. Clips of equal length go through the audio head together.

        The audio head never reads the zeros after a clip's end, so a clip's vector does not depend on its batch.

        Args:
            sounds: (N, samples) mono audio.
            lengths: (N,) number of samples of each clip.

        Returns:
            (N, L) vectors.
        """
        groups: list[Tensor] = []  # the rows of each group of clips with equal length
        for length in lengths.unique():
            groups += (lengths == length).nonzero()[:, 0].split(CLIPS_PER_CALL)
        vectors = torch.cat([self.heads.embed_audio(sounds[group, : int(lengths[group[0]])]) for group in groups])
        return vectors[torch.cat(groups).argsort()]

    def text_vectors(self, captions: Sequence[str]) -> Tensor:
        """Return the text head's vectors for texts, an array of shape (texts, L).

        Raises:
            BadRequest: The model has no text head: it comes from inference.ckpt, or was trained without one.
        """
        if self.tokenizer is None:
            raise BadRequest(
                "retrieval needs a text head, but this model has none: inference.ckpt and runs with alpha=0 "
                "do not contain a text head; give a run that was trained with alpha above 0 and has its best.ckpt"
            )
        ids, lengths = clip_tokenizer.encode(self.tokenizer, captions)
        device = self.embedding.weight.device
        return self.heads.embed_text(ids.to(device), lengths.to(device))

    def embed_audio(self, audio: Tensor, lengths: Tensor) -> Tensor:
        """Embed audio.

        Args:
            audio: (N, samples) mono audio at `sample_rate`.
            lengths: (N,) number of samples of each clip.

        Returns:
            (N, L) embeddings of length 1.
        """
        return F.normalize(self.audio_vectors(audio, lengths), dim=1)

    def embed_text(self, captions: Sequence[str]) -> Tensor:
        """Return (texts, L) embeddings of length 1.

        Raises:
            BadRequest: As in `text_vectors`.
        """
        parts = chunks(captions, texts.TEXTS_PER_BATCH)
        return F.normalize(torch.cat([self.text_vectors(part) for part in parts]), dim=1)

    def steps(self, clip_vectors: Tensor) -> CachedSteps:
        """Return a `generation.Step`, which predicts the captions word by word, for the (N, L) vectors of N clips."""
        return CachedSteps(
            self.decoder, clip_vectors[:, None], _ones(clip_vectors), lambda ids: self.embedding(ids[:, -1:])
        )

    def encode(self, audio: Tensor, lengths: Tensor) -> CachedSteps:
        """Encode (N, samples) audio with (N,) lengths, and return the function that predicts the next word.

        Raises:
            BadRequest: The model was trained with alpha 1, so its decoder is untrained.
        """
        if self.config.alpha == 1:
            raise BadRequest(
                "alpha must be below 1 for captions, because the decoder is untrained otherwise; found 1: use this run "
                "for retrieval, or train a run with a smaller alpha"
            )
        return self.steps(self.audio_vectors(audio, lengths))

    def decode(self, ids: list[int]) -> str:
        """Return the text of a caption's word indices."""
        return self.vocabulary.decode(ids)


def _ones(clip_vectors: Tensor) -> Tensor:
    """Return (N,) ones for (N, L) clip vectors: the decoder reads one vector for each clip."""
    return torch.ones(len(clip_vectors), dtype=torch.int64, device=clip_vectors.device)


def beginning(config: Config, vocab: Vocabulary, tokenizer: Tokenizer | None) -> ClipAac:
    """Return the model before training. It has AudioCLIP's weights where the config requires them.

    All other weights are random.

    Raises:
        BadRequest: AudioCLIP's file is not on this machine or cannot be read, or the tokeniser is not CLIP's.
        Faulty: The file does not hold AudioCLIP's weights. The exception lists all differences.
    """
    if config.init == "audio-text" and tokenizer and tokenizer.get_vocab_size() != heads.WORDS:
        raise BadRequest(
            f"tokenizer: {config.tokenizer}: must have CLIP's {heads.WORDS} tokens; found "
            f"{tokenizer.get_vocab_size()}; give the folder of the tokeniser of openai/clip-vit-base-patch32"
        )
    model = ClipAac(config, vocab, tokenizer)
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
    """N pairs of a clip and a caption."""

    sounds: Tensor  # (N, samples) audio; each clip is repeated up to the length of the longest clip
    lengths: Tensor  # (N,) number of samples of each clip
    ids: Tensor  # (N, words) word indices of the captions, from start to end, padded
    captions: list[str]
    clips: Tensor  # (N,) indices of the clips
    owners: Tensor  # (N, K) indices of all clips that each caption belongs to


class Material:
    """Clips and captions in the form that the model reads.

    Args:
        clips: The clips. In batches, a clip is identified by its index in this sequence.
        vocab: The vocabulary.
        longest: Maximum number of words in a caption; further words are left out.
        cache: Folder of the cache, for decoded audio.
        extra: Extra captions, each with the index of its clip.

    Attributes:
        pairs: Every pair of a clip and one of its captions: the clip's index in `clips`, and the caption's index among
            the distinct captions.
        extra: Every pair of a clip and one of its extra captions, in the same form.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        vocab: Vocabulary,
        longest: int,
        cache: Path,
        extra: Sequence[tuple[int, str]] = (),
    ):
        self.captions, _, self.pairs, self.extra, self.owners = pairs.clip_caption_pairs(clips, extra=extra)
        self.sounds = waveforms([clip.path for clip in clips], heads.SAMPLE_RATE, cache)
        self.ids = [torch.tensor(vocab.sequence(caption, longest)) for caption in self.captions]

    def batch(self, items: Sequence[tuple[int, ...]]) -> Batch:
        """Make a batch of clips, each with its caption or with a random one of its captions.

        Shorter clips are repeated up to the length of the longest clip. They are not padded with silence, because
        silence would change the statistics of the audio head's batch norms.

        Args:
            items: For each clip its index, followed by the indices of its captions.
        """
        clips = []
        captions = []
        for clip, *numbers in items:
            clips.append(clip)
            chosen = 0
            if len(numbers) > 1:
                chosen = int(torch.randint(len(numbers), ()))
            captions.append(numbers[chosen])
        lengths = torch.tensor([len(self.sounds[clip]) for clip in clips])
        sounds = np.stack([np.resize(self.sounds[clip], int(lengths.max())) for clip in clips])
        ids = nn.utils.rnn.pad_sequence([self.ids[number] for number in captions], True, PADDING)
        texts_of_captions = [self.captions[number] for number in captions]
        return Batch(
            torch.from_numpy(sounds), lengths, ids, texts_of_captions, torch.tensor(clips), self.owners[captions]
        )


def contrastive_loss(audio: Tensor, text: Tensor, matches: Tensor, temperature: Tensor, audio_to_text: float) -> Tensor:
    """Return the contrastive loss of Chen et al. 2022, equation 5.

    Args:
        audio: (N, L) embeddings of length 1.
        text: (N, L) embeddings of length 1.
        matches: (N, N) bool, true if clip i and text j belong together; each row and each column has a match.
        temperature: The number that cosines are divided by.
        audio_to_text: Lambda, the weight of the audio-to-text loss (equation 2). The text-to-audio loss (equation 4)
            has the weight 1 - lambda.
    """
    logits = losses.dot_products(audio, text) / temperature
    audio_to_text_loss = _cross_entropy(logits, matches)
    text_to_audio_loss = _cross_entropy(logits.T, matches.T)
    return audio_to_text * audio_to_text_loss + (1 - audio_to_text) * text_to_audio_loss


def _cross_entropy(scores: Tensor, matches: Tensor) -> Tensor:
    """Return the mean of -log softmax over all matches. The softmax is over a match and the negatives of its row."""
    # With -inf, the gradient of a row without negatives would be NaN, so a very low finite score is used instead.
    smallest = torch.finfo(scores.dtype).min / 2
    negatives = scores.masked_fill(matches, smallest).logsumexp(1, keepdim=True)
    return F.softplus(negatives - scores)[matches].mean()


class Losses(NamedTuple):
    """The two losses, and their weighted sum, which training minimises."""

    contrastive: Tensor
    words: Tensor
    total: Tensor


class Training(SystemModule):
    """The model's training under lightning: training step, validation step and optimizer.

    Args:
        model: The model.
        validation: The validation split.
    """

    def __init__(self, model: ClipAac, validation: Split):
        super().__init__(model)
        self.split = validation

    def loss(self, clip_vectors: Tensor, batch: Batch, smoothing: float = 0) -> Losses:
        """Return both losses and the total (Chen et al. 2022, equations 5 to 7).

        In training, the contrastive loss covers the pairs of all processes. The word loss covers the captions of this
        process; its mean over the processes is the loss of all captions. With alpha 1, the word loss has no weight in
        the total, so the decoder is not trained.

        Args:
            clip_vectors: (N, L) embeddings of the batch's clips.
            batch: Clips and captions.
            smoothing: Label smoothing of the word loss.
        """
        model, alpha = self.model, self.model.config.alpha

        def gather(values: Tensor) -> Tensor:
            """In training, return the values of all processes; otherwise return those of this process."""
            if self.training:
                return losses.gathered(values)
            return values

        previous_words = model.embedding(batch.ids[:, :-1])
        logits = model.decoder(previous_words, clip_vectors[:, None], _ones(clip_vectors))  # (N, words, vocabulary)
        targets = batch.ids[:, 1:].flatten()
        summed = F.cross_entropy(
            logits.flatten(0, 1).float(), targets, ignore_index=PADDING, label_smoothing=smoothing, reduction="sum"
        )
        if model.config.word_loss == "sum":
            number = _ones(clip_vectors).sum()  # number of captions
        else:
            number = (targets != PADDING).sum()  # number of words
        words = summed / gather(number[None]).float().mean()
        if not alpha:
            return Losses(torch.zeros_like(words), words, words)
        audio = gather(F.normalize(clip_vectors.float(), dim=1))
        text = gather(F.normalize(model.text_vectors(batch.captions).float(), dim=1))
        clips = gather(batch.clips)
        matches = losses.matching(clips, gather(batch.owners))[: len(clips), len(clips) :]  # clips x texts
        contrastive = contrastive_loss(audio, text, matches, model.heads.temperature, model.config.audio_to_text)
        return Losses(contrastive, words, alpha * contrastive + (1 - alpha) * words)

    def on_train_batch_start(self, batch: Batch, number: int) -> None:
        """During the first `warmup` epochs, raise the learning rates in each training step."""
        config, steps = self.model.config, self.trainer.num_training_batches
        if self.current_epoch < config.warmup:
            share = (self.current_epoch * steps + number + 1) / (config.warmup * steps)
            for group, rate in zip(self.optimizers().param_groups, self.rates, strict=True):
                group["lr"] = share * rate

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Encode the batch's pairs and return the loss."""
        config, sounds = self.model.config, batch.sounds
        if config.seconds:
            sounds = random_excerpts(sounds, round(config.seconds * heads.SAMPLE_RATE))
        batch_losses = self.loss(self.model.heads.embed_audio(sounds), batch, config.label_smoothing)
        loss, size = batch_losses.total, len(batch.clips)
        self.log("loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=size, sync_dist=True)
        if config.monitor == "epoch":  # this value rises with each epoch, so the last epoch becomes best.ckpt
            epoch = float(self.current_epoch + 1)
            self.log("validation_epoch", epoch, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Drop the captions and embeddings of the previous validation."""
        self.captions: list[str] = []
        self.clips: list[Tensor] = []

    def validation_step(self, batch: Batch, _: int) -> None:
        """Caption the clips by greedy decoding, and log the losses of each clip with its first caption."""
        model = self.model
        clip_vectors = model.audio_vectors(batch.sounds, batch.lengths)
        generated = generation.greedy(model.steps(clip_vectors), len(clip_vectors), model.rules, clip_vectors.device)
        self.captions += [model.vocabulary.decode(ids) for ids in generated.ids.tolist()]
        self.clips.append(F.normalize(clip_vectors.float(), dim=1))
        contrastive, words, total = self.loss(clip_vectors, batch)
        self.log("validation_loss", total, prog_bar=True, batch_size=len(clip_vectors))
        self.log("validation_words", words, batch_size=len(clip_vectors))
        if model.config.alpha:
            self.log("validation_contrastive", contrastive, batch_size=len(clip_vectors))

    def on_validation_epoch_end(self) -> None:
        """Log the CIDEr-D of the captions and, if there is a text head, the mAP@10 of retrieval."""
        self.log("validation_CIDEr-D", vocabulary.validation_cider_d(self.split, self.captions), prog_bar=True)
        if self.model.config.alpha:
            answers = self.model.embed_text(self.split.queries).float() @ torch.cat(self.clips).T
            metrics = retrieval_metrics(self.split, answers)
            self.log("validation_mAP@10", metrics["validation_mAP@10"])

    @property
    def rates(self) -> tuple[float, float]:
        """The learning rates of the decoder and of the heads."""
        return self.model.config.learning_rate, self.model.config.encoder_rate

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam, as in the paper, with one learning rate for the decoder and one for the heads."""
        decoder_parameters = [*self.model.embedding.parameters(), *self.model.decoder.parameters()]
        decoder_rate, head_rate = self.rates
        groups = [
            {"params": decoder_parameters, "lr": decoder_rate},
            {"params": list(self.model.heads.parameters()), "lr": head_rate},
        ]
        return torch.optim.Adam(groups)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Add the vocabulary and the tokeniser to the checkpoint."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["vocabulary"] = list(self.model.vocabulary.words)
        checkpoint["tokenizer"] = self.model.tokenizer and self.model.tokenizer.to_str()


def random_excerpts(sounds: Tensor, length: int) -> Tensor:
    """Cut an excerpt of `length` samples from each of (N, samples) clips, at random places, if the clips are longer."""
    if length >= sounds.shape[1]:
        return sounds
    starts = torch.randint(sounds.shape[1] - length + 1, (len(sounds),)).tolist()
    return torch.stack([sound[start : start + length] for sound, start in zip(sounds, starts, strict=True)])


# What every system must define (`systems.contract`) ------------------------------------------------------------------


def train(config: Config, dataset: Dataset, run: Run) -> None:
    """Train on the development split and choose the best epoch on the validation split, or train on both splits."""
    development, validation = dataset[DEVELOPMENT], dataset[VALIDATION]
    if config.learn_from == "development-validation":
        training_clips = (*validation.clips, *development.clips)
        held_out = 0  # number of validation clips, which come first in the material
    else:
        training_clips = development.clips
        held_out = len(validation.clips)
    extra = choose_extra(config, development)
    run = replace(run, data={**run.data, **extra.digests})
    captions = [*chain.from_iterable(clip.captions for clip in training_clips), *extra.captions]
    vocab = vocabulary.from_captions(captions)
    tokenizer = None
    if config.alpha:
        if config.tokenizer == "train":
            tokenizer = clip_tokenizer.train(captions)
        else:
            tokenizer = clip_tokenizer.load(config.tokenizer)
    lightning.seed_everything(run.seed, verbose=False)
    # A resumed run reads all weights from its last checkpoint and does not need AudioCLIP's file.
    if run.last.exists():
        model = ClipAac(config, vocab, tokenizer)
    else:
        model = beginning(config, vocab, tokenizer)
    model.heads.requires_grad_(config.train_heads)
    clips = [*validation.clips, *development.clips]
    extra_captions = [(len(validation.clips) + clip, caption) for clip, caption in extra.pairs]
    material = Material(clips, vocab, config.longest, run.cache, extra_captions)

    run.start()
    to_train: list[tuple[int, ...]] = [pair for pair in material.pairs if pair[0] >= held_out]
    if config.pairs == "drawn":
        captions_of_clip: dict[int, tuple[int, ...]] = {}  # each clip's index, then those of its captions
        for clip, caption in to_train:
            captions_of_clip[clip] = (*captions_of_clip.get(clip, (clip,)), caption)
        to_train = list(captions_of_clip.values())
    items: Sequence | WithExtra = to_train
    if material.extra:
        items = WithExtra(to_train, material.extra, config.extra_share)
    first_pairs: dict[int, tuple[int, int]] = {}  # each validation clip with its first caption
    for clip, caption in material.pairs:
        if clip < held_out:
            first_pairs.setdefault(clip, (clip, caption))
    to_validate = [first_pairs[clip] for clip in sorted(first_pairs)]
    with warnings.catch_warnings():
        # There are no validation clips if training uses both splits.
        warnings.filterwarnings("ignore", message=r"Total length of `DataLoader` across ranks is zero")
        run.fit(Training(model, validation), items, to_validate, material.batch, config)
    if config.alpha < 1:
        strip(run.best, run.best.with_name("inference.ckpt"))
    objective = {0.0: "words", 1.0: "contrast"}.get(config.alpha, "both")
    augmentation = None
    if config.seconds:
        augmentation = "random excerpts"
    description = describe_system(
        config,
        model.sample_rate,
        acoustic_features=FEATURES[config.front_end],
        word_embeddings="learnt",
        data_augmentation=augmentation,
        machine_learning_method=METHODS[objective],
        audio_modelling="ESResNeXt",
        word_modelling="transformer",
        loss_function=LOSSES[objective],
    )
    if config.monitor == "epoch":
        description["metric_monitored"] = None
    run.describe(load_model(run.best), description)


def strip(checkpoint: Path, target: Path) -> None:
    """Write a checkpoint that can only caption. It contains neither the text head nor the state of training.

    Args:
        checkpoint: The checkpoint to read.
        target: The checkpoint to write.
    """
    state = read_checkpoint(checkpoint, config=dict, vocabulary=list)
    prefixes = ("model.heads.audio.", "model.embedding.", "model.decoder.")
    weights = {name: value for name, value in state["state_dict"].items() if name.startswith(prefixes)}
    content = {"state_dict": weights, "config": state["config"], "vocabulary": state["vocabulary"], "tokenizer": None}
    save_tensors(content, target)


def load_model(checkpoint: Path) -> ClipAac:
    """Load the model from a checkpoint. No other file is read. The model has a text head if the checkpoint has one."""
    state = read_checkpoint(checkpoint, config=dict, vocabulary=list, tokenizer=str | None)
    tokenizer = state["tokenizer"] and Tokenizer.from_str(state["tokenizer"])
    # Older checkpoints do not have the keys decoder_norm and word_loss. Their decoder is the one that is now called
    # `pre`, and their word loss is the one that is now called `mean`.
    config = {"decoder_norm": "pre", "word_loss": "mean", **state["config"]}
    model = ClipAac(Config(**config), Vocabulary(state["vocabulary"][len(SPECIAL) :]), tokenizer)
    load_weights(model, state, checkpoint)
    return model.eval()
