"""Captioning with pretrained decoders: settings, a run end to end, exact resume, and an exported run."""

import csv
import signal

import pytest
import torch
from safetensors import safe_open

from evaluation.cli import command
from evaluation.findings import BadRequest, Faulty
from systems import contract, offtheshelf
from systems.__main__ import parser
from systems.downloads import required
from systems.offtheshelf import Config, Item, Training, make_batch
from systems.offtheshelf.pretrained import PADDING, PretrainedCaptioner
from systems.parts import generation
from tests.systems.runs import assert_captions_do_not_depend_on_the_batch, cut_off, same, train_arguments, weights
from tests.systems.tiny import causal_model, llama_model, make_hear_data, trusting_hear

SMALL = ("audio_encoder=tiny_hear", "overlap=0", "heads=2", "head_size=4", "max_words=6", "batch=8", "epochs=2")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with tiny decoders and data."""
    folder = tmp_path_factory.mktemp("pretrained")
    causal_model(folder / "gpt")
    llama_model(folder / "llama")
    make_hear_data(folder, development=4, validation=2, evaluation=3)
    return folder


@pytest.fixture(autouse=True)
def modules(place, monkeypatch):
    with trusting_hear(place, monkeypatch):
        yield


def arguments(place, run, *settings):
    settings = (*SMALL, "longest=10", f"decoder={place / 'llama'}", "fusion=prefix", "tuning=lora", *settings)
    return train_arguments("systems.offtheshelf", place, run, settings)


@pytest.fixture(scope="module")
def run(place, tmp_path_factory):
    """A run with LoRA."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(place / "modules"))
        folder = tmp_path_factory.mktemp("runs") / "lora"
        assert command(parser(), arguments(place, folder, "learning_rate=0.01")) == 0
    return folder


def configured(*settings):
    return contract.configure(Config, None, [*SMALL, *settings])


# Settings ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("fusion=prefix", "fusion must be cross-attention for decoder=own; found prefix: give a decoder"),
        ("tuning=lora", "tuning must be full for decoder=own, which is not pretrained; found lora: give a decoder"),
        ("decoder=gpt2 fusion=middle", "Input should be 'cross-attention' or 'prefix'; found 'middle'"),
        ("decoder=gpt2 tuning=some", "Input should be 'frozen', 'lora' or 'full'; found 'some'"),
        ("decoder=gpt2 lora_rank=4", "lora_rank must be left out for tuning=full, because only tuning=lora uses it"),
        ("decoder=gpt2 lora_dropout=.1", "lora_dropout must be left out for tuning=full"),
        ("decoder=gpt2 lora_alpha=4", "lora_alpha must be left out for tuning=full"),
        ("decoder=gpt2 tuning=lora lora_rank=0", "Input should be greater than or equal to 1; found 0"),
        ("decoder=gpt2 tuning=lora lora_alpha=0", "Input should be greater than or equal to 1; found 0"),
        ("decoder=gpt2 tuning=lora lora_dropout=1", "Input should be less than 1; found 1"),
        (
            "decoder=gpt2 words=random",
            "words must be left out for decoder=gpt2, because only decoder=own uses it",
        ),
        (
            "decoder=gpt2 blocks=2",
            "blocks must be left out for decoder=gpt2, because only decoder=own uses it",
        ),
        ("label_smoothing=1", "Input should be less than 1; found 1"),
        ("weight_decay=-1", "Input should be greater than or equal to 0; found -1"),
    ],
)
def test_a_wrong_setting_is_refused(settings, message):
    with pytest.raises(Faulty) as refused:
        configured(*settings.split(" "))
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["decoder=nowhere/at/all"], "nowhere/at/all: no such folder; give the folder of a transformers model"),
        (["decoder={place}/data"], "data: cannot be loaded as a language model"),
        (["fusion=cross-attention"], "fusion must be prefix for"),
        (["longest=80"], "audio and caption must fit into the decoder's window of 96 positions; found"),
    ],
)
def test_a_decoder_that_cannot_be_used_gets_one_line(place, tmp_path, capsys, settings, message):
    settings = [setting.format(place=place) for setting in settings]
    assert command(parser(), arguments(place, tmp_path / "run", *settings)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("config", "decoder"),
    [("bart", "bart-base"), ("gpt2-prefix", "gpt2"), ("smollm2-lora", "SmolLM2-135M-Instruct.Q4_1.gguf")],
)
def test_the_configs_name_what_they_need(config, decoder):
    audio, text = required([f"systems/offtheshelf/{config}.yaml"])
    assert audio.asset.source.endswith("yamnet_audio_classifier_with_metadata.tflite")
    assert text.asset.source.endswith(decoder)


# Training and decoding -----------------------------------------------------------------------------------------------


def test_a_caption_is_as_probable_as_in_training(place):
    """Teacher forcing of a caption gives the log-probability with which it was generated."""
    torch.manual_seed(0)
    config = configured(f"decoder={place / 'gpt'}", "tuning=lora", "decoding=beam", "label_smoothing=0.1")
    model = PretrainedCaptioner(config).eval()
    audio, lengths = torch.rand(1, 4000) - 0.5, torch.tensor([4000])
    with torch.inference_mode():
        generated = generation.search(model.encode(audio, lengths), [0], model.rules, config)
        sound = model.audio(audio, lengths)[0].numpy()
    ids = [number for number in generated.ids[0].tolist() if number >= 0]
    batch = make_batch([Item(sound, [model.decoder.start, *ids], None, "a.wav")], PADDING)
    with torch.no_grad():
        loss, size = Training(model, None).loss(batch)
    assert size == len(ids)
    assert float(loss) * size == pytest.approx(-float(generated.log_probability[0]), abs=1e-3)
    assert model.caption(audio, lengths) == [model.decode(ids)]


def test_a_training_caption_keeps_its_letters_and_is_cut(place):
    model = PretrainedCaptioner(configured(f"decoder={place / 'gpt'}", "tuning=frozen", "longest=5"))
    ids = model.tokens("A  Dog.\nBarks")
    assert ids[0] == ids[-1] == model.decoder.end
    assert model.decode(ids[1:]) == "A Dog"


def test_adamw_optimises_only_trained_weights(place):
    model = PretrainedCaptioner(configured(f"decoder={place / 'gpt'}", "tuning=frozen", "weight_decay=0.1"))
    optimizer = Training(model, None).configure_optimizers()
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.param_groups[0]["weight_decay"] == 0.1
    trained = {id(parameter) for parameter in optimizer.param_groups[0]["params"]}
    names = {name.split(".")[0] for name, value in model.named_parameters() if id(value) in trained}
    assert names == {"adapter", "decoder"}
    assert len(trained) == sum(value.requires_grad for value in model.parameters())


# A run ---------------------------------------------------------------------------------------------------------------


def test_a_checkpoint_holds_only_what_is_trained(run):
    state = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert state["frozen"].keys() == {"audio_encoder.", "decoder.language."}
    parts = {name.split(".")[1] if "lora_" not in name else "lora" for name in state["state_dict"]}
    assert parts == {"adapter", "decoder", "lora"}
    inside = [name for name in state["state_dict"] if ".language." in name]
    assert len(inside) == 2 * 2 * 2  # two matrices for queries and values of two layers
    assert "model.decoder.language.base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight" in inside
    model = offtheshelf.load_model(run / "checkpoints" / "best.ckpt")
    assert same({name: model.state_dict()[name.removeprefix("model.")] for name in inside}, {
        name: state["state_dict"][name] for name in inside
    })  # fmt: skip
    assert any(state["state_dict"][name].any() for name in inside if "lora_B" in name)
    lengths = torch.tensor([900, 8000, 3000])
    audio = torch.zeros(3, 8000)
    for row, length in enumerate(lengths):
        audio[row, :length] = torch.rand(int(length)) - 0.5
    assert_captions_do_not_depend_on_the_batch(model, audio, lengths)


def test_killed_it_ends_with_the_same_weights(place, run, tmp_path):
    asked = arguments(place, tmp_path / "run", "learning_rate=0.01")
    assert cut_off(asked, Training, "training_step", 5) == -signal.SIGKILL
    assert command(parser(), asked) == 0
    for which in ("last", "best"):
        assert same(weights(tmp_path / "run", which), weights(run, which))
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == (run / "metrics.csv").read_bytes()


def test_another_decoder_than_in_training_is_refused(place, tmp_path, run, monkeypatch):
    llama_model(tmp_path / "llama", seed=1)
    state = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    state["config"]["decoder"] = str(tmp_path / "llama")
    monkeypatch.setattr(offtheshelf, "read_checkpoint", lambda *_, **__: state)
    with pytest.raises(BadRequest, match=r"found other weights or settings of the decoder\.language on this machine"):
        offtheshelf.load_model(run / "checkpoints" / "best.ckpt")


def test_it_predicts_and_is_exported_without_the_frozen_weights(place, run, tmp_path):
    assert command(parser(), ["predict", str(run), "--data", str(place / "data")]) == 0
    with (run / "predictions" / "evaluation.csv").open(encoding="utf-8", newline="") as file:
        predicted = list(csv.DictReader(file))
    assert len(predicted) == 3
    assert all(row["caption_predicted"] and float(row["log_probability"]) < 0 for row in predicted)
    assert command(parser(), ["export", str(run), str(tmp_path / "out"), "--trust", "tiny_hear"]) == 0
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        names = [name for name in file.keys() if ".language." in name]  # noqa: SIM118, not a dict
    assert names
    assert all("lora_" in name for name in names)


def test_all_weights_can_be_trained(place, tmp_path):
    """The checkpoint then contains them, and the pretrained weights may change afterwards."""
    causal_model(tmp_path / "gpt")
    settings = [f"decoder={tmp_path / 'gpt'}", "fusion=cross-attention", "tuning=full", "epochs=1", "weight_decay=0.01"]
    assert command(parser(), arguments(place, tmp_path / "run", *settings)) == 0
    causal_model(tmp_path / "gpt", seed=1)
    model = offtheshelf.load_model(tmp_path / "run" / "checkpoints" / "best.ckpt")
    trained = weights(tmp_path / "run", "best")
    name = "decoder.language.transformer.h.0.attn.c_attn.weight"
    assert torch.equal(model.state_dict()[name], trained[f"model.{name}"])
