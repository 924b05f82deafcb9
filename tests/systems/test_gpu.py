"""Training, prediction and exact resume on a GPU. Tests marked `gpu` need one; the others run everywhere."""

import importlib
import math
import sys
from dataclasses import replace
from typing import NamedTuple

import pytest
import soundfile
import torch
import torch.nn.functional as F

import baseline.captioner
import baseline.retriever
from bench.encoders import NETWORKS
from evaluation.cli import command
from evaluation.data.dataset import read_dataset
from systems import atae, caption_retrieval, clip_aac, contract, guided_gpt2, offtheshelf
from systems.__main__ import parser
from systems.modules import trusting
from systems.parts import encoders
from systems.parts.self_critical import Rewards, SelfCritical, SelfCriticalSettings
from systems.runs import missing_methods
from systems.training import Run
from tests.brief import make_brief_soundscapes
from tests.systems.other_device import other_device
from tests.systems.runs import assert_captions_do_not_depend_on_the_batch, same, weights
from tests.systems.tiny import HEAR, NETWORK, bart_model, causal_model, llama_model, text_model

OWN_DECODER = ("blocks=1", "heads=2", "head_size=8", "hidden=16", "max_words=3")
CAPTIONER = ("words_epochs=1", "monitor=CIDEr-D", *OWN_DECODER)
CLIP_AAC = (
    "init=random",
    "tokenizer=train",
    "size=24",
    "audio_blocks=[1,1,1,1]",
    "audio_channels=16",
    "text_width=64",
    "text_layers=1",
    "attention_heads=2",
    "head_size=16",
    "hidden=32",
    "max_words=3",
)
ATAE = ("audio_encoder=tiny_hear", "text_encoder={place}/text", "size=16")
GUIDED = (
    "retrieval.audio_encoder=tiny_hear",
    "retrieval.similarity_model={place}/text",
    "retrieval.similarity_layer=2",
    "retrieval.threshold=0.5",
    "retrieval.embedding=raw",
    "language_model={place}/gpt",
    "max_tokens=3",
    "monitor=CIDEr-D",
)
OFFTHESHELF = ("audio_encoder=tiny_hear", "overlap=0", "monitor=CIDEr-D", "heads=2", "head_size=8", "max_words=3")
CPU = torch.device("cpu")
# A system and its settings for each case.
CASES = {
    "retriever": (baseline.retriever, ("words_epochs=1",)),
    "captioner": (baseline.captioner, CAPTIONER),
    "captioner, augmented": (baseline.captioner, (*CAPTIONER, "spec_augment=1", "mixup=0.5", "decoding=sample")),
    "captioner, self-critical": (baseline.captioner, CAPTIONER),
    "ATAE, frozen": (atae, ATAE),
    "ATAE, frozen, triplet": (atae, (*ATAE, "loss=triplet", "mixup=0.5")),
    "ATAE, learning": (
        atae,
        (
            *ATAE,
            "audio_encoder=tiny_network",
            "train_audio=true",
            "train_text=true",
            "loss=nt_xent",
            "train_temperature=true",
            "spec_augment=1",
        ),
    ),
    "CLIP-AAC": (clip_aac, CLIP_AAC),
    "CLIP-AAC, learnt transform": (
        clip_aac,
        (*CLIP_AAC, "front_end=fbsp", "recompute=true", "word_loss=mean"),
    ),
    "triplet retrieval": (caption_retrieval, [one.removeprefix("retrieval.") for one in GUIDED[:4]]),
    "guided GPT-2": (guided_gpt2, (*GUIDED, "tokens=captions", "guidance=2")),
    "off the shelf": (offtheshelf, (*OFFTHESHELF, *OWN_DECODER, "words=random")),
    "off the shelf, context": (offtheshelf, (*OFFTHESHELF, *OWN_DECODER, "words={place}/text", "adapter=mlp")),
    "off the shelf, prefix": (offtheshelf, (*OFFTHESHELF, "decoder={place}/llama", "fusion=prefix", "tuning=lora")),
    "off the shelf, cross": (offtheshelf, (*OFFTHESHELF, "decoder={place}/bart", "tuning=full")),
}

# One case of each system, for the test that runs on all machines.
ON_ALL_MACHINES = (
    "retriever",
    "captioner, augmented",
    "ATAE, learning",
    "CLIP-AAC",
    "triplet retrieval",
    "guided GPT-2",
    "off the shelf",
    "off the shelf, prefix",
)
# CLIP-AAC is not among them: on a GPU, torch has no repeatable gradient of adaptive max pooling.
RESUMED = ("retriever", "captioner, augmented", "ATAE, frozen", "ATAE, learning", "guided GPT-2", "off the shelf")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with tiny models and data."""
    folder = tmp_path_factory.mktemp("gpu")
    text_model(folder / "text")
    causal_model(folder / "gpt")
    llama_model(folder / "llama")
    bart_model(folder / "bart")
    (folder / "modules").mkdir()
    (folder / "modules" / "tiny_hear.py").write_text(HEAR)
    (folder / "modules" / "tiny_network.py").write_text(NETWORK)
    make_brief_soundscapes(folder / "data", seconds=0.3, development=12, validation=4, evaluation=2)
    for path in sorted(folder.glob("data/*/*.wav"))[::2]:  # clips of two lengths
        sound, rate = soundfile.read(path, dtype="int16")
        soundfile.write(path, sound[: len(sound) // 2], rate)
    return folder


@pytest.fixture(autouse=True)
def modules(place, monkeypatch):
    monkeypatch.syspath_prepend(str(place / "modules"))
    with trusting(["tiny_hear", "tiny_network"]):
        yield
    sys.modules.pop("tiny_hear", None)
    sys.modules.pop("tiny_network", None)


class Prepared(Exception):  # it ends `train` before the training, and is not an error
    """A training that is ready to begin. The arguments are those of `Run.fit`."""

    def __init__(self, module, train, validation, collate):
        super().__init__("ready to train")
        self.module, self.train, self.validation, self.collate = module, train, validation, collate


class PreparingRun(Run):
    """A run that raises `Prepared` instead of training."""

    def fit(self, module, train, validation, collate, schedule):
        raise Prepared(module, train, validation, collate)


class Case(NamedTuple):
    """A system's training, a batch to train on, and a batch of all validation items."""

    training: torch.nn.Module
    batch: tuple
    validation: tuple


def prepare(place, folder, name):
    """Return a case on the CPU, as the system's `train` prepares it."""
    system, settings = CASES[name]
    config = contract.configure(system.Config, None, [setting.format(place=place) for setting in settings])
    run = PreparingRun(folder, system.__name__, config, {}, cache=place / "cache")
    with pytest.raises(Prepared) as prepared:
        system.train(config, read_dataset(place / "data"), run)
    found = prepared.value
    torch.manual_seed(0)
    training = found.module.cpu()
    training.log = training.log_dict = lambda *_, **__: None  # there is no trainer to log to
    if name == "captioner, self-critical":
        settings = SelfCriticalSettings(loss="self_critical", init_from="another run", reward="ROUGE-L")
        rewards = Rewards(read_dataset(place / "data")["development"], settings.reward)
        training.critical = SelfCritical(settings, rewards, training.model.rules, training.model.decode, seed=0)
    some = found.train[:: len(found.train) // 4][:4]  # items of several clips
    return Case(training, found.collate(some), found.collate(list(found.validation)))


def step(case, device):
    """Move the training to a device, and return the loss of a batch and the gradients on the CPU."""
    training = case.training.to(device).train()
    training.zero_grad()
    torch.manual_seed(0)
    loss = training.training_step(training.transfer_batch_to_device(case.batch, device, 0), 0)
    loss.backward()
    gradients = {}
    for name, parameter in training.named_parameters():
        if parameter.grad is not None:
            gradients[name] = parameter.grad.cpu()
    return loss.detach().cpu(), gradients


def validated(case, device):
    """Validate on a device as Lightning does, and return the values that the training logs."""
    training = case.training.to(device).eval()
    torch.manual_seed(0)
    values = {}
    training.log = lambda name, value, **_: values.update({name: float(value)})
    training.log_dict = lambda logged, **_: values.update(logged)
    with torch.inference_mode():
        training.on_validation_epoch_start()
        training.validation_step(training.transfer_batch_to_device(case.validation, device, 0), 0)
        training.on_validation_epoch_end()
    return values


def predicted(case, split, device):
    """Predict a split on a device as `dcase-systems predict` does: the captions, and the similarity matrix."""
    model = case.training.model.to(device).eval()
    captions = similarity = None
    if not missing_methods(model, "captioning"):
        captions, _ = contract.captions(model, split, device=device)
    if not missing_methods(model, "retrieval"):
        similarity = torch.from_numpy(contract.similarity(model, split, device=device).scores)
    return captions, similarity


@pytest.mark.parametrize("name", ON_ALL_MACHINES)
def test_no_tensor_is_on_another_device(place, tmp_path, name):
    case = prepare(place, tmp_path / "run", name)
    split = read_dataset(place / "data")["evaluation"]
    with other_device() as device:
        step(case, device)
        validated(case, device)
        predicted(case, replace(split, clips=split.clips[:1]), device)


# Tests on a GPU ------------------------------------------------------------------------------------------------------


@pytest.fixture
def device():
    """The GPU, which computes in float32 with all digits (without TF32)."""
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    products.allow_tf32 = convolutions.allow_tf32 = False
    yield torch.device("cuda")
    products.allow_tf32, convolutions.allow_tf32 = before


@pytest.fixture
def same_draws(monkeypatch):
    """Draw random numbers on the CPU for all devices, and leave out dropout."""
    rand, attention = torch.rand, F.scaled_dot_product_attention
    monkeypatch.setattr(torch, "rand", lambda *size, device="cpu", **rest: rand(*size, **rest).to(device))
    monkeypatch.setattr(torch, "rand_like", lambda values: rand(values.shape, dtype=values.dtype).to(values.device))
    monkeypatch.setattr(F, "dropout", lambda values, *_, **__: values)

    def without_dropout(*tensors, dropout_p=0.0, **rest):
        return attention(*tensors, **rest)

    monkeypatch.setattr(F, "scaled_dot_product_attention", without_dropout)


@pytest.mark.gpu
@pytest.mark.usefixtures("same_draws")
@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradients_equal_those_on_the_cpu(place, tmp_path, device, name):
    case = prepare(place, tmp_path / "run", name)
    loss, gradients = step(case, CPU)
    loss_on_gpu, gradients_on_gpu = step(case, device)
    torch.testing.assert_close(loss_on_gpu, loss, rtol=1e-4, atol=1e-5)
    assert gradients_on_gpu.keys() == gradients.keys()
    largest = max(gradient.norm() for gradient in gradients.values())
    for parameter, gradient in gradients.items():
        difference = (gradients_on_gpu[parameter] - gradient).norm()
        assert difference <= 1e-2 * gradient.norm() + 1e-4 * largest, parameter


@pytest.mark.gpu
@pytest.mark.usefixtures("same_draws")
@pytest.mark.parametrize("name", CASES)
def test_validation_and_predictions_equal_those_on_the_cpu(place, tmp_path, device, name):
    case = prepare(place, tmp_path / "run", name)
    split = read_dataset(place / "data")["evaluation"]
    values, (captions, similarity) = validated(case, CPU), predicted(case, split, CPU)
    values_on_gpu, (captions_on_gpu, similarity_on_gpu) = validated(case, device), predicted(case, split, device)
    assert values_on_gpu["validation_loss"] == pytest.approx(values["validation_loss"], rel=1e-3)
    assert captions_on_gpu == captions
    torch.testing.assert_close(similarity_on_gpu, similarity, rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_predictions_on_a_gpu_do_not_depend_on_the_batch(place, tmp_path, device, name):
    model = prepare(place, tmp_path / "run", name).training.model.to(device).eval()
    lengths = torch.tensor([model.sample_rate // 2, model.sample_rate // 5], device=device)
    audio = torch.zeros(2, model.sample_rate // 2, device=device)
    for row, length in enumerate(lengths.tolist()):
        audio[row, :length] = torch.rand(length, device=device) - 0.5
    if hasattr(model, "caption_scored"):
        assert_captions_do_not_depend_on_the_batch(model, audio, lengths)
    if hasattr(model, "embed_audio"):
        with torch.inference_mode():
            together = model.embed_audio(audio, lengths)
            alone = model.embed_audio(audio[1:, : lengths[1]], lengths[1:])
        torch.testing.assert_close(together[1:], alone, rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_training_with_mixed_precision_lowers_the_loss(place, tmp_path, device, name):
    training = prepare(place, tmp_path / "run", name).training.to(device).train()
    batch = training.transfer_batch_to_device(prepare(place, tmp_path / "again", name).batch, device, 0)
    optimizer = training.configure_optimizers()
    for group in optimizer.param_groups:
        group["lr"] = 1e-3
    values = []
    for _ in range(20):
        torch.manual_seed(0)  # each step draws the same numbers
        with torch.autocast(device.type, torch.bfloat16):
            loss = training.training_step(batch, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(float(loss.detach()))
    assert all(map(math.isfinite, values))
    if name != "captioner, self-critical":  # its loss does not fall: it follows the rewards of the samples
        assert min(values[10:]) < values[0]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("name", RESUMED)
def test_training_on_a_gpu_resumes_exactly(place, tmp_path, device, monkeypatch, name, precision):
    system, settings = CASES[name]
    words = ["--data", str(place / "data"), "--cache", str(place / "cache")]
    words += ["--accelerator", device.type, "--precision", precision, "--set", "epochs=3", "--set", "batch=4"]
    for setting in settings:
        words += ["--set", setting.format(place=place)]
    whole, interrupted = (["train", system.__name__, "--run", str(tmp_path / run), *words] for run in ("a", "b"))
    assert command(parser(), whole) == 0
    with monkeypatch.context() as patch:
        patch.setattr(Run, "continues", lambda run, values: False)
        assert command(parser(), interrupted) != 0
    assert command(parser(), interrupted) == 0
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))


@pytest.mark.gpu
@pytest.mark.parametrize("name", NETWORKS)
def test_audio_encoders_embed_as_on_the_cpu(device, name):
    torch.manual_seed(0)
    module = importlib.import_module(f"{encoders.__name__}.{name}")
    model = getattr(module, NETWORKS[name])().eval().requires_grad_(False)
    encoder = encoders.Encoder(name, module, model)
    audio = torch.rand(1, 3 * model.sample_rate) - 0.5
    lengths = torch.tensor([audio.shape[1]])
    (wanted,) = encoder(audio, lengths)
    model.to(device)
    (found,) = encoder(audio.to(device), lengths.to(device))
    torch.testing.assert_close(found.cpu(), wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))
