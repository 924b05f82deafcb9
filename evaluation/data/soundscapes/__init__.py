"""The default data set: synthesised soundscapes with captions, in Clotho's layout.

With it a baseline trains without a download, and what is in every clip is known. A *scene* is one to three sources of
the kinds in `KINDS`, in order, perhaps over a background. Many scenes of a split hold the same kinds and differ in
order, repetition or overlap only, so that knowing what is there is not enough to find a clip. A grammar with synonyms
says five times, in 8 to 20 words each, what is heard in a scene.

Conventions
-----------
- A scene is a dict from role to source. Role `x` is a texture in the background throughout; `a`, `b` and `c` are heard
  one after another. A source is (kind, how often); a texture, which goes on and does not repeat, counts 0.
- As text a scene reads `wind|dog:3>rain`: wind throughout, and over it a dog that barks three times, then rain.
- A clip is 3.5 to 4.5 s of mono sound at 44.1 kHz in 16 bits. A seed gives the same bytes for any number of workers.
- Captions name every source. They may leave out how often it is heard, but what they say is true.

>>> make_soundscapes(Path("data/soundscapes"))                                                     # doctest: +SKIP
>>> similarity, queries, file_names = oracle_similarity(Path("data/soundscapes"), "evaluation")    # doctest: +SKIP

Modules: `synthesis` (waveforms), `scenes` (the sources of a clip), `grammar` (captions), `generate` (the data set) and
`oracle` (upper bounds).
"""
