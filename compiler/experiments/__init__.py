"""What stands around a model: data and pipelines, recipes, targets, runs, and the checks across them."""
