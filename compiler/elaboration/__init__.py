"""From the tree of a model to its graphs: components, nodes, edits, wires, losses, state and shadows."""
