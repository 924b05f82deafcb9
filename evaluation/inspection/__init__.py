"""Pages to look at and listen to the predictions of systems, which `dcase-evaluation inspect` writes.

- `content` says what each kind of answers must define.
- `retrieval`, `captioning`, `choice` and `moments` read and score predictions, and collect the content of the page.
- `neighbours` computes the similarity of captions and queries.
- `sounds` makes spectrograms, and links to audio files or copies of them.
- `charts` makes bar charts and lists, and `overview` makes the top of the page from them.
- `page` makes the HTML file and its data.
- `writing` writes the page, with its sounds and spectrograms.
"""
