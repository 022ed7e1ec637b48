"""Prediction over any number of pictures, in constant memory: listing, reading, the forward pass, what is written."""
