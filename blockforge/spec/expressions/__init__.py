"""The small language of expressions: read, evaluated, bounded while values are open, solved for a name.

    stages.1.dim >= stages.0.dim            a name is a path of the spec, or what `let` gives
    heads * 16 <= stages[3].dim             + - * / // %
    M == 'all' or S <= M                    == != < <= > >=, chained as in 1 < S <= 4; and, or, not
    not (stages.2.connect == none)          text in quotes; true, false and none stand for themselves
    abs(stages.1.dim - max(a, b)) <= 32     min, max, abs, floor, ceil, round, up, near
    sizes[layer] if stage == 0 else 8       an item of a list; one of two values

Relations of `require` are such expressions, and values `$(...)`, whose names are those of `let` and of the place.
`and`, `or` and `if` look no further than they need. Nothing is ever handed to Python to run.
"""
