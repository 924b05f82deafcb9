"""Parts that several systems are made of: encoders, adapters, losses, words, decoders, searches, augmentation."""
