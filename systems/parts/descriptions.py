"""The description of a trained system for a submission's metadata."""

from systems.training import Schedule


def sampling_rate(hertz: int) -> str:
    """Return a sample rate as the metadata gives it, such as "44.1kHz"."""
    return f"{hertz / 1000:g}kHz"


def describe_system(config: Schedule, sample_rate: int, **facts: object) -> dict[str, object]:
    """Return the entries of the metadata's `system.description`, in the metadata's order.

    Args:
        config: The system's config. Its learning rate and its monitored value become entries.
        sample_rate: The sample rate of the model's audio in Hz.
        **facts: Other entries. They replace the entries from the config and the defaults: supervised training of one
            model with Adam, without augmentation, gradient clipping or word embeddings.
    """
    description = {
        "input_sampling_rate": sampling_rate(sample_rate),
        "acoustic_features": None,
        "word_embeddings": None,
        "data_augmentation": None,
        "machine_learning_method": None,
        "learning_scheme": "supervised",
        "ensemble": False,
        "audio_modelling": None,
        "word_modelling": None,
        "loss_function": None,
        "optimizer": "Adam",
        "learning_rate": config.learning_rate,
        "gradient_clipping": 0,
        "gradient_norm": None,
        "metric_monitored": f"validation {config.monitor}",
    }
    unknown = facts.keys() - description.keys()
    if unknown:
        names = ", ".join(sorted(unknown))
        raise TypeError(f"facts must be entries of the metadata's description; found {names}: correct the names")
    return description | facts
