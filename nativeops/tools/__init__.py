"""Scripts around the native library that are run by hand."""
