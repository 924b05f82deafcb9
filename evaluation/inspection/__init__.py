"""Pages on which one looks at and listens to the predictions of systems: `dcase-evaluation inspect`.

- `requests`: read the predictions, score them, and write the page.
- `collecting`: the content of the page, for retrieval and for captioning.
- `neighbours`: the similarity of captions and queries.
- `sounds`: spectrograms, and links to audio files or copies of them.
- `overview`: the metrics, charts and lists at the top of the page.
- `page`: the HTML file and its data.
"""
