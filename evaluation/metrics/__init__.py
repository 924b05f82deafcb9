"""Metrics of retrieval and captioning, and the programs and models that compute them.

Functions that split a text into words
--------------------------------------
Each system splits text as its published code does, so there are several functions. The column *tokens* shows the result
for "dog's far-off":

| function | tokens | used by |
|---|---|---|
| `evaluation.metrics.ptb_tokenizer.ptb_tokenize` | dog, 's, far-off | all caption metrics |
| `systems.parts.vocabulary.words_with_hyphens` | dog's, far-off | vocabularies of captioners, their CIDEr-D, floors |
| `systems.parts.words.words_without_hyphens` | dog's, far, off | word vectors |
| `baseline.cased_words.cased_words` | dog, far, off | the retrieval baseline with `tokens: cased` |
| `systems.clip_aac.clip_tokenizer.encode` | byte pairs | text head of CLIP-AAC |
| the tokeniser of a language model | word pieces | GPT-2, BERT and others, through transformers |

- `ptb_tokenize` runs the Java program of COCO's evaluation: Penn Treebank tokens in lower case, without punctuation.
- `words_with_hyphens` and `words_without_hyphens` convert to lower case, and keep apostrophes within words.
- `cased_words` keeps upper case, expands contractions ("it's" becomes "it is") and removes possessives.
- `systems.clip_aac.clip_tokenizer` loads CLIP's byte pairs (`load`), or learns byte pairs from the captions (`train`).
"""
