"""Networks for dense prediction: decoders on encoders of the zoo, by `extends` and a few further stages."""
