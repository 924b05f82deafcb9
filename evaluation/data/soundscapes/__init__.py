"""The default data set: synthesised soundscapes with captions, in Clotho's layout.

A baseline can train on this data set without a download, and the content of every clip is known. A *scene* has one to
three sources of the kinds in `SOUND_KINDS`. One of them may be a background. Many scenes of a split have the same kinds
and differ only in order, repetition or overlap. So a system must recognise more than kinds to find a clip. A grammar
with synonyms describes each scene in five captions of 8 to 20 words.

Conventions
-----------
- A scene is a dict from role to source. The source with the role `x` is a texture in the background of the whole clip.
  The sources `a`, `b` and `c` follow one another. A source is (kind, count). A texture is a continuous sound and has
  the count 0. An event, such as a bark, has its number of occurrences as count.
- The text of a scene is, for example, `wind|dog:3>rain`: wind in the background, a dog that barks three times, then
  rain.
- A clip is 3.5 to 4.5 s of mono audio at 44.1 kHz in 16 bits. The bytes depend on the seed, not on the number of
  workers.
- Captions name every source and are always true. They may leave out the count.

>>> make_soundscapes(Path("data/soundscapes"))                                                     # doctest: +SKIP
>>> similarity, queries, file_names = oracle_similarity(Path("data/soundscapes"), "evaluation")    # doctest: +SKIP

Two more data sets are made of the same scenes: multiple-choice questions about clips, and queries about long
recordings.

Modules: `synthesis` (waveforms), `scenes` (the sources of a clip), `grammar` (captions), `generate` (the data set),
`oracle` (upper bounds), `questions` and `recordings` (the two other data sets).
"""
