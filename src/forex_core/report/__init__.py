"""What a run looks like to people: one self-contained page, pictures, and a table of the forecast."""
