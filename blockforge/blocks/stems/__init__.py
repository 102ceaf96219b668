"""From the image to the first stage."""
