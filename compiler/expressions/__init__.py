"""What an expression of a spec means: names, values, functions, attributes, types of literals."""
