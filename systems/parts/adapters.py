"""Adapters: small networks that map an encoder's sequence of embeddings to another size.

An adapter maps N sequences, (N, T, inputs), to (N, T, size), where `size` is the adapter's attribute. T is the length
of the longest sequence. The mask, (N, T) bool, is false for padding.

Source: Weck et al. 2021, section 3.3 and Figure 2 (identity, MLP, MHA); Weck et al. 2022, section 3.3 (an MLP with 512
values in both layers).
"""

from torch import Tensor, nn

from systems.parts.decoder import HEAD_SIZE, HEADS, positions

NAMES = ("mlp", "mha", "linear", "identity")


class Identity(nn.Module):
    """An adapter that returns the sequence unchanged."""

    def __init__(self, inputs: int):
        super().__init__()
        self.size = inputs

    def forward(self, sequences: Tensor, mask: Tensor) -> Tensor:
        """Return the sequences, (N, T, size)."""
        return sequences


class Linear(nn.Module):
    """One linear layer, applied to each element of a sequence."""

    def __init__(self, inputs: int, size: int = 512):
        super().__init__()
        self.size = size
        self.layer = nn.Linear(inputs, size)

    def forward(self, sequences: Tensor, mask: Tensor) -> Tensor:
        """Map (N, T, inputs) to (N, T, size)."""
        return self.layer(sequences)


class MLP(nn.Module):
    """Two linear layers with ReLU between them, applied to each element of a sequence."""

    def __init__(self, inputs: int, size: int = 512, hidden: int = 512):
        super().__init__()
        self.size = size
        self.layers = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, size))

    def forward(self, sequences: Tensor, mask: Tensor) -> Tensor:
        """Map (N, T, inputs) to (N, T, size)."""
        return self.layers(sequences)


class MHA(nn.Module):
    """A linear layer to heads x head size values, a positional encoding, and one Transformer encoder layer."""

    def __init__(self, inputs: int, heads: int = HEADS, head_size: int = HEAD_SIZE, dropout: float = 0.1):
        super().__init__()
        self.size = heads * head_size
        self.reduce = nn.Linear(inputs, self.size)
        self.layer = nn.TransformerEncoderLayer(self.size, heads, self.size, dropout, batch_first=True)

    def forward(self, sequences: Tensor, mask: Tensor) -> Tensor:
        """Map (N, T, inputs) to (N, T, size); padding is masked in attention."""
        x = self.reduce(sequences)
        x = x + positions(0, x.shape[1], self.size, x.device).to(x)
        return self.layer(x, src_key_padding_mask=~mask)


def adapter(name: str, inputs: int, size: int = 512) -> Identity | Linear | MLP | MHA:
    """Make an adapter.

    Args:
        name: One of `NAMES`.
        inputs: Number of values of an element of the sequence.
        size: Size of the output of a linear layer or an MLP, and of the MLP's hidden layer. The identity and MHA
            (4 x 128) have their own sizes.
    """
    if name == "mlp":
        return MLP(inputs, size, size)
    if name == "linear":
        return Linear(inputs, size)
    if name == "mha":
        return MHA(inputs)
    return Identity(inputs)
