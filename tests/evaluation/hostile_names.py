"""File names and queries that are hard to store: blanks, quotes, commas, control characters, half a surrogate pair."""

HOSTILE_NAMES = (
    *(" leading.wav", "trailing.wav ", "a, b.wav", 'q"uo"te.wav', "cours d&#39;eau.wav", "x.y.z.wav", "名前.wav"),
    *("e\u0301.wav", "\u00e9.wav", "tab\t.wav", "nul\0.wav", "half \ud83d.wav", "", "UPPER.WAV", "-", "long" * 3000),
)
