"""Weights from elsewhere: where they are (`source`), what is in a file (`read`), what its keys are called
here (`keys`, `tables/*.json`), what fits a model (`load`), and what all that came to (`report`)."""
