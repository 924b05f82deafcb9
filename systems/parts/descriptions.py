"""The description of a trained system that a submission's metadata asks for."""

from systems.training import Schedule


def describe_system(config: Schedule, sample_rate: int, **facts: object) -> dict[str, object]:
    """Return the entries of the metadata's `system.description`, in the metadata's order.

    Args:
        config: The system's config: its learning rate and its monitored value are entries.
        sample_rate: Hz of the model's audio.
        **facts: The other entries. They win over those that follow from the config, and over the defaults: supervised
            training of one model by Adam, without augmentation, gradient clipping or word embeddings.
    """
    description = {
        "input_sampling_rate": f"{sample_rate / 1000:g}kHz",
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
        raise TypeError(f"must be entries of the metadata's description; found {', '.join(sorted(unknown))}")
    return description | facts
