"""Parts that several systems are made of: encoders, words, decoders, how captions are searched for, augmentation."""
