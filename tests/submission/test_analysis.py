"""The analysis of the submitted methods repeats Table 4 and the counts of section 4.2 of Xie et al. 2022."""

import csv
import io
import json

import pytest

from evaluation.findings import BadRequest, Faulty
from submission import analysis, leaderboard
from submission.families import FAMILIES, read_families
from tests.submission.made_boards import SPLIT, TASK, entry, hand_in, knowing, ranked

# Table 4: the team, its audio model, its caption model and its loss, in various spellings. Section 4.2 says which teams
# use data augmentation.
TABLE_4 = [
    ("Xu", "PANNs (CNN14, Wavegram-Logmel-CNN14)", "BERT and RoBERTa", "InfoNCE loss"),
    ("Mei", "cnn-14", "bert-base-uncased", "NT-Xent"),
    ("Lamort", "PANNs, OpenL3, VGGSound, VGGish, BART", "Sentence-BERT", "triplet"),
    ("Pellegrini", "PaSST", "all-mpnet-base-v2", "Triplet loss"),
    ("Lai", "ESResNet", "Transformer", "CE loss"),
    ("Wu", "PANN CNN14 and HTSAT", "transformer", "symmetric cross entropy"),
    ("Weck", "CNN10", "roberta-large", "contrastive loss"),
    ("Xiao", "CNN14 with graph attention", "word2vec", "triplet_loss"),
    ("Park", "CRNN", "Word2Vec (Skip-gram)", "triplet loss"),
    ("Baseline", "CRNN", "Word2Vec", "triplet loss"),
]
AUGMENTED = {"Mei": "SpecAugment", "Lamort": "mixup, spec augment", "Wu": "random crop"}


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """Return the leaderboard of ten packages, one for each row of the table, and its folder."""
    folder = tmp_path_factory.mktemp("table4")
    for number, (team, audio, text, loss) in enumerate(TABLE_4):
        methods = {"audio_modelling": audio, "word_modelling": text, "loss_function": loss}
        methods["data_augmentation"] = AUGMENTED.get(team, "none")
        path = hand_in(folder, team, knowing(3.2 - 0.3 * number, 1), **methods)
    baseline = folder / "in" / path.name
    board = leaderboard.run(TASK, folder / "in", {"retrieval": SPLIT}, folder / "out", baseline=baseline)
    assert not board.errors, board.findings_text()
    return board, folder / "out"


def counts(board, aspect: str) -> dict[str, int]:
    return {use.place[-1]: len(use.teams) for use in board.uses if use.aspect == aspect}


def test_table_4(board):
    board, _ = board
    aspects = list(board.aspects)
    columns = [2 + aspects.index(name) for name in ("audio encoder", "text model", "loss")]
    assert [
        [row[0], row[1].partition("_")[0], *(row[column] for column in columns)] for row in board.methods(board.aspects)
    ] == [
        ["1", "Xu", "PANNs", "BERT, RoBERTa", "InfoNCE"],
        ["2", "Mei", "PANNs", "BERT", "NT-Xent"],
        ["3", "Lamort", "PANNs, OpenL3, VGGSound, VGGish, BART", "Sentence-BERT", "triplet loss"],
        ["4", "Pellegrini", "PaSST", "Sentence-BERT", "triplet loss"],
        ["5", "Lai", "ESResNet", "Transformer", "cross-entropy"],
        ["6", "Wu", "PANNs, HTS-AT", "Transformer", "cross-entropy"],
        ["7", "Weck", "PANNs", "RoBERTa", "contrastive loss"],
        ["8", "Xiao", "PANNs", "Word2Vec", "triplet loss"],
        ["9", "Park", "CRNN", "Word2Vec", "triplet loss"],
        ["10", "Baseline", "CRNN", "Word2Vec", "triplet loss"],
    ]


def test_the_counts_of_section_4_2(board):
    """The section counts nine teams, without the baseline."""
    board, _ = board
    assert board.about.startswith("9 systems of 9 teams, ranked by mAP@10")
    assert counts(board, "audio encoder")["PANNs"] == 6  # "21 systems from six teams utilizing PANNs"
    text = counts(board, "text model")
    assert (
        text["transformer-based model"] == 7
    )  # "seven out of nine preferred Transformer-based language embedding models"
    assert text["word vectors"] == 2  # "the other two teams"
    loss = counts(board, "loss")
    # "contrastive loss (one team), triplet loss (four teams), and N-pair loss (four teams)"
    assert (loss["contrastive loss"], loss["triplet loss"], loss["N-pair loss"]) == (1, 4, 4)
    augmentation = counts(board, "data augmentation")
    assert 9 - augmentation["none"] == 3  # "adopted by only three participating teams"
    [panns] = [use for use in board.uses if use.place[-1] == "PANNs"]
    assert panns.ranks_text == "1–3, 6–8"  # "including the top three teams"
    assert not panns.baseline
    [word2vec] = [use for use in board.uses if use.place[-1] == "Word2Vec"]
    assert word2vec.baseline  # "The other two teams and the baseline"
    # "All teams with Transformer-based models ranked higher than those with pre-trained Word2Vec"
    [transformer] = [
        use for use in board.uses if (use.aspect, use.place) == ("text model", ("transformer-based model",))
    ]
    assert max(transformer.ranks) < min(word2vec.ranks)


def test_the_files_of_the_analysis(board):
    """The CSV, the JSON, the text and the page have the same counts; keys without families are kept, emails are not."""
    board, folder = board
    rows = list(csv.DictReader(io.StringIO((folder / "analysis.csv").read_text(encoding="utf-8"))))
    assert tuple(rows[0]) == analysis.COLUMNS
    [row] = [row for row in rows if row["method"] == "CNN14"]
    assert row == {
        "aspect": "audio encoder",
        "level": "3",
        "method": "CNN14",
        "part_of": "convolutional network / PANNs",
        "systems": "4",
        "teams": "4",
        "baseline": "False",
        "best_rank": "1",
        "median_rank": "4.0",
        "ranks": "1–2, 6, 8",
    }
    aspects = {row["aspect"] for row in rows}
    assert {"description.input_sampling_rate", "description.learning_rate", "complexity.total_parameters"} <= aspects
    written = json.loads((folder / "board.json").read_text(encoding="utf-8"))
    assert [use["systems"] for use in written["analysis"]] == [list(use.systems) for use in board.uses]
    lines = [" ".join(line.split()) for line in (folder / "board.txt").read_text(encoding="utf-8").splitlines()]
    assert "loss N-pair loss 4 4 1–2, 5–6" in lines
    assert "- cross-entropy 2 2 5–6" in lines
    assert "<td>1–2, 5–6</td>" in (folder / "board.html").read_text(encoding="utf-8")
    for name in leaderboard.PUBLIC:
        assert "@example.org" not in (folder / name).read_text(encoding="utf-8")


def test_names_in_texts():
    aspects = read_families(FAMILIES)

    def families(**texts: str) -> dict[str, list[str]]:
        metadata = {f"system.description.{key}": text for key, text in texts.items()}
        system = entry("A_x_task6b_1")
        system = type(system)(system.label, system.team, system.package, metadata, system.score)
        return {name: analysis.families_of(system, aspect) for name, aspect in aspects.items()}

    found = families(audio_modelling="My own net", word_modelling="DistilRoBERTa", loss_function="N/A", ensemble="yes")
    assert found["audio encoder"] == ["My own net"]  # an unknown name is kept as it is written
    assert found["text model"] == ["RoBERTa"]
    assert found["loss"] == ["none"]
    assert found["ensemble"] == ["yes"]
    assert found["external data"] == ["not stated"]
    found = families(audio_modelling="PASST+BEATs", acoustic_features="log mel energies, VGGish")
    assert found["audio encoder"] == ["PaSST", "BEATs", "VGGish"]
    assert found["acoustic features"] == ["log-mel energies", "embeddings of a pretrained network"]
    assert families(audio_modelling="a forecast of eaten beats-like panns")["audio encoder"] == ["BEATs", "PANNs"]


def test_the_most_used_method_is_first():
    systems = [entry(f"{name}_x_task6b_1", knowing(n)) for n, name in enumerate("ABC")]
    systems[0].metadata["system.description.optimizer"] = "SGD"
    for system, text in zip(systems[1:], ("adam", "Adam"), strict=True):
        system.metadata["system.description.optimizer"] = text
    uses = [use for use in ranked(*systems).uses if use.aspect == "description.optimizer"]
    assert [(use.place, len(use.systems), use.ranks) for use in uses] == [(("Adam",), 2, (1, 2)), (("SGD",), 1, (3,))]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("loss: [triplet]", "families.yaml: loss: error: must have keys and families, as in families.yaml of the kit"),
        ("loss: {families: {a: []}}", "families.yaml: loss.keys: error: is missing; list the metadata keys"),
        ("loss: {keys: k}", "loss.keys: error: must be as in families.yaml of the kit (Input should be a valid list)"),
        ("loss: {keys: [k], familes: {}}", "families.yaml: loss.familes: error: unknown key 'familes'; did you mean"),
        ("loss: {keys: [k], families: {a: 3}}", "a must have a list of other spellings, or names below it; found 3"),
        ("loss: {keys: [k], families: {a: {x: []}, b: [X]}}", "'X' must be in one place only; found it below 'a' and"),
        ("- loss", "must"),
        ("", "must have an aspect, such as loss; found none"),
    ],
)
def test_a_bad_table_of_families(text, message, tmp_path):
    path = tmp_path / "families.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(Faulty) as refusal:
        read_families(path)
    assert message in str(refusal.value)
    with pytest.raises(BadRequest, match="no such file"):
        read_families(tmp_path / "missing.yaml")


def test_keys_that_the_metadata_do_not_have(tmp_path):
    """Otherwise all systems would count as systems that do not state the aspect."""
    path = tmp_path / "families.yaml"
    path.write_text("audio: {keys: [system.description.audio_model], families: {CNN: []}}", encoding="utf-8")
    (tmp_path / "in").mkdir()
    hand_in(tmp_path, "Wu", knowing(1))
    with pytest.raises(
        Faulty, match=r"audio\.keys: error: must have a key of the metadata of dcase2022-6b; found system"
    ):
        leaderboard.run(TASK, tmp_path / "in", {"retrieval": SPLIT}, tmp_path / "out", families=path)


def test_each_kind_of_task_has_its_own_loss():
    aspects = read_families(FAMILIES)
    assert (aspects["loss"].kind, aspects["loss of captioning"].kind) == ("retrieval", "captioning")
    assert "loss of captioning" not in ranked(entry("A_x_task6b_1")).aspects
