"""Search in a collection of clips, with a text or with an example, by the embeddings of a trained retriever."""
