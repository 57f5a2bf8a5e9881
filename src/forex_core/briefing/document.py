"""The briefing as keys of a forecast's document: numbers, dates and kinds, no sentence in any language.

Every key holds an object, `null` where nobody asked for it, or, where it cannot be had, `{"absent": {"kind": …}}` with
the facts that the kind is about. Rates are in the document's `unit`; amounts in the pair's base currency, what they
gain and lose in its quote currency. [H] has one value for each of the document's `target_dates`.

treasury        null without a budget rate, an exposure and cash flows
    budget_rate     rate, or null
    level           0.05: the share that 'worst' and 'shortfall' speak of
    paths           count; first, last: dates at which the past paths start whose order is followed
    above           [H] probability that the close of that date is above the budget rate; null without one
    ever_above      [H] that some close from the first target date up to that one is; null without one
    ever_below      [H] that some close up to that one is below it; null without one
    exposure        null, or
        amount, side        base currency; 'long' where it is received (positive), 'short' where it is paid
        target_date         the last one
        worst_rate          the rate that is worse for that side with probability `level`
        reference           'budget_rate' or, without one, 'close' (the origin's); reference_rate its value
        loss_at_worst_rate  against the reference, quote currency; negative is a gain
        expected_shortfall  mean loss in the worst `level` of outcomes, quote currency; negative is a gain
    cash_flows      null, or
        flows               [{date, target_date, amount}] in the order of dates; the close of target_date settles it
        total, side         'mixed' where amounts have both signs
        average             null where mixed, else of the mean rate, weighted by amounts: median; above, the probability
                            that it is above the budget rate (null without one); worst_rate
        reference, reference_rate, expected_shortfall   as of an exposure, over all flows
forward         or absent: no_policy_rate {currencies: [{currency, series: [names that would do]}]}
    base, quote     {currency, series, percent}: policy rate in force, percent per year
    days            [H] calendar days from the origin
    rates           [H] close · (1 + quote · days/360) / (1 + base · days/360)
    difference      [H] published median less the forward
    above           [H] probability that the close of that date is above the forward
    advice          kind: 'no_edge' (the verdict is not 'usable'), 'alike' (`above` of the last date within .45 to .55),
                    'median_above', 'median_below'; side: 'long', 'short', 'mixed' or null, as of the position
quote           or absent: not_live {source}, past_day {day}, other_rate {rate}, unavailable {reason},
                implausible {value, close}, too_late {day, last}
    value, at, source   rate; UTC instant; 'given' by hand or the name of the source
    difference          value less the origin's close
    change_pct          the same in percent of the close
    stands_for          target date whose close it is taken as an early sight of
    target_dates        those after it
    quantiles           by level, one value for each of these: quantiles of quote · path / path at stands_for
contributions   or absent: no_drivers, other_model (the published model is not the one that was run)
    target_date, close, median   the last target date
    move            median less close: the sum of all that follows
    drivers         [{name, value}] what each driver's moves of the last `rows` weekdays add, the largest first
    own_past        what is left where no driver has moved: the rate's own past
    remainder       what drivers do together and not one by one
    unread          drivers that no member made anything of today
    rows            60
changes         or absent: first (there is no forecast before), unreadable {run_id}
    run_id, origin, as_of   of the forecast before
    close           {before, now}
    target_date     the last date that both speak of; null where there is none, and then median, width_80, parts as well
    median, width_80    {before, now} on that date; width of the 80 % band
    parts           what the median's move is made of, adding up to it; null where the recipes differ:
                    close (the rate moved), weights (members' weights changed), signal (the members say something else)
    data            new_rows; revised [{series, rows, first}] rows of before that are other now, null where the rows of
                    before are not at hand; left, joined: names of drivers
    model           version {before, now}; recipe_changed
    weights         [{model, before, now}] at most five, the largest change first
"""
