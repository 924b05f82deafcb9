"""Search in a collection of clips with a text or an audio file, by the embeddings of a trained retriever."""
