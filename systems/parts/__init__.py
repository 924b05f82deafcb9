"""Parts that several systems share: encoders, adapters, losses, words, decoders, caption generation, augmentation."""
