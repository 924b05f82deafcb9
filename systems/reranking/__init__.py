"""Re-ranking, which chooses among several candidate captions of each clip.

    dcase-systems predict RUN --data DIR --set decoding=sample --set candidates=20 --out SAMPLED
    dcase-systems rerank SAMPLED --retriever RETRIEVER --data DIR --run OUT

- `candidates` reads and writes the candidates of a split, `candidates/SPLIT.csv` in a run folder.
- `choice` computes the values of candidates, fits the weight of the retriever, and chooses a candidate for each clip.
- `rerank` writes the new run, with predictions and a description. It can be scored and packaged like other runs.
"""
