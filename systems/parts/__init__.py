"""Parts that several systems are made of: words, decoders, how captions are searched for, augmentation."""
