"""Questions about tones, and queries about recordings of tones, for the made systems of `made`."""

import json

import numpy as np
import soundfile

from tests.systems.made import tone

SPLITS = ("development", "validation", "evaluation")
HIGH = [[2.0, 4.0], [9.0, 11.5]]  # the windows of the recording with a high tone


def make_questions(folder, splits=SPLITS, **changed):
    """Write four questions about two clips for each split; `changed` replaces keys of all questions."""
    for split in splits:
        (folder / split).mkdir(parents=True)
        tone(folder / split / "low, 1.wav", 500)
        tone(folder / split / "high.wav", 2000, seconds=1.5)
        lines = []
        for number in range(4):
            is_high = number % 2 == 1
            content = {
                "id": f"{split} {number}",
                "audio_path": f"{split}/{'high' if is_high else 'low, 1'}.wav",
                "question_text": "Which tone is heard?",
                "multi_choice": ["a high one", "a low one"] if number < 2 else ["a low one", "a high one"],
                "answer": "a high one" if is_high else "a low one",
            }
            lines.append(json.dumps({**content, **changed}))
        (folder / f"questions_{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def make_recordings(folder, splits=SPLITS, **changed):
    """Write two queries about a recording for each split; `changed` replaces keys of all queries."""
    for split in splits:
        (folder / split).mkdir(parents=True)
        times = np.arange(8000 * 14) / 8000
        samples = 0.3 * np.sin(2 * np.pi * 500 * times)
        for start, end in HIGH:
            is_high = (times >= start) & (times < end)
            samples[is_high] = 0.3 * np.sin(2 * np.pi * 2000 * times[is_high])
        soundfile.write(folder / split / "a long one.flac", samples, 8000)
        lines = []
        for number, (query, windows) in enumerate([("a high tone", HIGH), ("a low tone", [[4.0, 9.0]])]):
            content = {"qid": f"q{number}", "query": query, "vid": "a long one", "duration": 14}
            lines.append(json.dumps({**content, "relevant_windows": windows, **changed}))
        (folder / f"moments_{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder
