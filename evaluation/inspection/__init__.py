"""Pages to look at and listen to the predictions of systems, which `dcase-evaluation inspect` writes.

- `requests` reads the predictions, scores them, and writes the page.
- `collecting` collects the content of the page, for retrieval or for captioning.
- `neighbours` computes the similarity of captions and queries.
- `sounds` makes spectrograms, and links to audio files or copies of them.
- `overview` makes the metrics, charts and lists at the top of the page.
- `page` makes the HTML file and its data.
"""
