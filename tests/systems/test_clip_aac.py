"""CLIP-AAC: its heads against published shapes and other implementations, its losses, its runs, and both contracts."""

import csv
import math
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile
import torch
import torch.nn.functional as F
import yaml

from evaluation.cli import command
from evaluation.data.dataset import read_dataset
from evaluation.findings import BadRequest, Faulty
from evaluation.metrics import retrieval
from submission.__main__ import parser as submission_parser
from systems import clip_aac, contract
from systems.__main__ import parser
from systems.clip_aac import audioclip, clip_tokenizer, figure, heads
from systems.parts import losses, vocabulary
from tests.systems.runs import cut_off, kill, rows, same

ROOT = Path(__file__).parents[2]
CONFIGS = {path.stem: path for path in (ROOT / "systems" / "clip_aac").glob("*.yaml") if path.stem != "published"}
TINY = {
    "init": "random",
    "tokenizer": "train",
    "size": 24,
    "audio_blocks": [1, 1, 1, 1],
    "audio_channels": 16,
    "text_width": 64,
    "text_layers": 1,
    "attention_heads": 2,
    "head_size": 16,
    "hidden": 32,
    "encoder_rate": 0.002,
    "warmup": 1,
}
TONES = {"a low hum": 110, "a dog barks twice": 440, "birds sing in the rain": 1760, "a bell rings and rings": 7040}


def tone(hertz, seconds=0.3, seed=0):
    noise = np.random.default_rng(seed).normal(0, 0.01, int(seconds * 44100))
    return (np.sin(2 * np.pi * hertz * np.arange(len(noise)) / 44100) * 0.5 + noise).astype(np.float32)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with data: tones of equal length with two captions each."""
    folder = tmp_path_factory.mktemp("clip_aac")
    for split, count in {"development": 16, "validation": 4, "evaluation": 11}.items():
        (folder / "data" / split).mkdir(parents=True)
        with (folder / "data" / f"captions_{split}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["file_name", "caption_1", "caption_2"])
            for number in range(count):
                said, hertz = list(TONES.items())[number % 4]
                soundfile.write(folder / "data" / split / f"{number}.wav", tone(hertz, seed=number), 44100)
                table.writerow([f"{number}.wav", f"{said} {split}", f"number {number} of {split}, {said}"])
    return folder


def arguments(place, run, *settings, more=()):
    given = {**TINY, "epochs": 2, "batch": 8} | dict(setting.split("=", 1) for setting in settings)
    asked = ["train", "systems.clip_aac", "--data", str(place / "data"), "--run", str(run), "--accelerator", "cpu"]
    asked += ["--cache", str(place / "cache"), *more]
    return asked + [word for key, value in given.items() for word in ("--set", f"{key}={value}")]


def trained(place, run, *settings, more=()):
    assert command(parser(), arguments(place, run, *settings, more=more)) == 0
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def run(place):
    """A trained run that accumulates the gradients of two batches."""
    trained(place, place / "run", "epochs=3", more=("--accumulate-grad-batches", "2"))
    return place / "run"


def tiny(captions=tuple(TONES), alpha=0.2, seed=0, **changes):
    torch.manual_seed(seed)
    known = vocabulary.from_captions(captions)
    config = clip_aac.Config(**{**TINY, "alpha": alpha, "dropout": 0.0} | changes)
    return clip_aac.ClipAac(config, known, clip_tokenizer.train(captions) if alpha else None)


# Configs -------------------------------------------------------------------------------------------------------------


def test_the_ten_systems_are_configs():
    configs = {name: contract.configure(clip_aac.Config, path) for name, path in CONFIGS.items()}
    assert configs["system-4"] == configs["system-8"] == clip_aac.Config()
    different = {
        name: {key: value for key, value in config if value != getattr(configs["system-8"], key)}
        for name, config in configs.items()
        if name != "narrow"
    }
    assert different == {
        "system-1": {"init": "random", "alpha": 0},
        "system-2": {"init": "audio", "alpha": 0},
        "system-3": {"train_heads": False},
        "system-4": {},
        "system-5": {"alpha": 0},
        "system-6": {"alpha": 0.1},
        "system-7": {"batch": 4},
        "system-8": {},
        "system-9": {"batch": 16},
        "system-10": {"alpha": 0.3},
    }
    assert configs["system-8"].word_loss == "sum", "as in equation 6"
    # The file that users copy contains all keys.
    assert yaml.safe_load(CONFIGS["system-8"].read_text()).keys() == clip_aac.Config.model_fields.keys()


def test_published_configs_follow_the_paper_but_for_narrow():
    for name, path in CONFIGS.items():
        config = contract.configure(clip_aac.Config, path)
        expected = ("pre", "mean") if name == "narrow" else ("post", "sum")
        assert (config.decoder_norm, config.word_loss) == expected, name


def test_the_paper_s_figures_are_shown(capsys):
    assert command(parser(), ["published", "systems.clip_aac"]) == 0
    shown = capsys.readouterr().out
    (best,) = [line for line in shown.splitlines() if line.startswith("system-9 ")]
    assert best.split()[3:-1] == ["0.572", "0.379", "0.257", "0.169", "0.379", "0.171", "0.407", "0.118", "0.263"]
    assert "spider" in shown.splitlines()[0]


def test_parameters_are_as_listed():
    with torch.device("meta"):
        whole = heads.AudioClip()
    text = sum(p.numel() for name, p in whole.named_parameters() if not name.startswith("audio."))
    with torch.device("meta"):
        own = [clip_aac.ClipAac(clip_aac.Config(), vocabulary.Vocabulary(list("abcdef"[:n]))) for n in (1, 2)]
    counts = [sum(p.numel() for p in model.parameters()) for model in own]
    each, base = counts[1] - counts[0], counts[0] - 5 * (counts[1] - counts[0])
    assert f"{base + text:,} + {each:,} per word; {base:,} without the text head" == clip_aac.PARAMETERS


# The front end and the heads -----------------------------------------------------------------------------------------


def plain_spectrogram(sound, kernels=None):
    """Frame by frame, in float64, by scipy's window.

    Args:
        sound: (samples,) in [-1, 1].
        kernels: (1025, 2048) complex, what a frame is multiplied with (default: numpy's Fourier transform).

    Returns:
        Decibels (3, 341, frames), and which of them are far above the rounding errors of their frame, of that shape.
    """
    window = scipy.signal.get_window("blackmanharris", 1654)
    sound = (sound.astype(np.float64) * 32768 + 32768) * 2 / 65535 - 1
    count = 1 if len(sound) <= 1654 else 1 + math.ceil((len(sound) - 1654) / 561)
    missing = (count - 1) * 561 + 1654 - len(sound)
    sound = np.concatenate([np.zeros(missing // 2), sound, np.zeros(missing - missing // 2)])
    decibels = np.empty((3, 341, count))
    exact = np.empty((3, 341, count), bool)
    for frame in range(count):
        windowed = np.pad(sound[frame * 561 : frame * 561 + 1654] * window, (197, 197))
        spectrum = np.fft.rfft(windowed) / 2048**0.5 if kernels is None else kernels @ windowed
        power = np.abs(spectrum) ** 2
        far_above = power > 1e-18 * power.sum()
        power[power == 0] = 1e-18
        for band in range(3):
            bins = slice(band * 341, (band + 1) * 341)
            decibels[band, :, frame] = 10 * np.log10(power[bins])
            exact[band, :, frame] = far_above[bins]
    return decibels, exact


@pytest.mark.parametrize("samples", [1, 1653, 1654, 1655, 2215, 2216, 20000])
def test_the_front_end_is_a_plain_stft(samples):
    rng = np.random.default_rng(samples)
    for sound in (
        tone(997.0, samples / 44100 + 1e-9),
        rng.uniform(-1, 1, samples).astype(np.float32),
        np.zeros(samples),
    ):
        sound = sound[:samples].astype(np.float32)
        found = heads.spectrogram(torch.from_numpy(sound)[None])
        assert found.shape == (1, 3, 341, heads.frames(samples))
        expected, exact = plain_spectrogram(sound)
        assert exact.mean() > 0.95
        np.testing.assert_allclose(found[0].numpy()[exact], expected[exact], rtol=1e-7, atol=1e-5)


def test_only_a_power_of_exactly_0_is_180_db_below_1():
    silence = heads.spectrogram(torch.zeros(1, 5000))
    assert silence.min() < -240, "16-bit silence is 1/65535"
    zero = torch.full((1, 5000), -1 / 65536)  # the value that AudioCLIP's scale maps to 0
    assert heads.spectrogram(zero).eq(-180).all()
    assert heads.spectrogram(zero, heads.LearntTransform()).eq(-180).all()
    assert heads.spectrogram(torch.full((1, 5000), math.nan)).isnan().all(), "a fault is not hidden"


def plain_wavelets(m, fb, fc):
    """Frequency B-spline wavelets as kernels (1025, 2048), with numpy's power of complex numbers."""
    t = np.pi * np.linspace(-1, 1, 2048) + 1e-8
    kernels = np.empty((1025, 2048), complex)
    for k in range(1025):
        x = fb[k] * t / (m[k] + 1e-8)
        window = (np.sin(x) / x).astype(complex) ** m[k]
        kernels[k] = fb[k] ** 0.5 * window * np.exp(-1j * fc[k] * t) / 2048**0.5
    return kernels


def transform_of(m, fb, fc):
    transform = heads.LearntTransform()
    values = {"m": m, "fb": fb, "fc": fc}
    transform.load_state_dict({name: torch.from_numpy(value) for name, value in values.items()})
    return transform.requires_grad_(False)


@pytest.mark.parametrize("samples", [1, 1655, 20000])
def test_the_learnt_transform_multiplies_frames_with_wavelets(samples):
    rng = np.random.default_rng(samples)
    m = rng.uniform(-0.5, 3, 1025).astype(np.float32)
    m[::50] = 0
    m[1::50] = 2
    fb = rng.uniform(0.3, 3, 1025).astype(np.float32)
    fc = (np.arange(1025) + rng.uniform(-5, 5, 1025)).astype(np.float32)
    transform = transform_of(m, fb, fc)
    kernels = plain_wavelets(*(values.astype(np.float64) for values in (m, fb, fc)))
    for sound in (tone(997.0, 0.5), rng.uniform(-1, 1, samples), np.zeros(samples)):
        sound = sound[:samples].astype(np.float32)
        found = heads.spectrogram(torch.from_numpy(sound)[None], transform)
        assert found.shape == (1, 3, 341, heads.frames(samples))
        expected, exact = plain_spectrogram(sound, kernels)
        assert exact.mean() > 0.9
        np.testing.assert_allclose(found[0].numpy()[exact], expected[exact], rtol=0, atol=1e-3)


def test_the_learnt_transform_begins_near_the_fourier_transform():
    """AudioCLIP divides the circle in 2047 steps: a bin of white noise differs by .51 dB, as the docstring says."""
    k = np.arange(1025, dtype=np.float32)
    initial = transform_of(np.zeros_like(k), np.ones_like(k), k)
    assert same(heads.LearntTransform().state_dict(), initial.state_dict())
    noise = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (1, 88200)).astype(np.float32))
    difference = (heads.spectrogram(noise) - heads.spectrogram(noise, initial)).abs()
    assert difference.median().item() == pytest.approx(0.51, abs=0.02)
    assert difference[:, 0, :100].median() < 0.1, "the lowest bins lie where the Fourier transform has them"
    assert difference.max() > 30


def test_the_learnt_transform_learns_from_its_beginning():
    transform = heads.LearntTransform()
    sound = torch.from_numpy(tone(440.0, 0.1))[None]
    heads.spectrogram(sound, transform).square().mean().backward()
    for name, values in transform.named_parameters():
        assert values.grad.isfinite().all(), name
        assert values.grad[1:1023].ne(0).all(), name


def plain_head(state, images):
    """Compute the audio head from a state dict, with each layer as a function."""

    def norm(x, name):
        parts = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *parts)

    def conv(x, name, **how):
        return F.conv2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"), **how)

    def attention(x, name, shape, padding):
        x = F.adaptive_max_pool2d(x, shape)
        x = conv(x, f"{name}.conv_depth", padding=padding, groups=x.shape[1])
        return norm(conv(x, f"{name}.conv_point"), f"{name}.bn").sigmoid()

    x = F.max_pool2d(norm(conv(images, "conv1", stride=2, padding=3), "bn1").relu(), 3, 2, 1)
    for stage, blocks in enumerate((3, 4, 6, 3), 1):
        entering = x
        for block in range(blocks):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = norm(conv(x, f"{name}.conv1"), f"{name}.bn1").relu()
            y = norm(conv(y, f"{name}.conv2", stride=stride, padding=1, groups=32), f"{name}.bn2").relu()
            y = norm(conv(y, f"{name}.conv3"), f"{name}.bn3")
            if block == 0:
                x = norm(conv(x, f"{name}.downsample.0", stride=stride), f"{name}.downsample.1")
            x = (x + y).relu()
        x = x * attention(entering, f"att{stage}", x.shape[2:], (1, 0) if stage % 2 else (0, 2))
    pooled = F.adaptive_avg_pool2d(x, 1) * attention(x, "att5", (1, 1), (1, 2))
    return F.linear(pooled.flatten(1), state["fc.weight"], state["fc.bias"])


def test_the_audio_head_is_what_its_names_say():
    torch.manual_seed(0)
    head = heads.AudioHead(20, channels=16).eval()
    for name, value in head.state_dict().items():
        if name.endswith(("running_mean", "bn.bias", "bn1.bias")):
            value.normal_(0, 0.1)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 2)
    for frames in (1, 2, 33):
        images = torch.randn(2, 3, 341, frames)
        with torch.inference_mode():
            torch.testing.assert_close(head(images), plain_head(head.state_dict(), images), rtol=1e-4, atol=1e-5)


def test_the_text_head_is_clip_s():
    """The text head equals transformers' CLIP with the same weights, whatever the padding is."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    torch.manual_seed(0)
    ours = heads.AudioClip(50, size=12, blocks=(1, 1, 1, 1), channels=16, width=128, layers=2)
    shape = CLIPTextConfig(
        vocab_size=50,
        hidden_size=128,
        intermediate_size=512,
        projection_dim=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        hidden_act="quick_gelu",
        eos_token_id=49,
        bos_token_id=48,
        pad_token_id=49,
    )
    theirs = CLIPTextModelWithProjection(shape).eval()
    state = {}
    for name, value in ours.state_dict().items():
        if name.startswith(("audio.", "logit_scale")):
            continue
        if name == "text_projection":
            state["text_projection.weight"] = value.T
            continue
        name = name.replace("token_embedding.weight", "embeddings.token_embedding.weight")
        name = name.replace("positional_embedding", "embeddings.position_embedding.weight")
        name = name.replace("ln_final", "final_layer_norm").replace("transformer.resblocks", "encoder.layers")
        name = name.replace("ln_", "layer_norm").replace("mlp.c_fc", "mlp.fc1").replace("mlp.c_proj", "mlp.fc2")
        name = name.replace("attn.", "self_attn.")
        if "in_proj" in name:
            for part, third in zip("qkv", value.chunk(3), strict=True):
                state["text_model." + name.replace("in_proj_", f"{part}_proj.")] = third
        else:
            state["text_model." + name] = value
    theirs.load_state_dict(state)
    ids = torch.tensor([[48, 3, 7, 9, 2, 49], [48, 4, 49, 49, 49, 49], [48, 49, 49, 49, 49, 49]])
    lengths = torch.tensor([6, 3, 2])
    with torch.inference_mode():
        expected = theirs(input_ids=ids).text_embeds
        torch.testing.assert_close(ours.embed_text(ids, lengths), expected, rtol=1e-4, atol=1e-5)
        ids[1, 3:] = 0
        torch.testing.assert_close(ours.embed_text(ids, lengths), expected, rtol=1e-4, atol=1e-5)


def test_what_is_computed_again_counts_once():
    torch.manual_seed(0)
    heard = []
    for recompute in (False, True):
        torch.manual_seed(0)
        head = heads.AudioHead(4, (2, 1, 1, 1), 16)
        head.recompute = recompute
        head(torch.randn(2, 3, 341, 9)).square().sum().backward()
        heard.append((dict(head.named_buffers()), {name: p.grad for name, p in head.named_parameters()}))
    for plain, again in zip(*heard, strict=True):
        assert plain.keys() == again.keys()
        for name, value in plain.items():
            torch.testing.assert_close(again[name], value, rtol=1e-5, atol=1e-6)


# AudioCLIP's files ---------------------------------------------------------------------------------------------------


# The names and shapes of the tensors in the authors' modules, from their definitions: AndreyGuzhov/AudioCLIP,
# `model/audioclip.py`, `model/esresnet/base.py`, `attention.py`, `fbsp.py`, and `model/clip/model.py`.


def conv(outputs, inputs, *kernel, bias=True):
    return {"weight": (outputs, inputs, *kernel)} | ({"bias": (outputs,)} if bias else {})


def linear(outputs, inputs):
    return {"weight": (outputs, inputs), "bias": (outputs,)}


def layer_norm(size):
    return {"weight": (size,), "bias": (size,)}


def batch_norm(size):
    return layer_norm(size) | {"running_mean": (size,), "running_var": (size,), "num_batches_tracked": ()}


def linear_fbsp(size):
    """LinearFBSP(bias=False): its bias is `Parameter(None)`, which torch saves as an empty tensor."""
    return {"m": (size,), "fb": (size,), "fc": (size,), "bias": tuple(torch.nn.Parameter(None).shape)}


def attention_2d(inputs, outputs, *kernel):
    return {
        "conv_depth": conv(inputs, 1, *kernel),
        "conv_point": conv(outputs, inputs, 1, 1),
        "bn": batch_norm(outputs),
    }


def bottleneck(inputs, width, outputs, groups, changes):
    """A bottleneck of ResNet; if it `changes` the shape, the shortcut has a convolution."""
    found = {
        "conv1": conv(width, inputs, 1, 1, bias=False),
        "bn1": batch_norm(width),
        "conv2": conv(width, width // groups, 3, 3, bias=False),
        "bn2": batch_norm(width),
        "conv3": conv(outputs, width, 1, 1, bias=False),
        "bn3": batch_norm(outputs),
    }
    if changes:
        found["downsample"] = {"0": conv(outputs, inputs, 1, 1, bias=False), "1": batch_norm(outputs)}
    return found


def stages(blocks, base, groups):
    """The four stages of a ResNet-50, whose bottlenecks have 4 x 64, 128, 256 and 512 outputs."""
    found, inputs = {}, 64
    for stage, count in enumerate(blocks):
        outputs = 256 * 2**stage
        layer = {}
        for number in range(count):
            layer[str(number)] = bottleneck(inputs, base * 2**stage, outputs, groups, changes=number == 0)
            inputs = outputs
        found[f"layer{stage + 1}"] = layer
    return found


def esresnext(classes):
    """ESResNeXtFBSP with AudioCLIP's arguments."""
    return {
        "conv1": conv(64, 3, 7, 7, bias=False),
        "bn1": batch_norm(64),
        **stages((3, 4, 6, 3), base=128, groups=32),
        "att1": attention_2d(64, 256, 3, 1),
        "att2": attention_2d(256, 512, 1, 5),
        "att3": attention_2d(512, 1024, 3, 1),
        "att4": attention_2d(1024, 2048, 1, 5),
        "att5": attention_2d(2048, 2048, 3, 5),
        "fc": linear(classes, 2048),
        "fbsp": linear_fbsp(2048 // 2 + 1),
        "window": (1654,),
    }


def modified_resnet():
    """CLIP's image head."""
    return {
        "conv1": conv(32, 3, 3, 3, bias=False),
        "bn1": batch_norm(32),
        "conv2": conv(32, 32, 3, 3, bias=False),
        "bn2": batch_norm(32),
        "conv3": conv(64, 32, 3, 3, bias=False),
        "bn3": batch_norm(64),
        **stages((3, 4, 6, 3), base=64, groups=1),
        "attnpool": {
            "positional_embedding": (224 // 32 * (224 // 32) + 1, 2048),
            **{f"{name}_proj": linear(2048, 2048) for name in "qkv"},
            "c_proj": linear(1024, 2048),
        },
    }


def residual_attention_block(width):
    return {
        "attn": {
            "in_proj_weight": (3 * width, width),
            "in_proj_bias": (3 * width,),
            "out_proj": linear(width, width),
        },
        "ln_1": layer_norm(width),
        "mlp": {"c_fc": linear(4 * width, width), "c_proj": linear(width, 4 * width)},
        "ln_2": layer_norm(width),
    }


def audio_clip():
    """AudioCLIP with its default arguments."""
    return {
        "visual": modified_resnet(),
        "transformer": {"resblocks": {str(layer): residual_attention_block(512) for layer in range(12)}},
        "token_embedding": {"weight": (49408, 512)},
        "positional_embedding": (77, 512),
        "ln_final": layer_norm(512),
        "text_projection": (512, 1024),
        "audio": esresnext(1024),
        "logit_scale": (),
        "logit_scale_ai": (),
        "logit_scale_at": (),
    }


def state_shapes(module):
    """The names and shapes of a module's state dict, without the modules' nesting."""
    found = {}
    for name, part in module.items():
        if isinstance(part, dict):
            found |= {f"{name}.{inner}": shape for inner, shape in state_shapes(part).items()}
        else:
            found[name] = part
    return found


BOTH = state_shapes(audio_clip())
AUDIO = state_shapes(esresnext(527))


@pytest.mark.parametrize(("shapes", "part"), [(BOTH, audioclip.BOTH), (AUDIO, audioclip.AUDIO)], ids=["both", "audio"])
def test_the_description_has_the_size_of_the_published_file(shapes, part):
    """A file has 4 bytes for each float, 8 for each count, and for each tensor a header and a name, twice."""
    size = sum((8 if name.endswith("tracked") else 4) * math.prod(shape) for name, shape in shapes.items())
    assert 0 < (part.bytes - size) / len(shapes) < 400


def save(shapes, file, wrap=lambda state: state):
    """Write tensors of these shapes. Each holds a single value of its own, so that it needs no space."""
    values = {name: (number % 97 + 1) / 100 for number, name in enumerate(shapes)}
    torch.save(wrap({name: torch.tensor(values[name]).expand(shape) for name, shape in shapes.items()}), file)
    return values


def holds(model, values, prefix=""):
    return {
        name
        for name, value in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
        and torch.equal(value, torch.full_like(value, values[prefix + name]))
    }


def without(shapes, *names):
    return {name: shape for name, shape in shapes.items() if name not in names}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: without(state, "audio.fbsp.bias"),
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": {f"module.{name}": value for name, value in state.items()}, "seed": torch.tensor(0)},
    ],
    ids=["as published", "without the empty bias", "of DataParallel", "in a checkpoint", "of DataParallel in one"],
)
def test_audioclip_loads_into_both_heads_completely(tmp_path, wrap):
    values = save(BOTH, tmp_path / "AudioCLIP-Full-Training.pt", wrap)
    model = audioclip.both(str(tmp_path))
    left_out = {name for name in BOTH if name.startswith(("visual.", "audio.fbsp."))}
    left_out |= {name for name in BOTH if name.endswith("num_batches_tracked")}
    left_out |= {"audio.window", "logit_scale", "logit_scale_ai"}
    assert holds(model, values) == BOTH.keys() - left_out
    assert float(model.temperature) == pytest.approx(1 / math.exp(max(0, values["logit_scale_at"])))


LEARNT = ("fbsp.m", "fbsp.fb", "fbsp.fc")


def test_the_learnt_transform_is_loaded_from_both_files(tmp_path):
    of_both = save(BOTH, tmp_path / "AudioCLIP-Full-Training.pt")
    of_audio = save(AUDIO, tmp_path / "ESRNXFBSP.pt")
    found = holds(audioclip.both(str(tmp_path), "fbsp"), of_both)
    assert {f"audio.{name}" for name in LEARNT} <= found
    found = holds(audioclip.audio(str(tmp_path), front_end="fbsp"), of_audio)
    assert set(LEARNT) <= found


def test_the_learnt_transform_is_required_if_used(tmp_path):
    save(without(BOTH, "audio.fbsp.m", "audio.fbsp.fc"), tmp_path / "AudioCLIP-Full-Training.pt")
    save({**AUDIO, "fbsp.fb": (3,)}, tmp_path / "wrong.pt")
    save(without(AUDIO, *LEARNT), tmp_path / "ESRNXFBSP.pt")
    audioclip.both(str(tmp_path))
    audioclip.audio(str(tmp_path))
    with pytest.raises(Faulty) as refusal:
        audioclip.both(str(tmp_path), "fbsp")
    first, second = str(refusal.value).splitlines()
    assert "audio.fbsp.fc: error: missing; the file must contain it with shape (1025,)" in first
    assert "audio.fbsp.m: error: missing; the file must contain it with shape (1025,)" in second
    with pytest.raises(Faulty, match=r"fbsp\.fb: error: must have shape \(1025,\), found \(3,\)"):
        audioclip.audio(str(tmp_path / "wrong.pt"), front_end="fbsp")


@pytest.mark.parametrize("shapes", [AUDIO, without(AUDIO, "fbsp.bias")], ids=["as published", "without the empty bias"])
def test_the_audio_head_s_own_file_loads_but_for_its_classifier(tmp_path, shapes):
    values = save(shapes, tmp_path / "ESRNXFBSP.pt")
    head = audioclip.audio(str(tmp_path / "ESRNXFBSP.pt"), size=1024)
    found = holds(head, values)
    assert {name for name in head.state_dict() if not name.endswith("tracked")} - found == {"fc.weight", "fc.bias"}
    assert head.fc.weight.shape == (1024, 2048)


def test_foreign_weights_are_refused_with_every_difference(tmp_path):
    shapes = without(BOTH, "audio.att3.bn.weight")
    shapes["text_projection"] = (512, 512)
    shapes["audio.extra"] = (3,)
    shapes["audio.fbsp.fc"] = (3,)
    save(shapes, tmp_path / "other.pt")
    with pytest.raises(Faulty) as refusal:
        audioclip.both(str(tmp_path / "other.pt"))
    said = str(refusal.value)
    assert "audio.att3.bn.weight: error: missing; the file must contain it with shape (1024,)" in said
    assert "audio.extra: error: unexpected, with shape (3,)" in said
    assert "text_projection: error: must have shape (512, 1024), found (512, 512)" in said
    assert "audio.fbsp.fc: error: must have shape (1025,), found (3,)" in said
    assert len(said.splitlines()) == 4
    save(AUDIO, tmp_path / "audio.pt")
    with pytest.raises(Faulty, match=r"audio\.conv1\.weight: error: missing"):
        audioclip.both(str(tmp_path / "audio.pt"))


def test_the_systems_begin_with_audioclip_s_weights(tmp_path):
    values = save(BOTH, tmp_path / "AudioCLIP-Full-Training.pt")
    known, pieces = vocabulary.from_captions(TONES), clip_tokenizer.train(TONES)
    config = clip_aac.Config(weights=str(tmp_path), alpha=0, train_heads=False)
    model = clip_aac.beginning(config, known, None)
    assert holds(model.heads, values) == {n for n in model.heads.state_dict() if not n.endswith("tracked")}
    assert not any(p.requires_grad for p in model.heads.parameters())
    assert model.decoder.training
    assert not model.heads.audio.bn1.training
    with pytest.raises(BadRequest, match="must have CLIP's 49408 tokens; found 5"):
        clip_aac.beginning(clip_aac.Config(weights=str(tmp_path)), known, pieces)


@pytest.mark.parametrize("init", ["random", "audio", "audio-text"])
def test_the_systems_begin_with_the_learnt_transform(tmp_path, init):
    values = {"random": None, "audio": save(AUDIO, tmp_path / "ESRNXFBSP.pt")}
    of_both = save(BOTH, tmp_path / "AudioCLIP-Full-Training.pt")
    values["audio-text"] = {name.removeprefix("audio."): value for name, value in of_both.items()}
    config = clip_aac.Config(init=init, weights=str(tmp_path), alpha=0, front_end="fbsp")
    model = clip_aac.beginning(config, vocabulary.from_captions(TONES), None)
    expected = heads.LearntTransform().state_dict()
    if init != "random":
        expected = {name: torch.full((1025,), values[init][f"fbsp.{name}"]) for name in ("m", "fb", "fc")}
    assert same(model.heads.audio.fbsp.state_dict(), expected)
    assert all(p.requires_grad for p in model.heads.audio.fbsp.parameters()), "it learns with the audio head"


# Byte pairs ----------------------------------------------------------------------------------------------------------


def test_byte_pairs_are_joined_by_how_often_they_stand_together():
    captions = ["low " * 5 + "lower lower " + "newest " * 6 + "widest " * 3]  # Sennrich et al. 2016
    tokenizer = clip_tokenizer.train(captions, merges=6)
    vocabulary_ = tokenizer.get_vocab()
    assert [piece for piece, number in sorted(vocabulary_.items(), key=lambda item: item[1])][512:] == [
        *("es", "est</w>", "lo", "ew", "ewest</w>", "newest</w>"),
        *clip_tokenizer.SPECIAL,
    ]
    assert tokenizer.encode("Lowest  NEWEST").tokens[1:-1] == ["lo", "w", "est</w>", "newest</w>"]
    for text in ("été 鳥 🐦", "", "it's 2"):  # every byte is a token
        assert (
            tokenizer.decode(tokenizer.encode(text).ids).replace("</w>", " ").split() == text.replace("'", " '").split()
        )
    assert clip_tokenizer.train(captions).to_str() == clip_tokenizer.train(list(captions)).to_str()
    ids, lengths = clip_tokenizer.encode(tokenizer, ["low " * 200, "low"])
    assert ids.shape == (2, 77)
    assert lengths.tolist() == [77, 4]  # lo, w
    assert ids[0, -1] == vocabulary_["<|endoftext|>"]


def test_gpt_2_s_vocabulary_makes_a_tokeniser_of_clip_s_kind(shared, tmp_path):
    """A folder as on the hub is loaded, made from a published vocabulary."""
    from transformers import CLIPTokenizer

    merges = (shared / "words" / "gpt2_vocab.bpe").read_text(encoding="utf-8").splitlines()[1:2001]
    pairs = [tuple(line.split()) for line in merges if "Ġ" not in line]
    base = clip_tokenizer.train(["a"], merges=0).get_vocab()
    pieces = [*sorted(base, key=base.get)[:-2], *map("".join, pairs), *clip_tokenizer.SPECIAL]
    CLIPTokenizer({piece: n for n, piece in enumerate(dict.fromkeys(pieces))}, pairs).save_pretrained(tmp_path / "clip")
    tokenizer = clip_tokenizer.load(str(tmp_path / "clip"))
    assert tokenizer.encode("The rain").tokens[0] == "<|startoftext|>"
    assert "".join(tokenizer.encode("The rain").tokens[1:-1]) == "the</w>rain</w>"
    assert clip_tokenizer.encode(tokenizer, ["rain", "a dog and a cat"])[1].tolist() == [
        len(tokenizer.encode(text, add_special_tokens=True).tokens) for text in ("rain", "a dog and a cat")
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not on this machine: there is no such folder and no such model in the hub's cache"),
        ({}, "must contain CLIP's tokeniser (tokenizer.json or vocab.json), but has neither file"),
        ({"tokenizer.json": "{"}, "cannot be loaded as CLIP's tokeniser"),
    ],
)
def test_a_folder_without_a_tokeniser_is_refused(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("some/where").mkdir(parents=True)
        for name, text in content.items():
            Path("some/where", name).write_text(text)
    with pytest.raises(BadRequest, match=re.escape(message)):
        clip_tokenizer.load("some/where")


def test_clips_tokeniser_is_found_without_its_model(tmp_path, monkeypatch):
    """If it is not there, the message names the files that are needed and no Python package."""
    held = {}

    def absent(name):
        raise BadRequest(f"{name} is not on this machine")

    monkeypatch.setattr(clip_tokenizer.texts, "find_model_folder", absent)
    monkeypatch.setattr(clip_tokenizer, "try_to_load_from_cache", lambda name, file: held.get(file))
    with pytest.raises(BadRequest) as refusal:
        clip_tokenizer.load("openai/clip-vit-base-patch32")
    assert str(refusal.value) == (
        "tokenizer: openai/clip-vit-base-patch32 is not on this machine; only its tokeniser is needed (4 MB), not the "
        "model's weights: fetch it with: dcase-systems download openai/clip-vit-base-patch32, or give its folder"
    )
    with pytest.raises(BadRequest, match=r"^other/clip is not on this machine$"):
        clip_tokenizer.load("other/clip")
    (tmp_path / "tokenizer.json").write_text("{")
    held["tokenizer.json"] = str(tmp_path / "tokenizer.json")
    with pytest.raises(BadRequest, match=re.escape(f"{tmp_path}: cannot be loaded as CLIP's tokeniser")):
        clip_tokenizer.load("openai/clip-vit-base-patch32")


@pytest.mark.parametrize(("name", "suggested"), [("openai/none", False), ("my_encoders/none", True)])
def test_a_package_is_suggested_where_it_may_be_one(name, suggested):
    with pytest.raises(BadRequest, match="is not on this machine") as refusal:
        clip_tokenizer.texts.find_model_folder(name)
    assert ("the Python package my_encoders is not installed" in str(refusal.value)) == suggested


# Losses and learning -------------------------------------------------------------------------------------------------


def batch_of(model, sounds, captions):
    known = model.vocabulary
    ids = [torch.tensor([vocabulary.START, *known.encode(caption), vocabulary.END]) for caption in captions]
    lengths = torch.tensor([len(sound) for sound in sounds])
    stacked = torch.from_numpy(np.stack([np.resize(sound, int(lengths.max())) for sound in sounds]))
    numbers = torch.arange(len(sounds))
    ids = torch.nn.utils.rnn.pad_sequence(ids, True, vocabulary.PADDING)
    return clip_aac.Batch(stacked, lengths, ids, list(captions), numbers, numbers[:, None])


def plain_attention(attention, queries, memory, causal):
    """Multi-head attention of (L, size) queries, head by head (Vaswani et al. 2017, equation 1)."""
    size = attention.head_size
    keys, values = attention.key_value(memory).chunk(2, dim=-1)
    queries = attention.query(queries)
    heads_ = []
    for head in range(attention.heads):
        part = slice(head * size, (head + 1) * size)
        scores = queries[:, part] @ keys[:, part].T / size**0.5
        if causal:
            later = torch.ones_like(scores, dtype=torch.bool).triu(1)
            scores = scores.masked_fill(later, -math.inf)
        heads_.append(scores.softmax(1) @ values[:, part])
    return attention.leave(torch.cat(heads_, dim=1))


def test_the_decoder_is_the_original_transformer():
    """Norms after each sublayer, ReLU, no norm at the end, positions added to the word vectors themselves."""
    model = tiny().eval()
    decoder = model.decoder
    ids = torch.tensor([1, 5, 4, 6])
    heard = torch.randn(1, 24)
    with torch.inference_mode():
        x = model.embedding(ids)
        for position in range(4):
            for column in range(32):
                angle = position / 10_000 ** (column // 2 * 2 / 32)
                x[position, column] += math.cos(angle) if column % 2 else math.sin(angle)
        sound = decoder.enter_sound(heard)
        for block in decoder.blocks:
            x = block.norms[0](x + plain_attention(block.words, x, x, causal=True))
            x = block.norms[1](x + plain_attention(block.sound, x, sound, causal=False))
            first, *_, last = block.linear
            x = block.norms[2](x + last(first(x).clamp(min=0)))
        expected = decoder.leave(x)
        found = decoder(model.embedding(ids)[None], heard[None], torch.tensor([1]))[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_an_older_checkpoint_has_the_values_of_its_time(tmp_path):
    model = tiny(decoder_norm="pre")
    config = model.config.model_dump(mode="json")
    del config["decoder_norm"], config["word_loss"], config["front_end"]
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    pieces = model.tokenizer.to_str()
    content = {"state_dict": state, "config": config, "vocabulary": list(model.vocabulary.words), "tokenizer": pieces}
    torch.save(content, tmp_path / "old.ckpt")
    loaded = clip_aac.load_model(tmp_path / "old.ckpt").config
    assert (loaded.decoder_norm, loaded.word_loss, loaded.front_end) == ("pre", "mean", "stft")


def test_with_alpha_1_only_heads_learn_and_captions_are_refused():
    model = tiny(alpha=1, monitor="mAP@10")
    sounds = [tone(hertz) for hertz in TONES.values()]
    batch = batch_of(model, sounds, TONES)
    loss = clip_aac.Training(model, None).loss(model.heads.embed_audio(batch.sounds), batch)
    assert loss.total.item() == pytest.approx(loss.contrastive.item())
    loss.total.backward()
    assert all(not p.grad.any() for p in model.decoder.parameters())
    assert model.heads.audio.fc.weight.grad.any()
    model.eval()
    with torch.inference_mode(), pytest.raises(BadRequest, match="alpha must be below 1 for captions"):
        model.caption(batch.sounds, batch.lengths)
    assert model.embed_audio(batch.sounds, batch.lengths).shape == (4, 24)


@pytest.mark.parametrize(("share", "word_loss"), [(0.5, "sum"), (0.0, "sum"), (0.3, "mean"), (1.0, "mean")])
def test_the_loss_is_that_of_the_paper(share, word_loss):
    """Algorithm 1 and equations 5 to 7, pair by pair, with some values of lambda; and the mean over words."""
    model = tiny(audio_to_text=share, word_loss=word_loss)
    batch = batch_of(model, [tone(hertz) for hertz in TONES.values()], TONES)
    heard = torch.randn(4, 24)
    training = clip_aac.Training(model, None).eval()
    found = training.loss(heard, batch)
    found.contrastive.backward()
    assert model.heads.logit_scale_at.grad.abs() > 1e-4, "the temperature learns"
    with torch.no_grad():
        read, t = model.text_vectors(batch.captions).double(), float(model.heads.temperature)
        similar = [[float(a @ b / a.norm() / b.norm()) for b in read] for a in heard.double()]
        contrastive = 0.0
        for i in range(4):
            to_text = -math.log(math.exp(similar[i][i] / t) / sum(math.exp(similar[i][k] / t) for k in range(4)))
            to_sound = -math.log(math.exp(similar[i][i] / t) / sum(math.exp(similar[k][i] / t) for k in range(4)))
            contrastive += (share * to_text + (1 - share) * to_sound) / 4
        assert float(found.contrastive) == pytest.approx(contrastive, rel=1e-5)
        every = []
        for row, sound in zip(batch.ids.tolist(), heard, strict=True):
            for place in range(1, len(row)):
                if row[place] != vocabulary.PADDING:
                    said = model.embedding(torch.tensor(row[:place]))[None]
                    logits = model.decoder(said, sound[None, None], torch.tensor([1]))[0, -1]
                    every.append(-float(logits.log_softmax(0)[row[place]]))
        words = sum(every) / 4 if word_loss == "sum" else np.mean(every)
        assert float(found.words) == pytest.approx(words, rel=1e-5)
    assert float(found.total.detach()) == pytest.approx(0.2 * contrastive + 0.8 * words, rel=1e-5)


def test_a_caption_that_clips_share_is_no_impostor():
    model = tiny()
    training = clip_aac.Training(model, None).eval()
    batch = batch_of(model, [tone(100), tone(200), tone(300)], ["a low hum", "a low hum", "a dog barks twice"])
    shared = batch._replace(owners=torch.tensor([[0, 1], [0, 1], [2, losses.NONE]]))
    heard = torch.randn(3, 24)
    assert training.loss(heard, shared).contrastive.item() < training.loss(heard, batch).contrastive.item()


def test_four_clips_are_learnt_by_heart():
    model = tiny(max_words=8)
    sounds = [tone(hertz) for hertz in TONES.values()]
    training = clip_aac.Training(model, None)
    training.log = lambda *_, **__: None
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    batch = batch_of(model, sounds, TONES)
    before = training.loss(model.heads.embed_audio(batch.sounds), batch).total.item()
    for _ in range(60):
        optimizer.zero_grad()
        loss = training.training_step(batch, 0)
        loss.backward()
        optimizer.step()
    assert loss.item() < before / 3
    model.eval()
    with torch.inference_mode():
        said, likely = model.caption_scored(batch.sounds, batch.lengths)
        assert said == list(TONES)
        assert (likely > math.log(0.1)).all()
        alternatives = model.caption_alternatives(batch.sounds, batch.lengths, 3)
        assert [captions[0][0] for captions in alternatives] == said
        assert all(captions[0][1] > captions[1][1] for captions in alternatives)
        scores = model.embed_text(list(TONES)) @ model.embed_audio(batch.sounds, batch.lengths).T
    assert scores.argmax(1).tolist() == [0, 1, 2, 3]


def test_embeddings_do_not_depend_on_the_batch():
    model = tiny().eval()
    lengths = torch.tensor([900, 8000, 3000, 8000, 1])
    audio = torch.zeros(5, 8000)
    for row, length in enumerate(lengths):
        audio[row, :length] = torch.rand(int(length)) - 0.5
    texts = ["a dog", "birds sing and sing again", "", "a " * 200]
    with torch.inference_mode():
        together = model.embed_audio(audio, lengths)
        alone = [model.embed_audio(audio[row : row + 1, :n], lengths[row : row + 1]) for row, n in enumerate(lengths)]
        torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together.norm(dim=1), torch.ones(5))
        said = [model.embed_text([text]) for text in texts]
        torch.testing.assert_close(model.embed_text(texts), torch.cat(said), rtol=1e-4, atol=1e-5)


def test_training_hears_a_second_and_draws_a_caption(place, tmp_path, monkeypatch):
    seen = []
    loss = clip_aac.Training.loss

    def watched(self, heard, batch, smoothing=0):
        if self.training:
            seen.append(batch)
        return loss(self, heard, batch, smoothing)

    lengths = []
    hear = heads.AudioClip.embed_audio
    monkeypatch.setattr(clip_aac.Training, "loss", watched)
    monkeypatch.setattr(
        heads.AudioClip, "embed_audio", lambda self, audio: lengths.append(audio.shape[1]) or hear(self, audio)
    )
    trained(place, tmp_path / "run", "epochs=2", "pairs=drawn", "seconds=0.1")
    assert [len(batch.clips) for batch in seen] == [8, 8, 8, 8], "16 clips, each once an epoch"
    assert set(lengths) == {4410, 13230}, "and all of it to validate"
    first, second = (
        {clip: said for batch in half for clip, said in zip(batch.clips.tolist(), batch.captions, strict=True)}
        for half in (seen[:2], seen[2:])
    )
    assert first.keys() == second.keys()
    assert first != second


def test_both_splits_are_learnt_from_and_the_last_epoch_is_kept(place, tmp_path, monkeypatch):
    seen = set()
    step = clip_aac.Training.training_step

    def watched(self, batch, number):
        seen.update(batch.captions)
        return step(self, batch, number)

    monkeypatch.setattr(clip_aac.Training, "training_step", watched)
    settings = ("learn_from=development-validation", "monitor=epoch", "alpha=1", "epochs=2", "batch=20")
    last = trained(place, tmp_path / "run", *settings)
    assert {f"{said} {split}" for said in TONES for split in ("development", "validation")} <= seen
    assert [float(row["validation_epoch"]) for row in rows(tmp_path / "run")] == [1, 2]
    best = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    assert same(best["state_dict"], last)
    assert "validation" in " ".join(best["vocabulary"])
    assert not (tmp_path / "run" / "checkpoints" / "inference.ckpt").exists(), "nothing to caption with"
    described = yaml.safe_load((tmp_path / "run" / "system.yaml").read_text())["description"]
    assert described["metric_monitored"] is None
    assert described["loss_function"] == "InfoNCE"


# Runs ----------------------------------------------------------------------------------------------------------------


def test_one_checkpoint_captions_and_retrieves(place, run, capsys):
    asked = ["predict", str(run), "--data", str(place / "data")]
    assert command(parser(), asked) == 0
    assert command(parser(), [*asked, "--as", "retrieval"]) == 0
    with (run / "predictions" / "evaluation.csv").open() as file:
        captions = list(csv.DictReader(file))
    assert len(captions) == 11
    assert all(float(row["log_probability"]) < 0 for row in captions)
    with np.load(run / "predictions" / "evaluation.npz") as prediction:
        assert prediction["scores"].shape == (15, 11)
    # The same run serves both tasks.
    for task in ("dcase2022-6a", "dcase2022-6b"):
        package = ["package", str(run), "--task", task, "--team", str(ROOT / "baseline" / "team.yaml")]
        package += ["--data", str(place / "data"), "--split", "evaluation"]
        assert command(submission_parser(), package) == 0, capsys.readouterr().err
    assert len(list((run / "submission").glob("*.zip"))) == 2


def test_the_inference_checkpoint_gives_the_same_captions(place, run, tmp_path, capsys):
    whole, stripped = (
        torch.load(run / "checkpoints" / name, weights_only=True) for name in ("best.ckpt", "inference.ckpt")
    )
    left_out = whole["state_dict"].keys() - stripped["state_dict"].keys()
    assert "model.heads.token_embedding.weight" in left_out
    assert not any(".audio." in name or ".decoder." in name for name in left_out)
    assert "optimizer_states" not in stripped
    alone = tmp_path / "alone"
    (alone / "checkpoints").mkdir(parents=True)
    for name in ("config.yaml", "system.yaml", "checkpoints/inference.ckpt"):
        (alone / name).write_bytes((run / name).read_bytes())
    for folder in (run, alone):
        assert command(parser(), ["predict", str(folder), "--data", str(place / "data")]) == 0
    ours, theirs = ((folder / "predictions" / "evaluation.csv").read_text() for folder in (run, alone))
    assert ours == theirs
    capsys.readouterr()
    assert command(parser(), ["predict", str(alone), "--data", str(place / "data"), "--as", "retrieval"]) == 2
    assert "retrieval needs a text head, but this model has none: inference.ckpt and runs" in capsys.readouterr().err


def test_training_and_prediction_embed_alike(place, run):
    model = clip_aac.load_model(run / "checkpoints" / "best.ckpt")
    split = read_dataset(place / "data", "validation")["validation"]
    found = retrieval.ranks(split.truth, contract.similarity(model, split, device=torch.device("cpu")))
    best = max(rows(run), key=lambda row: float(row["validation_CIDEr-D"]))
    measured = retrieval.average_precision(*found, 10).mean()
    assert measured == pytest.approx(float(best["validation_mAP@10"]), abs=1e-6)


def test_rates_rise_and_then_stay(place, tmp_path, monkeypatch):
    seen = []
    original = clip_aac.Training.on_train_batch_start

    def watched(self, batch, number):
        original(self, batch, number)
        seen.append([group["lr"] for group in self.optimizers().param_groups])

    monkeypatch.setattr(clip_aac.Training, "on_train_batch_start", watched)
    trained(place, tmp_path / "run", "epochs=3", "warmup=2", "batch=16", "alpha=0", "learning_rate=0.01", "seconds=0.1")
    assert np.allclose(seen, np.outer([1 / 4, 2 / 4, 3 / 4, 1, 1, 1], [0.01, 0.002]))


@pytest.mark.parametrize(
    "settings",
    [("alpha=0", "front_end=fbsp", "batch=32"), ("batch=31",)],
    ids=["no text head, the learnt transform", "a last batch of one"],
)
def test_it_trains_in_mixed_precision(place, tmp_path, settings):
    state = trained(place, tmp_path / "run", "epochs=1", "seconds=0.1", *settings, more=("--precision", "bf16-mixed"))
    assert any("token_embedding" in name for name in state) is ("alpha=0" not in settings)
    assert all(value.isfinite().all() for value in state.values())


def test_killed_it_ends_with_the_same_weights(place, tmp_path):
    settings = ("epochs=3", "warmup=2", "batch=5", "pairs=drawn", "seconds=0.1")  # four steps; killed in the third
    expected = trained(place, tmp_path / "whole", *settings)
    asked = arguments(place, tmp_path / "killed", *settings)
    assert cut_off(asked, clip_aac.Training, "training_step", 10) == -signal.SIGKILL
    assert len(rows(tmp_path / "killed")) == 2
    found = trained(place, tmp_path / "killed", *settings)
    assert same(found, expected)
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")


def test_the_learnt_transform_is_trained_resumed_kept_and_used(place, tmp_path):
    settings = ("front_end=fbsp", "epochs=2", "batch=16", "pairs=drawn", "seconds=0.1", "alpha=0")  # one step per epoch
    expected = trained(place, tmp_path / "whole", *settings)
    names = [f"model.heads.audio.{name}" for name in LEARNT]
    initial = heads.LearntTransform().state_dict()
    assert all(not torch.equal(expected[name], initial[name.rpartition(".")[2]]) for name in names)
    asked = arguments(place, tmp_path / "killed", *settings)
    assert cut_off(asked, clip_aac.Training, "training_step", 2) == -signal.SIGKILL
    assert len(rows(tmp_path / "killed")) == 1
    assert same(trained(place, tmp_path / "killed", *settings), expected)

    checkpoints = tmp_path / "whole" / "checkpoints"
    whole, stripped = (clip_aac.load_model(checkpoints / name) for name in ("best.ckpt", "inference.ckpt"))
    assert same(stripped.heads.audio.state_dict(), whole.heads.audio.state_dict())
    sound = torch.from_numpy(tone(440.0))[None]
    with torch.inference_mode():
        image = heads.spectrogram(sound, stripped.heads.audio.fbsp)
        found = stripped.audio_vectors(sound, torch.tensor([sound.shape[1]]))
        torch.testing.assert_close(found, stripped.heads.audio(image))
    described = yaml.safe_load((tmp_path / "whole" / "system.yaml").read_text())["description"]
    assert described["acoustic_features"] == "log-power spectrogram of learnt wavelets"


class Step(torch.nn.Module):
    """The loss of a batch as a module, for DDP."""

    def __init__(self, word_loss):
        super().__init__()
        self.model = tiny(word_loss=word_loss)
        self.training_ = [clip_aac.Training(self.model, None)]  # a list, so that torch does not register it

    def forward(self, batch):
        return self.training_[0].loss(self.model.heads.embed_audio(batch.sounds), batch, 0.1).total


def stepped(step, batch, model):
    """Return gradients and norms' statistics after a step."""
    step(batch).backward()
    found = {name: p.grad for name, p in model.named_parameters()}
    return found | {name: value for name, value in model.named_buffers() if "running" in name}


def halves(batch):
    return [clip_aac.Batch(*(part[rank::2] for part in batch)) for rank in range(2)]


def work(rank, batch, word_loss, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/meeting", world_size=2, rank=rank)
    step = torch.nn.parallel.DistributedDataParallel(Step(word_loss))
    torch.save(stepped(step, halves(batch)[rank], step.module.model), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("word_loss", ["sum", "mean"])
def test_two_processes_are_one_with_twice_the_batch(tmp_path, word_loss):
    """Negatives, norms and the mean over captions or words are those of the whole batch; captions differ in length."""
    step = Step(word_loss)
    batch = batch_of(step.model, [tone(hertz) for hertz in TONES.values()] * 2, [*TONES, *reversed(TONES)])
    clips = torch.arange(8) % 4
    batch = batch._replace(clips=clips, owners=torch.tensor([*range(4), *reversed(range(4))])[:, None])
    expected = stepped(step, batch, step.model)
    torch.multiprocessing.start_processes(work, (batch, word_loss, tmp_path), nprocs=2, start_method="fork")
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            largest = float(value.abs().max())
            torch.testing.assert_close(
                found[name], value, rtol=1e-3, atol=1e-4 * largest + 1e-5, msg=lambda m, n=name: f"{n}: {m}"
            )
    alone = stepped(other := Step(word_loss), halves(batch)[0], other.model)
    assert not torch.allclose(alone["heads.text_projection"], expected["heads.text_projection"], rtol=1e-2)


def test_the_figure_shows_both_matrices(place, run, tmp_path, capsys, monkeypatch):
    shown = {}
    draw = figure.draw
    monkeypatch.setattr(figure, "draw", lambda matrices, *rest: (shown.update(matrices), draw(matrices, *rest)))
    assert command(figure.parser(), [str(run), "--data", str(place / "data")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("before training: a clip's own caption has a mean softmax of 0.")
    assert (run / "figures" / "similarity-evaluation.png").read_bytes().startswith(b"\x89PNG")
    model = clip_aac.load_model(run / "checkpoints" / "best.ckpt")
    clips = figure.drawn(read_dataset(place / "data", "evaluation")["evaluation"].clips, 0, 3)
    matrix = figure.similarity(model, clips)
    assert matrix.shape == (3, 3)
    assert np.allclose(matrix.sum(1), 1)

    def stop(original, training):
        torch.save(training.model.state_dict(), tmp_path / "beginning.pt")
        kill(original)

    again = arguments(place, tmp_path / "again", "epochs=3")
    assert cut_off(again, clip_aac.Training, "configure_optimizers", how=stop) == -signal.SIGKILL
    clips = figure.drawn(read_dataset(place / "data", "evaluation")["evaluation"].clips, 0)
    after = figure.similarity(model, clips)
    model.load_state_dict(torch.load(tmp_path / "beginning.pt", weights_only=True))
    np.testing.assert_allclose(shown["before training"], figure.similarity(model, clips), atol=1e-6)
    np.testing.assert_allclose(shown["after training"], after, atol=1e-6)
    assert np.abs(shown["before training"] - after).max() > 0.01
    assert command(figure.parser(), [str(place), "--data", str(place / "data")]) == 2
    assert "must be the folder of a trained run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ("init=audio-text",),
            "init must be random for heads whose sizes differ from AudioCLIP's; found init=audio-text with size=24, ",
        ),
        (
            ("init=audio",),
            "heads whose sizes differ from AudioCLIP's; found init=audio with audio_blocks=(1, 1, 1, 1), audio_chann",
        ),
        (("train_heads=false",), "train_heads must be true with init=random, because random heads must be"),
        (("alpha=0", "monitor=mAP@10"), "monitor must be CIDEr-D, loss or epoch with alpha=0, because the model"),
        (("alpha=1",), "with alpha=1, because the decoder is not trained; found CIDEr-D: set monitor=mAP@10"),
        (("alpha=1.1",), "alpha: error: Input should be less than or equal to 1"),
        (("audio_to_text=-1",), "audio_to_text: error: Input should be greater than or equal to 0"),
        (
            ("learn_from=development-validation",),
            "monitor must be epoch with learn_from=development-validation, because no clips are left to choose",
        ),
        (("audio_channels=24",), "audio_channels: error: Input should be a multiple of 16"),
        (("tokenizer=nowhere/at/all",), "nowhere/at/all: no such folder"),
    ],
)
def test_a_wrong_request_gets_one_clear_line_and_leaves_nothing(place, tmp_path, capsys, settings, message):
    assert command(parser(), arguments(place, tmp_path / "run", *settings)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "run").exists()


def test_missing_weights_are_named(place, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    asked = ["train", "systems.clip_aac", "--data", str(place / "data"), "--run", str(tmp_path / "run")]
    assert command(parser(), [*asked, "--config", str(CONFIGS["system-5"]), "--accelerator", "cpu"]) == 2
    said = capsys.readouterr().err
    assert "fetch it with: dcase-systems download audioclip; or put AudioCLIP-Full-Training.pt (about 537 MB)" in said
    assert not (tmp_path / "run").exists()


def test_what_a_model_does_not_do_is_not_asked_of_it(place, tmp_path, capsys):
    source = "class Config: ...\ndef train(): ...\nclass M:\n    sample_rate = 8000\n    def to(self, d): return self\n"
    source += "    def caption(self, a, n): return []\ndef load_model(c): return M()\n"
    (tmp_path / "says_only.py").write_text(source)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").write_text("system: says_only\n")
    (tmp_path / "run" / "checkpoints" / "best.ckpt").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        asked = ["predict", str(tmp_path / "run"), "--data", str(place / "data"), "--as", "retrieval"]
        asked += ["--trust", "says_only"]
        assert command(parser(), asked) == 2
    lacks = "the model of says_only has no method embed_audio, which retrieval needs; it can do captioning"
    assert lacks in capsys.readouterr().err


def test_extra_captions_are_pairs_of_development_clips(place, tmp_path, monkeypatch):
    folder = tmp_path / "data"
    shutil.copytree(place / "data", folder)
    (folder / "captions_development.extra.csv").write_text("file_name,caption,source\n3.wav,zzyzx hums,x\n")
    fitted = []
    monkeypatch.setattr(clip_aac.Run, "fit", lambda self, module, train, *_: fitted.append((module.model, train)))
    monkeypatch.setattr(clip_aac, "Material", recording := Recorded(clip_aac.Material))
    monkeypatch.setattr(clip_aac, "strip", lambda *_: None)
    monkeypatch.setattr(clip_aac, "load_model", lambda _: fitted[0][0])
    asked = arguments(place, tmp_path / "run", "extra_share=0.5")
    asked[asked.index("--data") + 1] = str(folder)
    assert command(parser(), asked) == 0
    ((model, items),) = fitted
    clip, caption = items.items[-1]
    assert (clip, recording.made.captions[caption]) == (4 + 3, "zzyzx hums")
    assert len(items) == items.regular + 1
    assert "zzyzx" in model.vocabulary.words


class Recorded:
    """A class whose last object is kept."""

    def __init__(self, original):
        self.original, self.made = original, None

    def __call__(self, *arguments):
        self.made = self.original(*arguments)
        return self.made
