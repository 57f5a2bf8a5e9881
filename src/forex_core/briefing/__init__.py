"""What stands beside a published forecast for whoever acts on it, and what it comes from.

    sample_paths    joint paths over the target dates with the published quantiles
    position        budget rate, exposure and cash flows of the reader
    treasury        probabilities, worst rates and shortfalls of a position
    forward         the rate that covered parity implies, beside the median
    quote           a market rate of now, and the forecast from there
    contributions   which driver moved the median
    changes         what is other than in the forecast before

Pure arithmetic over a run and its bundle: nothing here asks a network or a store. `document.py` turns all of it into
the keys `treasury`, `forward`, `quote`, `contributions` and `changes` of a forecast's document, and has their shapes.
"""
